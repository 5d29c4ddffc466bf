// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import Synchronization
import WireFormat

/// Makes operations take their time, also while it is in use; for tests.
public final class DelayBackend: BlockBackend {
  /// How long an operation takes before the base is asked.
  public enum Mode: Sendable, Equatable {
    /// At once.
    case none
    /// So many, before the base is asked.
    case milliseconds(UInt64)
    /// Until the mode is switched.
    case held
  }

  private struct State {
    var mode = Mode.none
    var operations = BackendOperations.all
    var waitingCount = 0
  }
  private let base: any BlockBackend
  private let state = Mutex(State())

  /// Waits for nothing until `switchTo` is called.
  public init(over base: any BlockBackend) { self.base = base }

  /// From now on, for these operations.
  public func switchTo(_ mode: Mode, for operations: BackendOperations = .all) {
    state.withLock {
      $0.mode = mode
      $0.operations = operations
    }
  }

  /// Operations that wait at this moment.
  public var waitingCount: Int { state.withLock { $0.waitingCount } }

  private func pass(_ operation: BackendOperations) {
    let mode: Mode = state.withLock {
      guard $0.operations.contains(operation), $0.mode != .none else { return .none }
      $0.waitingCount += 1
      return $0.mode
    }
    switch mode {
    case .none: return
    case .milliseconds(let count): pause(milliseconds: count)
    case .held:
      while state.withLock({ $0.mode == .held && $0.operations.contains(operation) }) {
        pause(milliseconds: 1)
      }
    }
    state.withLock { $0.waitingCount -= 1 }
  }

  public var byteCount: UInt64 { base.byteCount }
  public var summary: ByteString { base.summary }
  public var blockSizes: BackendBlockSizes { base.blockSizes }
  public var capabilities: BackendCapabilities { base.capabilities }

  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    pass(.read)
    try unsafe base.read(into: buffer, at: offset)
  }
  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    pass(.write)
    try unsafe base.write(bytes, at: offset, isDurable: isDurable)
  }
  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    pass(.writeZeroes)
    try base.writeZeroes(
      range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
  }
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    pass(.trim)
    try base.trim(range, isDurable: isDurable)
  }
  public func flush() throws(BackendError) {
    pass(.flush)
    try base.flush()
  }
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try base.extents(in: range, maximum: maximum)
  }
  public func prefetch(_ range: Range<UInt64>) { base.prefetch(range) }
}

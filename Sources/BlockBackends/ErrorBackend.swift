// SPDX-License-Identifier: Apache-2.0
import Synchronization
import WireFormat

/// The operations of a backend, as a set to choose from.
public struct BackendOperations: OptionSet, Sendable {
  /// A bit for each operation.
  public let rawValue: UInt8
  /// Bits that mean nothing match nothing.
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// `BlockBackend.read`.
  public static let read = BackendOperations(rawValue: 1 << 0)
  /// `BlockBackend.write`.
  public static let write = BackendOperations(rawValue: 1 << 1)
  /// `BlockBackend.writeZeroes`.
  public static let writeZeroes = BackendOperations(rawValue: 1 << 2)
  /// `BlockBackend.trim`.
  public static let trim = BackendOperations(rawValue: 1 << 3)
  /// `BlockBackend.flush`.
  public static let flush = BackendOperations(rawValue: 1 << 4)
  /// All of the five.
  public static let all: BackendOperations = [.read, .write, .writeZeroes, .trim, .flush]
}

/// Fails as it is told to, also while it is in use; for tests.
public final class ErrorBackend: BlockBackend {
  /// When to fail, and with what.
  public enum Mode: Sendable {
    /// Everything goes through to the base.
    case working
    /// These operations throw this error before the base is asked; the others go through.
    case failing(BackendOperations, BackendError)
    /// Call number `call` from now on fails (1 is the next), and no other.
    case failingOnce(call: Int, BackendError)
    /// The next call fails, and before that something else happens, which may call `switchTo`.
    case failingAfter(@Sendable () -> Void, BackendError)
  }

  private struct State {
    var mode = Mode.working
    var callCount = 0
  }
  private let base: any BlockBackend
  private let state = Mutex(State())

  /// Everything goes through until `switchTo` is called.
  public init(over base: any BlockBackend) { self.base = base }

  /// Starts the count of calls anew.
  public func switchTo(_ mode: Mode) {
    state.withLock { $0 = State(mode: mode) }
  }

  /// Calls since the last switch.
  public var callCount: Int { state.withLock { $0.callCount } }

  private func pass(_ operation: BackendOperations) throws(BackendError) {
    let mode = state.withLock { state in
      defer { if case .failingAfter = state.mode { state.mode = .working } }
      return state.mode
    }
    if case .failingAfter(let action, let error) = mode {
      action()
      throw error
    }
    try state.withLock { state throws(BackendError) in
      state.callCount += 1
      switch state.mode {
      case .working, .failingAfter: break
      case .failing(let operations, let error):
        if operations.contains(operation) { throw error }
      case .failingOnce(let call, let error):
        if call == state.callCount { throw error }
      }
    }
  }

  // Every byte passes here: nothing is said of files and mappings below.

  /// The medium's, whatever the mode; so are the next three.
  public var byteCount: UInt64 { base.byteCount }
  public var summary: ByteString { base.summary }
  public var blockSizes: BackendBlockSizes { base.blockSizes }
  public var capabilities: BackendCapabilities { base.capabilities }

  /// A call of `BackendOperations.read`, which the mode may fail before the medium is asked.
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try pass(.read)
    try unsafe base.read(into: buffer, at: offset)
  }
  /// A call of `BackendOperations.write`; a failed one has written nothing.
  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try pass(.write)
    try unsafe base.write(bytes, at: offset, isDurable: isDurable)
  }
  /// A call of `BackendOperations.writeZeroes`; a failed one has written nothing.
  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try pass(.writeZeroes)
    try base.writeZeroes(
      range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
  }
  /// A call of `BackendOperations.trim`; a failed one has trimmed nothing.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try pass(.trim)
    try base.trim(range, isDurable: isDurable)
  }
  /// A call of `BackendOperations.flush`; a failed one has made nothing durable.
  public func flush() throws(BackendError) {
    try pass(.flush)
    try base.flush()
  }
  /// The medium's: it is no call, and never fails by the mode.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try base.extents(in: range, maximum: maximum)
  }
  /// The medium's.
  public func prefetch(_ range: Range<UInt64>) { base.prefetch(range) }
}

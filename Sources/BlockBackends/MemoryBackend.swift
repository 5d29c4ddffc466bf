// SPDX-License-Identifier: Apache-2.0
import Glibc
import LinuxSystem
import Synchronization

/// Bytes in memory, zero at first, gone with the object. For tests and small scratch exports.
public final class MemoryBackend: BlockBackend {
  public let byteCount: UInt64
  public let blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  public let capabilities: BackendCapabilities = [.write, .trim, .isShared, .fastZeroes]
  private let contents: Mutex<[UInt8]>

  public init(byteCount: Int) {
    self.byteCount = UInt64(byteCount)
    contents = Mutex([UInt8](repeating: 0, count: byteCount))
  }

  public init(contents: [UInt8]) {
    byteCount = UInt64(contents.count)
    self.contents = Mutex(contents)
  }

  /// A copy of everything, for tests.
  public var bytes: [UInt8] { contents.withLock { $0 } }

  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    let range = Int(offset)..<(Int(offset) + buffer.count)
    contents.withLock { contents in
      // SAFETY: the range was checked against the contents' count, which never changes.
      unsafe contents.withUnsafeBytes { unsafe buffer.copyMemory(from: .init(rebasing: $0[range])) }
    }
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    let range = Int(offset)..<(Int(offset) + bytes.count)
    contents.withLock { contents in
      // SAFETY: as in `read`.
      unsafe contents.withUnsafeMutableBytes {
        unsafe UnsafeMutableRawBufferPointer(rebasing: $0[range]).copyMemory(from: bytes)
      }
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    if range.isEmpty { return }
    contents.withLock { contents in
      // SAFETY: as in `read`.
      unsafe contents.withUnsafeMutableBytes {
        _ = unsafe memset($0.baseAddress! + Int(range.lowerBound), 0, range.count)
      }
    }
  }

  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try writeZeroes(range, mayPunch: true, isDurable: isDurable)
  }

  public func flush() throws(BackendError) {}
}

// SPDX-License-Identifier: Apache-2.0
// The seam under every protocol: bytes at offsets, made durable on demand. A backend never sees a
// protocol; the rules of requests (range, read-only, alignment) have been applied above it.

import LinuxSystem

/// What a backend may do beyond reading; what it cannot do, nobody asks of it.
public struct BackendCapabilities: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// `write`, `writeZeroes`, `trim`.
  public static let write = BackendCapabilities(rawValue: 1 << 0)
  /// `trim` does something.
  public static let trim = BackendCapabilities(rawValue: 1 << 1)
  /// All users of the backend see each other's writes and flushes, so that one client may use
  /// several connections.
  public static let isShared = BackendCapabilities(rawValue: 1 << 2)
  /// Seeks are expensive.
  public static let rotational = BackendCapabilities(rawValue: 1 << 3)
}

/// Why a backend did not do what it was asked for.
public enum BackendError: Error, Equatable, Sendable {
  /// The system said no; EIO is a bad medium, ENOSPC a full one.
  case system(SystemError)
  /// The range is not inside the backend, or not aligned to its minimum block.
  case range
  case readOnly
  /// The medium ended before the backend did: a file that somebody has cut.
  case truncated
}

/// In bytes, each a power of two.
public struct BackendBlockSizes: Equatable, Sendable {
  /// Offsets and lengths are multiples of it; 1 to 65536.
  public var minimum: UInt32
  /// What is cheap; at least 512 and `minimum`.
  public var preferred: UInt32

  public init(minimum: UInt32, preferred: UInt32) {
    self.minimum = minimum
    self.preferred = preferred
  }
}

/// Any number of threads may call at once. Ranges lie inside `byteCount`. An operation that
/// throws may have been done in part.
public protocol BlockBackend: AnyObject, Sendable {
  var byteCount: UInt64 { get }
  var blockSizes: BackendBlockSizes { get }
  var capabilities: BackendCapabilities { get }

  /// Fills `buffer` with the bytes at `offset`.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError)

  /// `isDurable`: return only when these bytes would survive a loss of power.
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool) throws(BackendError)

  /// The range reads as zeroes afterwards. `mayPunch`: it need not keep its space.
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool) throws(BackendError)

  /// Nobody needs the contents of the range any more; what it reads as afterwards is undefined.
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError)

  /// Everything written before the call is durable when it returns.
  func flush() throws(BackendError)
}

extension BlockBackend {
  /// Refuses what the layers above should not have let through.
  func check(_ offset: UInt64, _ count: Int) throws(BackendError) {
    guard count >= 0, offset <= byteCount, UInt64(count) <= byteCount - offset else {
      throw .range
    }
  }

  func check(_ range: Range<UInt64>) throws(BackendError) {
    guard range.upperBound <= byteCount else { throw .range }
  }
}

/// Calls a function that throws a `SystemError` and passes it on as the backend's.
@inline(__always)
func asBackend<Value>(
  _ body: () throws(SystemError) -> Value
) throws(BackendError) -> Value {
  do { return try body() } catch { throw .system(error) }
}

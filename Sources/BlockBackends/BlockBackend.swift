// SPDX-License-Identifier: Apache-2.0
// The seam under every protocol: bytes at offsets, made durable on demand. A backend never sees a
// protocol; the rules of requests (range, read-only, alignment) have been applied above it.

import CLinux
import LinuxSystem
import WireFormat

/// What a backend may do beyond reading; what it cannot do, nobody asks of it.
public struct BackendCapabilities: OptionSet, Sendable {
  /// A bit for each.
  public let rawValue: UInt8
  /// Bits that mean nothing are kept, and ignored.
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
  /// `writeZeroes` with `mustBeFast` does something: it says `notFast` rather than be slower than
  /// a write.
  public static let fastZeroes = BackendCapabilities(rawValue: 1 << 4)
}

/// Why a backend did not do what it was asked for.
public enum BackendError: Error, Equatable, Sendable {
  /// The system said no; EIO is a bad medium, ENOSPC a full one.
  case system(SystemError)
  /// The range is not inside the backend, or not aligned to its minimum block.
  case range
  /// The backend was opened for reading alone.
  case readOnly
  /// The medium ended before the backend did: a file that somebody has cut.
  case truncated
  /// Zeroes that had to be fast would have had to be written.
  case notFast
}

extension BackendError {
  /// For the log.
  public var text: String {
    switch self {
    case .system(let error): error.text
    case .range: "outside of the medium"
    case .readOnly: "read-only"
    case .truncated: "the medium has become shorter"
    case .notFast: "zeroes would have to be written"
    }
  }
}

/// A piece of a medium, and what is known of it.
public struct BackendExtent: Equatable, Sendable {
  /// Not 0.
  public var byteCount: UInt64
  /// It takes no space.
  public var isHole: Bool
  /// False where that is not known.
  public var readsAsZeroes: Bool

  /// `byteCount` is not 0.
  public init(byteCount: UInt64, isHole: Bool, readsAsZeroes: Bool) {
    self.byteCount = byteCount
    self.isHole = isHole
    self.readsAsZeroes = readsAsZeroes
  }
}

/// Where bytes lie in a file as they are served, so that they can be sent without being copied
/// first. The descriptor is the backend's: open as long as the backend is kept, never to be closed
/// or seeked by others.
public struct BackendFileRange: Equatable, Sendable {
  /// Of the backend's file.
  public var descriptor: CInt
  /// Of the range's first byte.
  public var offset: UInt64

  /// The descriptor stays the backend's.
  public init(descriptor: CInt, offset: UInt64) {
    self.descriptor = descriptor
    self.offset = offset
  }
}

/// Where bytes lie in a file that is read and written past the page cache: with memory, offsets and
/// lengths that are multiples of the backend's minimum block. The descriptor is the backend's.
public struct BackendDirectRange: Equatable, Sendable {
  /// Of the backend's file, which was opened with O_DIRECT.
  public var descriptor: CInt
  /// Of the range's first byte.
  public var offset: UInt64
  /// Every write must be durable when it returns.
  public var isSync: Bool

  /// The descriptor stays the backend's.
  public init(descriptor: CInt, offset: UInt64, isSync: Bool) {
    self.descriptor = descriptor
    self.offset = offset
    self.isSync = isSync
  }
}

/// The bytes of a whole medium, as they lie in memory, for system calls and `write` alone: somebody
/// else may cut the file, and then touching them is SIGBUS, while a system call says EFAULT. Valid as
/// long as the backend is kept.
@safe public struct BackendMapping: @unchecked Sendable {
  // Unchecked: an address; what lies there is the kernel's to order.
  /// Where the medium's first byte lies.
  public let base: UnsafeMutableRawPointer
  /// Of the whole medium.
  public let byteCount: UInt64
  /// False for a medium that was opened for reading; then only reads may go through the mapping.
  public let isWritable: Bool

  /// `base` stays the backend's: this value never unmaps it.
  public init(base: UnsafeMutableRawPointer, byteCount: UInt64, isWritable: Bool) {
    unsafe self.base = unsafe base
    self.byteCount = byteCount
    self.isWritable = isWritable
  }

  /// Copies to where the bytes belong. False when nothing or a part of it was done: ask the backend,
  /// which knows why.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) -> Bool {
    guard isWritable, Self.canCopy, offset <= byteCount, bytes.count <= byteCount - offset,
      let source = bytes.baseAddress
    else { return false }
    // SAFETY: inside the mapping, as checked above; that its file may be cut is what the call is for.
    return unsafe clinux_copy_guarded(base + Int(offset), source, bytes.count) == 0
  }
  private static let canCopy = clinux_guard_copies() == 0
}

/// In bytes, each a power of two.
public struct BackendBlockSizes: Equatable, Sendable {
  /// Offsets and lengths are multiples of it; 1 to 65536.
  public var minimum: UInt32
  /// What is cheap; at least 512 and `minimum`.
  public var preferred: UInt32

  /// In bytes; see each for its range, which is not looked at here.
  public init(minimum: UInt32, preferred: UInt32) {
    self.minimum = minimum
    self.preferred = preferred
  }
}

/// Any number of threads may call at once. Ranges lie inside `byteCount`. An operation that
/// throws may have been done in part.
public protocol BlockBackend: AnyObject, Sendable {
  /// Never changes.
  var byteCount: UInt64 { get }
  /// Never change; what does not keep to `minimum` is not asked.
  var blockSizes: BackendBlockSizes { get }
  /// Never change.
  var capabilities: BackendCapabilities { get }
  /// What it is made of, for `status` and the log: a path, or `mirror(a, b)`.
  var summary: ByteString { get }

  /// Fills `buffer` with the bytes at `offset`.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError)

  /// `isDurable`: return only when these bytes would survive a loss of power.
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool) throws(BackendError)

  /// The range reads as zeroes afterwards. `mayPunch`: it need not keep its space. `mustBeFast`:
  /// not slower than a write of so many bytes, or `notFast`.
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError)

  /// Nobody needs the contents of the range any more; what it reads as afterwards is undefined.
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError)

  /// Everything written before the call is durable when it returns.
  func flush() throws(BackendError)

  /// What lies in `range`, from its start on, neighbours that are alike joined: at least one
  /// extent for a range that is not empty, at most `maximum` (1 and above). Together they may be
  /// shorter than the range, never longer. Default: all of it is data.
  func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent]

  /// Nil when the bytes of the range do not lie in one file in one piece. It holds for reads that
  /// have arrived by now: what is written later may lie elsewhere. Default: nil.
  func fileRange(of range: Range<UInt64>) -> BackendFileRange?

  /// Nil when the bytes of the range do not lie in one file in one piece that is not cached.
  /// Default: nil.
  func directRange(of range: Range<UInt64>) -> BackendDirectRange?

  /// Nil unless all bytes of the medium lie in memory, and writing to that memory is writing to the
  /// medium. A system call is made to find out. Default: nil.
  func mapping() -> BackendMapping?

  /// Like `read`, but does not wait for a medium: false when it would have to, or when that cannot
  /// be told; what is in the buffer is then undefined. Default: false.
  func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool

  /// Brings the range into memory as far as that helps; returns before it is there. Default:
  /// nothing.
  func prefetch(_ range: Range<UInt64>)
}

extension BlockBackend {
  /// For one without a name.
  public var summary: ByteString { "medium" }

  /// One extent of data: nothing is known of holes.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    if range.isEmpty { return [] }
    return [
      BackendExtent(
        byteCount: range.upperBound - range.lowerBound, isHole: false, readsAsZeroes: false)
    ]
  }

  /// No file.
  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? { nil }

  /// No way past the page cache.
  public func directRange(of range: Range<UInt64>) -> BackendDirectRange? { nil }

  /// No mapping.
  public func mapping() -> BackendMapping? { nil }

  /// False: it would always wait.
  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool { false }

  /// Does nothing.
  public func prefetch(_ range: Range<UInt64>) {}

  /// Zeroes that take the time they take.
  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool
  ) throws(BackendError) {
    try writeZeroes(range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: false)
  }
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

// For headers and maps, which are small: as arrays.
extension BlockBackend {
  func readArray(_ count: Int, at offset: UInt64) throws(BackendError) -> [UInt8] {
    // An address that fits whatever direct transfers want.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(count, 1), alignment: 4096)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    // SAFETY: at most what was allocated.
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<count])
    try unsafe read(into: part, at: offset)
    return unsafe [UInt8](part)
  }

  func writeArray(
    _ bytes: [UInt8], at offset: UInt64, isDurable: Bool = false
  ) throws(BackendError) {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(bytes.count, 1), alignment: 4096)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    // SAFETY: at most what was allocated.
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<bytes.count])
    unsafe part.copyBytes(from: bytes)
    try unsafe write(UnsafeRawBufferPointer(part), at: offset, isDurable: isDurable)
  }
}

/// Calls a function that throws a `SystemError` and passes it on as the backend's.
@inline(__always)
func asBackend<Value>(
  _ body: () throws(SystemError) -> Value
) throws(BackendError) -> Value {
  do { return try body() } catch { throw .system(error) }
}

/// Extents as they are found, neighbours that are alike joined.
struct ExtentList {
  private(set) var extents: [BackendExtent] = []
  private let maximum: Int

  init(maximum: Int) { self.maximum = max(1, maximum) }

  /// False when there is no room: nothing after it belongs to the answer.
  mutating func append(_ byteCount: UInt64, isHole: Bool, readsAsZeroes: Bool) -> Bool {
    if byteCount == 0 { return true }
    if let last = extents.last, last.isHole == isHole, last.readsAsZeroes == readsAsZeroes {
      extents[extents.count - 1].byteCount += byteCount
      return true
    }
    guard extents.count < maximum else { return false }
    extents.append(
      BackendExtent(byteCount: byteCount, isHole: isHole, readsAsZeroes: readsAsZeroes))
    return true
  }
}

// SPDX-License-Identifier: Apache-2.0
// A regular file or a block device, through pread(2) and pwrite(2).
//
// What a file system or device cannot do is found out by asking once: punching a hole falls back
// to zeroing a range, that to writing zeroes; trim falls back to nothing. `direct` goes past the
// page cache, so memory, offsets and lengths are then aligned to the device's block.

import CLinux
import LinuxSystem
import Synchronization
import WireFormat

public final class FileBackend: BlockBackend {
  public struct Options: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let readOnly = Options(rawValue: 1 << 0)
    /// Every write is durable before it is answered.
    public static let sync = Options(rawValue: 1 << 1)
    /// Past the page cache.
    public static let direct = Options(rawValue: 1 << 2)
  }

  /// Why a path cannot be served.
  public enum OpenError: Error, Equatable, Sendable {
    case cannotOpen(ByteString, SystemError)
    case notBlocks(ByteString)
    case noDirectIO(ByteString)
    case sizeAboveDevice(ByteString, wanted: UInt64, actual: UInt64)
    case cannotGrow(ByteString, SystemError)
    case system(ByteString, SystemError)

    public var report: (reason: String, advice: String) {
      switch self {
      case .cannotOpen(let path, .noSuchFile):
        ("there is no file \(path.printable)", "check the path of the export, or create the image")
      case .cannotOpen(let path, .permissionDenied):
        (
          "\(path.printable) may not be opened",
          "give the user that runs rootlinkd access to it, or export it with 'ro'"
        )
      case .cannotOpen(let path, let error):
        ("\(path.printable) cannot be opened: \(error.text)", "check the path of the export")
      case .notBlocks(let path):
        (
          "\(path.printable) is neither a regular file nor a block device",
          "export an image file or a device such as /dev/sdb"
        )
      case .noDirectIO(let path):
        (
          "the file system under \(path.printable) has no direct input and output",
          "leave out 'direct' for this export"
        )
      case .sizeAboveDevice(let path, let wanted, let actual):
        (
          "size=\(wanted) is more than the \(actual) bytes of \(path.printable)",
          "give a smaller size, or none; only a regular file that may be written grows"
        )
      case .cannotGrow(let path, let error):
        ("\(path.printable) cannot be made larger: \(error.text)", "give a smaller size")
      case .system(let path, let error):
        ("\(path.printable) cannot be used: \(error.text)", "check the file or the device")
      }
    }
  }

  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  private let file: FileDescriptor
  private let isDevice: Bool
  private let isSync: Bool
  private let isDirect: Bool
  /// What has been refused once is not tried again.
  private let canPunch = Atomic(true)
  private let canZeroRange = Atomic(true)
  private let canReadWithoutWaiting: Atomic<Bool>
  private let isInMemory: Bool

  /// `byteCount`: serve so many bytes from the start; a regular file grows to it. `shownAs`: what
  /// errors call it.
  public init(
    _ opened: ByteString, shownAs shown: ByteString? = nil, options: Options = [],
    byteCount wanted: UInt64? = nil
  ) throws(OpenError) {
    let path = shown ?? opened
    let isReadOnly = options.contains(.readOnly)
    var flags: OpenFlags = isReadOnly ? .readOnly : .readWrite
    flags.insert(.nonBlocking)  // A FIFO must not hold the server up; files do not care.
    if options.contains(.direct) { flags.insert(.direct) }
    do {
      file = try FileDescriptor.open(opened, flags)
    } catch {
      if error == .invalidArgument, options.contains(.direct) { throw .noDirectIO(path) }
      throw .cannotOpen(path, error)
    }
    let number = file.rawValue
    isSync = options.contains(.sync)
    isDirect = options.contains(.direct)

    let status: FileStatus
    var actual: UInt64
    var alignment: UInt32 = 1
    do {
      status = try fileStatus(of: number)
      actual = status.byteCount
      switch status.kind {
      case .regular:
        isDevice = false
        if isDirect { alignment = 4096 }
      case .blockDevice:
        isDevice = true
        actual = try deviceByteCount(number)
        if isDirect { alignment = try deviceBlockByteCount(number) }
      case .directory, .other:
        throw OpenError.notBlocks(path)
      }
    } catch let error as SystemError {
      throw .system(path, error)
    } catch let error as OpenError {
      throw error
    } catch {
      throw .notBlocks(path)
    }

    if let wanted, wanted > actual {
      guard !isDevice, !isReadOnly, let size = Int64(exactly: wanted) else {
        throw .sizeAboveDevice(path, wanted: wanted, actual: actual)
      }
      do { _ = try checked(clinux_ftruncate(number, size)) } catch {
        throw .cannotGrow(path, error)
      }
    }
    let served = wanted ?? actual
    byteCount = served - served % UInt64(alignment)
    blockSizes = BackendBlockSizes(minimum: alignment, preferred: max(4096, alignment))
    capabilities = isReadOnly ? [.isShared] : [.write, .trim, .isShared, .fastZeroes]
    canReadWithoutWaiting = Atomic(!isDirect)
    isInMemory = clinux_file_is_in_memory(number) > 0
  }
}

extension FileBackend {
  /// Whether `init` would find what it needs, as far as can be told without touching anything.
  public static func check(_ path: ByteString) throws(OpenError) {
    let status: FileStatus
    do { status = try fileStatus(path) } catch { throw .cannotOpen(path, error) }
    guard status.kind == .regular || status.kind == .blockDevice else { throw .notBlocks(path) }
    do { _ = try FileDescriptor.open(path, [.readOnly, .nonBlocking]) } catch {
      throw .cannotOpen(path, error)
    }
  }

  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    guard unsafe !isDirect || isAligned(buffer.baseAddress) else {
      return try unsafe withAlignedCopy(of: buffer.count) { copy throws(BackendError) in
        try unsafe read(into: copy, at: offset)
        // SAFETY: both are `buffer.count` bytes long.
        unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(copy))
      }
    }
    var done = 0
    while done < buffer.count {
      let count = try asBackend { () throws(SystemError) in
        try retryingInterrupts {
          // SAFETY: `done` is below the buffer's count.
          unsafe clinux_pread(
            file.rawValue, buffer.baseAddress! + done, buffer.count - done,
            Int64(offset) + Int64(done))
        }
      }
      guard count > 0 else { throw .truncated }
      done += count
    }
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    guard capabilities.contains(.write) else { throw .readOnly }
    guard unsafe !isDirect || isAligned(bytes.baseAddress) else {
      return try unsafe withAlignedCopy(of: bytes.count) { copy throws(BackendError) in
        unsafe copy.copyMemory(from: bytes)  // SAFETY: both are `bytes.count` bytes long.
        try unsafe write(UnsafeRawBufferPointer(copy), at: offset, isDurable: isDurable)
      }
    }
    var done = 0
    while done < bytes.count {
      done += try asBackend { () throws(SystemError) in
        try retryingInterrupts {
          // SAFETY: `done` is below the count.
          unsafe clinux_pwrite(
            file.rawValue, bytes.baseAddress! + done, bytes.count - done,
            Int64(offset) + Int64(done))
        }
      }
    }
    if isDurable || isSync { try flush() }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    guard capabilities.contains(.write) else { throw .readOnly }
    if range.isEmpty { return }
    var isDone = false
    if mayPunch { isDone = try allocate(Self.punchHole, range, unless: canPunch) }
    if !isDone { isDone = try allocate(Self.zeroRange, range, unless: canZeroRange) }
    if !isDone, mustBeFast { throw .notFast }
    if !isDone { try writeZeroBytes(range) }
    if isDurable || isSync { try flush() }
  }

  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    guard capabilities.contains(.write) else { throw .readOnly }
    if range.isEmpty { return }
    _ = try allocate(Self.punchHole, range, unless: canPunch)
    if isDurable || isSync { try flush() }
  }

  public func flush() throws(BackendError) {
    _ = try asBackend { () throws(SystemError) in
      try retryingInterrupts { clinux_fdatasync(file.rawValue) }
    }
  }

  /// FALLOC_FL_PUNCH_HOLE with KEEP_SIZE, and FALLOC_FL_ZERO_RANGE. Source: linux/falloc.h.
  private static let punchHole: CInt = 0x03
  private static let zeroRange: CInt = 0x10

  /// True when fallocate(2) did it; false when this file cannot, now or ever.
  private func allocate(
    _ mode: CInt, _ range: Range<UInt64>, unless possible: borrowing Atomic<Bool>
  ) throws(BackendError) -> Bool {
    guard possible.load(ordering: .relaxed) else { return false }
    do {
      _ = try retryingInterrupts {
        clinux_fallocate(
          file.rawValue, mode, Int64(range.lowerBound), Int64(range.upperBound - range.lowerBound))
      }
      return true
    } catch {
      switch error.errno {
      case 95, 38, 19:  // EOPNOTSUPP, ENOSYS, ENODEV: this file never can.
        possible.store(false, ordering: .relaxed)
        return false
      case 22, 16, 1:  // EINVAL (a device wants whole sectors), EBUSY, EPERM: not this range.
        return false
      default:
        throw .system(error)
      }
    }
  }

  private func writeZeroBytes(_ range: Range<UInt64>) throws(BackendError) {
    let piece = 1 << 20
    try unsafe withAlignedCopy(of: piece) { zeroes throws(BackendError) in
      // SAFETY: as long as the buffer says.
      unsafe zeroes.initializeMemory(as: UInt8.self, repeating: 0)
      var offset = range.lowerBound
      while offset < range.upperBound {
        let count = Int(min(UInt64(piece), range.upperBound - offset))
        try unsafe write(
          UnsafeRawBufferPointer(rebasing: zeroes[..<count]), at: offset, isDurable: false)
        offset += UInt64(count)
      }
    }
  }

  private func isAligned(_ address: UnsafeRawPointer?) -> Bool {
    UInt(bitPattern: address) % UInt(blockSizes.minimum) == 0
  }

  /// Memory for direct transfers, given back when `body` has ended.
  private func withAlignedCopy(
    of count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(BackendError) -> Void
  ) throws(BackendError) {
    let copy = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(count, 1), alignment: 4096)
    defer { unsafe copy.deallocate() }  // SAFETY: allocated above, and not kept by `body`.
    try unsafe body(UnsafeMutableRawBufferPointer(rebasing: copy[..<count]))
  }
}

// What is known of the bytes without reading them.
extension FileBackend {
  /// SEEK_DATA and SEEK_HOLE. Source: linux/fs.h.
  private static let seekData: CInt = 3
  private static let seekHole: CInt = 4

  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    var at = range.lowerBound
    // The descriptor's position is moved by this and read by nobody.
    while at < range.upperBound, !isDevice {
      let data = clinux_lseek(file.rawValue, Int64(at), Self.seekData)
      // ENXIO: nothing but a hole follows. Any other error: what is there cannot be told.
      guard data >= 0 || data == -6 else { break }
      let holeEnd = data < 0 ? range.upperBound : min(UInt64(data), range.upperBound)
      if holeEnd > at {
        guard list.append(holeEnd - at, isHole: true, readsAsZeroes: true) else {
          return list.extents
        }
        at = holeEnd
        continue
      }
      let hole = clinux_lseek(file.rawValue, Int64(at), Self.seekHole)
      guard hole > Int64(at) else { break }  // Somebody else has changed it in between.
      let dataEnd = min(UInt64(hole), range.upperBound)
      guard list.append(dataEnd - at, isHole: false, readsAsZeroes: false) else {
        return list.extents
      }
      at = dataEnd
    }
    _ = list.append(range.upperBound - at, isHole: false, readsAsZeroes: false)
    return list.extents
  }

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    isDirect ? nil : BackendFileRange(descriptor: file.rawValue, offset: range.lowerBound)
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    guard canReadWithoutWaiting.load(ordering: .relaxed) else {
      // A file of a file system in memory does not wait, whatever it says of RWF_NOWAIT.
      guard isInMemory else { return false }
      try unsafe read(into: buffer, at: offset)
      return true
    }
    // SAFETY: the buffer's own address and length.
    let count = unsafe clinux_read_without_waiting(
      file.rawValue, buffer.baseAddress, buffer.count, Int64(offset))
    if count == buffer.count { return true }
    if count == -95 {  // EOPNOTSUPP: this file system never can.
      canReadWithoutWaiting.store(false, ordering: .relaxed)
      return try unsafe readWithoutWaiting(into: buffer, at: offset)
    }
    // Fewer bytes: some pages are not in memory, or the file has been cut. `read` finds out, and
    // meets again what was an error.
    return false
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard !isDirect, range.upperBound <= byteCount, !range.isEmpty else { return }
    _ = clinux_prefetch(
      file.rawValue, Int64(range.lowerBound), Int64(range.upperBound - range.lowerBound))
  }
}

private func fileStatus(of number: CInt) throws(SystemError) -> FileStatus {
  var status = clinux_status()
  // SAFETY: a structure of ours that the call fills.
  _ = try checked(unsafe clinux_fstat(number, &status))
  return FileStatus(status)
}

private func deviceByteCount(_ number: CInt) throws(SystemError) -> UInt64 {
  var count: UInt64 = 0
  // SAFETY: BLKGETSIZE64 writes one 64-bit integer. Source: linux/fs.h.
  _ = try checked(unsafe clinux_ioctl_pointer(number, clinux_BLKGETSIZE64, &count))
  return count
}

private func deviceBlockByteCount(_ number: CInt) throws(SystemError) -> UInt32 {
  var count: CInt = 0
  // SAFETY: BLKSSZGET writes one int. Source: linux/fs.h.
  _ = try checked(unsafe clinux_ioctl_pointer(number, clinux_BLKSSZGET, &count))
  guard count >= 512, count <= 65536, count & (count - 1) == 0 else { throw .invalidArgument }
  return UInt32(count)
}

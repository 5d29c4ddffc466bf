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

/// A file or device under an export, or under a part of one; see the head of this file.
public final class FileBackend: BlockBackend {
  /// How it is opened.
  public struct Options: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Writes of every kind throw `readOnly`.
    public static let readOnly = Options(rawValue: 1 << 0)
    /// Every write is durable before it is answered.
    public static let sync = Options(rawValue: 1 << 1)
    /// Past the page cache (`blockio`); without it through the page cache (`fileio`).
    public static let direct = Options(rawValue: 1 << 2)
  }

  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  public let summary: ByteString
  /// What the kernel says of a block device; nil for a regular file.
  public let geometry: DeviceGeometry?
  let file: FileDescriptor
  let isSync: Bool
  let isDirect: Bool
  /// What addresses of memory are multiples of; 1 through the page cache.
  private let memoryAlignment: UInt
  /// What has been refused once is not tried again.
  private let canPunch = Atomic(true)
  private let canZeroRange = Atomic(true)
  private let canDiscard = Atomic(true)
  let canReadWithoutWaiting: Atomic<Bool>
  /// Of a file system in memory.
  let isInMemory: Bool
  /// Then, where there is room.
  let mapped: FileMapping?

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
    summary = path
    isSync = options.contains(.sync)
    isDirect = options.contains(.direct)

    var actual: UInt64
    var alignment: UInt32 = 1
    var memory: UInt32 = 1
    do throws(SystemError) {
      let status = try fileStatus(of: number)
      actual = status.byteCount
      switch status.kind {
      case .regular:
        geometry = nil
        if isDirect { (alignment, memory) = directAlignment(number) }
      case .blockDevice:
        let found = try DeviceGeometry(
          of: number, major: status.deviceMajor, minor: status.deviceMinor)
        geometry = found
        actual = found.byteCount
        if isDirect {
          alignment = found.logicalBlockByteCount
          memory = alignment
        }
      case .directory, .other: throw Self.notBlocks
      }
    } catch {
      if error == Self.notBlocks { throw .notBlocks(path) }
      throw .system(path, error)
    }

    if let wanted, wanted > actual {
      guard geometry == nil, !isReadOnly, let size = Int64(exactly: wanted) else {
        throw .sizeAboveDevice(path, wanted: wanted, actual: actual)
      }
      do { _ = try checked(clinux_ftruncate(number, size)) } catch {
        throw .cannotGrow(path, error)
      }
    }
    let served = wanted ?? actual
    byteCount = served - served % UInt64(alignment)
    blockSizes = BackendBlockSizes(
      minimum: alignment,
      preferred: max(4096, alignment, min(65536, geometry?.physicalBlockByteCount ?? 0)))
    capabilities = Self.capabilities(isReadOnly: isReadOnly, geometry)
    canReadWithoutWaiting = Atomic(!isDirect)
    isInMemory = clinux_file_is_in_memory(number) > 0
    memoryAlignment = UInt(memory)
    mapped =
      isInMemory && !isDirect && geometry == nil
      ? FileMapping(of: number, byteCount: byteCount, isWritable: !isReadOnly) : nil
  }

  /// A regular file that is open already, through the page cache.
  init(owning file: consuming FileDescriptor, byteCount: UInt64, summary: ByteString) {
    isInMemory = clinux_file_is_in_memory(file.rawValue) > 0
    self.file = file
    self.byteCount = byteCount
    self.summary = summary
    blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
    capabilities = Self.capabilities(isReadOnly: false, nil)
    geometry = nil
    isSync = false
    isDirect = false
    memoryAlignment = 1
    canReadWithoutWaiting = Atomic(true)
    mapped = nil  // A layer has holes.
  }

  deinit { mapped?.end() }

  /// ENOTBLK. Source: asm-generic/errno-base.h.
  private static let notBlocks = SystemError(errno: 15)

  private static func capabilities(
    isReadOnly: Bool, _ geometry: DeviceGeometry?
  ) -> BackendCapabilities {
    var found: BackendCapabilities = .isShared
    if geometry?.isRotational == true { found.insert(.rotational) }
    if isReadOnly { return found }
    found.insert(.write)
    // A file system says what it can do when it is asked to do it.
    if geometry?.canDiscard != false { found.insert(.trim) }
    if geometry?.canWriteZeroes != false { found.insert(.fastZeroes) }
    return found
  }
}

extension FileBackend {
  /// Throws `truncated` where somebody has cut the file.
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
      // SAFETY: `done` is below the buffer's count.
      let count = unsafe clinux_pread(
        file.rawValue, buffer.baseAddress! + done, buffer.count - done,
        Int64(offset) + Int64(done))
      if count == 0 { throw .truncated }
      try advance(&done, by: count)
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
      // SAFETY: `done` is below the count.
      let count = unsafe clinux_pwrite(
        file.rawValue, bytes.baseAddress! + done, bytes.count - done,
        Int64(offset) + Int64(done))
      if count == 0 { throw .system(.inputOutput) }
      try advance(&done, by: count)
    }
    if isDurable || isSync { try flush() }
  }

  /// The result of a shim: so many bytes more, or an error; an interrupted call is made again.
  @inline(__always)
  private func advance(_ done: inout Int, by result: Int) throws(BackendError) {
    if result > 0 {
      done += result
    } else if result != -4 {
      throw .system(SystemError(errno: CInt(truncatingIfNeeded: 0 &- result)))
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    guard capabilities.contains(.write) else { throw .readOnly }
    if range.isEmpty { return }
    let whole = wholeBlocks(in: range)
    if try !zero(whole, mayPunch: mayPunch, mustBeFast: mustBeFast) {
      if mustBeFast { throw .notFast }
      try writeZeroBytes(range)
    } else {
      try writeZeroBytes(range.lowerBound..<whole.lowerBound)
      try writeZeroBytes(whole.upperBound..<range.upperBound)
    }
    if isDurable || isSync { try flush() }
  }

  /// Does nothing where the file system or the device cannot do it.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    guard capabilities.contains(.write) else { throw .readOnly }
    let whole = wholeBlocks(in: range)
    if whole.isEmpty { return }
    if geometry == nil {
      _ = try allocate(Self.punchHole, whole, unless: canPunch)
    } else if capabilities.contains(.trim), canDiscard.load(ordering: .relaxed) {
      try discard(whole)
    }
    if isDurable || isSync { try flush() }
  }

  public func flush() throws(BackendError) {
    while true {
      let result = clinux_fdatasync(file.rawValue)
      if result == 0 { return }
      if result != -4 { throw .system(SystemError(errno: -result)) }
    }
  }

  /// A device zeroes and discards blocks, a file system bytes. May be empty.
  private func wholeBlocks(in range: Range<UInt64>) -> Range<UInt64> {
    guard let block = geometry.map({ UInt64($0.logicalBlockByteCount) }) else { return range }
    let end = range.upperBound / block * block
    let start = (range.lowerBound + block - 1) / block * block
    return start < end ? start..<end : range.upperBound..<range.upperBound
  }

  /// FALLOC_FL_PUNCH_HOLE with KEEP_SIZE, and FALLOC_FL_ZERO_RANGE. Source: linux/falloc.h.
  private static let punchHole: CInt = 0x03
  private static let zeroRange: CInt = 0x10

  /// False when nothing was done, for it cannot be done without writing.
  private func zero(
    _ range: Range<UInt64>, mayPunch: Bool, mustBeFast: Bool
  ) throws(BackendError) -> Bool {
    if range.isEmpty { return true }
    if mayPunch, try allocate(Self.punchHole, range, unless: canPunch) { return true }
    // A device without a command for it is written to by the kernel.
    if mustBeFast, geometry?.canWriteZeroes == false { return false }
    return try allocate(Self.zeroRange, range, unless: canZeroRange)
  }

  /// True when fallocate(2) did it; false when this file cannot, now or ever.
  private func allocate(
    _ mode: CInt, _ range: Range<UInt64>, unless possible: borrowing Atomic<Bool>
  ) throws(BackendError) -> Bool {
    guard possible.load(ordering: .relaxed) else { return false }
    while true {
      let result = clinux_fallocate(
        file.rawValue, mode, Int64(range.lowerBound), Int64(range.upperBound - range.lowerBound))
      switch result {
      case 0...: return true
      case -4: continue
      case -95, -38, -19:  // EOPNOTSUPP, ENOSYS, ENODEV: this file never can.
        possible.store(false, ordering: .relaxed)
        return false
      case -22, -16, -1:  // EINVAL, EBUSY, EPERM: not this range.
        return false
      default: throw .system(SystemError(errno: -result))
      }
    }
  }

  private func discard(_ range: Range<UInt64>) throws(BackendError) {
    var words: (UInt64, UInt64) = (range.lowerBound, range.upperBound - range.lowerBound)
    while true {
      // SAFETY: BLKDISCARD reads two 64-bit integers, offset and length. Source: linux/fs.h.
      let result = unsafe clinux_ioctl_pointer(file.rawValue, clinux_BLKDISCARD, &words)
      switch result {
      case 0...: return
      case -4: continue
      case -95, -25:  // EOPNOTSUPP, ENOTTY: never.
        canDiscard.store(false, ordering: .relaxed)
        return
      case -22, -16: return  // EINVAL, EBUSY: not this range; nobody is owed it.
      default: throw .system(SystemError(errno: -result))
      }
    }
  }

  private func writeZeroBytes(_ range: Range<UInt64>) throws(BackendError) {
    if range.isEmpty { return }
    let piece = Int(min(1 << 20, range.upperBound - range.lowerBound))
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
    UInt(bitPattern: address) % memoryAlignment == 0
  }

  /// Memory for direct transfers, given back when `body` has ended.
  private func withAlignedCopy(
    of count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(BackendError) -> Void
  ) throws(BackendError) {
    let copy = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(count, 1), alignment: 65536)
    defer { unsafe copy.deallocate() }  // SAFETY: allocated above, and not kept by `body`.
    try unsafe body(UnsafeMutableRawBufferPointer(rebasing: copy[..<count]))
  }
}

private func fileStatus(of number: CInt) throws(SystemError) -> FileStatus {
  var status = clinux_status()
  // SAFETY: a structure of ours that the call fills.
  _ = try checked(unsafe clinux_fstat(number, &status))
  return FileStatus(status)
}

/// Of a regular file, in bytes. Where nobody says: a page, which every file system is content with.
private func directAlignment(_ number: CInt) -> (offset: UInt32, memory: UInt32) {
  var memory: UInt32 = 0
  var offset: UInt32 = 0
  // SAFETY: two integers of ours that the call fills.
  let isTold = unsafe clinux_direct_alignment(number, &memory, &offset) >= 0
  func isSensible(_ value: UInt32) -> Bool { value <= 65536 && value & (value &- 1) == 0 }
  guard isTold, offset >= 512, isSensible(offset), isSensible(memory) else { return (4096, 4096) }
  return (offset, max(memory, 1))
}

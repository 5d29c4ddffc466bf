// SPDX-License-Identifier: Apache-2.0
// Bytes in memory, zero at first, gone with the object. For tests and scratch exports.
//
// Pages of the system that are taken when they are first written to, so the medium costs what is
// in it. Nothing is locked: requests that overlap in time may be mixed byte by byte, as on a disk.
//
//   1  The mapping is what the bytes are. The bits only say where there can be others than zero.
//   2  A bit is set before the first byte of its chunk is written, and never cleared.

import CLinux
import LinuxSystem
import Synchronization
import WireFormat

/// A medium of zeroes that needs no file; see the head of this file.
@safe public final class MemoryBackend: BlockBackend, @unchecked Sendable {
  // Unchecked: the address never changes, and what lies there is anybody's, see above.
  private static let chunkByteCount: UInt64 = 65536
  private static let pageByteCount: UInt64 = 4096

  public let byteCount: UInt64
  public let blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  public let capabilities: BackendCapabilities = [.write, .trim, .isShared, .fastZeroes]
  public let summary: ByteString = "memory"
  private let memory: UnsafeMutableRawPointer
  private let mappedByteCount: Int
  private let written: AtomicBits

  /// ENOMEM when there is no room for so many addresses, EFBIG above 256 TiB.
  public init(sparse byteCount: UInt64) throws(SystemError) {
    written = try AtomicBits(count: byteCount / Self.chunkByteCount + 1)
    let pages = byteCount / Self.pageByteCount + 1
    mappedByteCount = Int(pages * Self.pageByteCount)
    guard let memory = unsafe clinux_map_memory(mappedByteCount) else { throw .noMemory }
    unsafe self.memory = memory
    self.byteCount = byteCount
  }

  /// For tests: traps where `init(sparse:)` throws.
  public convenience init(byteCount: Int) {
    do { try self.init(sparse: UInt64(byteCount)) } catch {
      preconditionFailure("no memory for \(byteCount) bytes")
    }
  }

  /// For tests: with these bytes.
  public convenience init(contents: [UInt8]) {
    self.init(byteCount: contents.count)
    unsafe contents.withUnsafeBytes { bytes in
      // SAFETY: as many bytes as there are addresses for.
      do { try unsafe write(bytes, at: 0, isDurable: false) } catch {
        preconditionFailure("memory refused a write")
      }
    }
  }

  deinit { unsafe clinux_unmap_memory(memory, mappedByteCount) }  // SAFETY: the only owner.

  /// A copy of everything, for tests.
  public var bytes: [UInt8] {
    // SAFETY: the mapping is at least as long.
    unsafe [UInt8](UnsafeRawBufferPointer(start: memory, count: Int(byteCount)))
  }
}

extension MemoryBackend {
  private func chunks(_ range: Range<UInt64>) -> ClosedRange<UInt64> {
    (range.lowerBound / Self.chunkByteCount)...((range.upperBound - 1) / Self.chunkByteCount)
  }

  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    if buffer.count == 0 { return }
    // To read a page that was never written to would take memory for its tables.
    if written.all(chunks(offset..<(offset + UInt64(buffer.count))), are: false) {
      unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)  // SAFETY: all of the buffer.
      return
    }
    // SAFETY: the range was checked against the mapping.
    unsafe buffer.copyMemory(
      from: UnsafeRawBufferPointer(start: memory + Int(offset), count: buffer.count))
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try unsafe read(into: buffer, at: offset)
    return true
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    if bytes.count == 0 { return }
    let chunks = chunks(offset..<(offset + UInt64(bytes.count)))
    if !written.all(chunks, are: true) { written.insert(chunks) }
    // SAFETY: the range was checked against the mapping.
    unsafe UnsafeMutableRawBufferPointer(start: memory + Int(offset), count: bytes.count)
      .copyMemory(from: bytes)
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    if range.isEmpty { return }
    let page = Self.pageByteCount
    let start = min((range.lowerBound + page - 1) / page * page, range.upperBound)
    let end = max(range.upperBound / page * page, start)
    zero(range.lowerBound..<start)
    if end > start {
      // SAFETY: whole pages inside the mapping, which read as zeroes afterwards.
      unsafe clinux_discard_memory(memory + Int(start), Int(end - start))
    }
    zero(end..<range.upperBound)
  }

  private func zero(_ range: Range<UInt64>) {
    if range.isEmpty || written.all(chunks(range), are: false) { return }
    // SAFETY: inside the range, which was checked against the mapping.
    unsafe UnsafeMutableRawBufferPointer(
      start: memory + Int(range.lowerBound), count: Int(range.upperBound - range.lowerBound)
    ).initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// Zeroes the range: whole pages of it take no memory afterwards.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try writeZeroes(range, mayPunch: true, isDurable: isDurable)
  }

  /// Does nothing: nothing of it outlives the process.
  public func flush() throws(BackendError) {}

  /// Chunks that were written to are looked at: what is zero there is told page by page.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    var at = range.lowerBound
    while at < range.upperBound {
      let chunk = at / Self.chunkByteCount
      let isWritten = written.contains(chunk)
      let last = (range.upperBound - 1) / Self.chunkByteCount
      let end =
        isWritten
        ? min((at / Self.pageByteCount + 1) * Self.pageByteCount, range.upperBound)
        : min(
          (chunk + written.runLength(from: chunk, through: last)) * Self.chunkByteCount,
          range.upperBound)
      let isZero = !isWritten || isZero(at..<end)
      guard list.append(end - at, isHole: isZero, readsAsZeroes: isZero) else { break }
      at = end
    }
    return list.extents
  }

  private func isZero(_ range: Range<UInt64>) -> Bool {
    let count = Int(range.upperBound - range.lowerBound)
    // SAFETY: inside a range that was checked against the mapping.
    let bytes = unsafe UnsafeRawBufferPointer(
      start: memory + Int(range.lowerBound), count: count)
    var seen: UInt64 = 0
    var index = 0
    while index + 8 <= count {
      // SAFETY: eight bytes below the count.
      seen |= unsafe bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
      index += 8
    }
    while index < count {
      seen |= UInt64(unsafe bytes[index])  // SAFETY: below the count.
      index += 1
    }
    return seen == 0
  }
}

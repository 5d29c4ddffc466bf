// SPDX-License-Identifier: Apache-2.0
// Several media side by side: chunk c lies on medium c mod n, as its chunk c div n.
//
// Each is used as far as the smallest of them goes, in whole chunks.

import LinuxSystem
import WireFormat

/// Several media in turns; see the head of this file.
public final class StripeBackend: BlockBackend {
  /// 4 KiB; the largest minimum block of the media where that is more.
  public static let chunkByteCountMinimum: UInt64 = 4096
  /// 64 MiB.
  public static let chunkByteCountMaximum: UInt64 = 64 << 20
  /// 64 KiB, of a stripe for which nothing is written.
  public static let chunkByteCountDefault: UInt64 = 65536

  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  public let summary: ByteString
  private let parts: [any BlockBackend]
  private let chunkByteCount: UInt64

  /// `parts`: in their order, at least two. `chunkByteCount`: a power of two from 4 KiB to
  /// 64 MiB; media that were written with another one read as garbage.
  public init(
    _ parts: [any BlockBackend], chunkByteCount: UInt64 = chunkByteCountDefault
  ) throws(StackError) {
    guard parts.count >= 2 else {
      throw .tooFew(kind: "stripe", wanted: 2, actual: parts.count)
    }
    let common = CommonProperties(parts)
    let least = max(Self.chunkByteCountMinimum, UInt64(common.blockSizes.minimum))
    guard chunkByteCount >= least, chunkByteCount <= Self.chunkByteCountMaximum,
      chunkByteCount & (chunkByteCount - 1) == 0
    else { throw .chunk(chunkByteCount, minimum: least, maximum: Self.chunkByteCountMaximum) }
    var used = UInt64.max
    for (index, part) in parts.enumerated() {
      guard part.byteCount >= chunkByteCount else {
        throw .partTooSmall(
          kind: "stripe", part: index, byteCount: part.byteCount, needed: chunkByteCount)
      }
      used = min(used, part.byteCount / chunkByteCount * chunkByteCount)
    }
    let (sum, overflow) = used.multipliedReportingOverflow(by: UInt64(parts.count))
    guard !overflow, sum <= UInt64(Int64.max) else { throw .tooLarge(kind: "stripe") }
    byteCount = sum
    self.parts = parts
    self.chunkByteCount = chunkByteCount
    blockSizes = common.blockSizes
    capabilities = common.capabilities
    summary = summaryOf("stripe", parts)
  }

  /// Which part has the byte, where there, and how many bytes follow it in the chunk, itself
  /// included.
  @inline(__always)
  private func place(of offset: UInt64) -> (part: Int, offset: UInt64, rest: UInt64) {
    let chunk = offset / chunkByteCount
    let inside = offset % chunkByteCount
    let count = UInt64(parts.count)
    return (
      Int(chunk % count), chunk / count * chunkByteCount + inside, chunkByteCount - inside
    )
  }

  /// How many of the first `offset` bytes lie on a part: its bytes of a range are in one piece.
  private func byteCount(of part: Int, before offset: UInt64) -> UInt64 {
    let row = chunkByteCount * UInt64(parts.count)
    let inRow = offset % row
    let start = chunkByteCount * UInt64(part)
    return offset / row * chunkByteCount
      + min(inRow > start ? inRow - start : 0, chunkByteCount)
  }

  @inline(__always)
  private func forEachPart(
    in range: Range<UInt64>,
    _ body: (any BlockBackend, Range<UInt64>) throws(BackendError) -> Void
  ) throws(BackendError) {
    for index in parts.indices {
      let piece =
        byteCount(
          of: index, before: range.lowerBound)..<byteCount(of: index, before: range.upperBound)
      if !piece.isEmpty { try body(parts[index], piece) }
    }
  }
}

extension StripeBackend {
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    var done = 0
    while done < buffer.count {
      let place = place(of: offset + UInt64(done))
      let count = Int(min(place.rest, UInt64(buffer.count - done)))
      // SAFETY: `count` is at most what is left of the buffer.
      let slice = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + count)])
      try unsafe parts[place.part].read(into: slice, at: place.offset)
      done += count
    }
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    var done = 0
    while done < buffer.count {
      let place = place(of: offset + UInt64(done))
      let count = Int(min(place.rest, UInt64(buffer.count - done)))
      // SAFETY: as in `read`.
      let slice = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + count)])
      guard
        try unsafe parts[place.part].readWithoutWaiting(into: slice, at: place.offset)
      else { return false }
      done += count
    }
    return true
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    var done = 0
    while done < bytes.count {
      let place = place(of: offset + UInt64(done))
      let count = Int(min(place.rest, UInt64(bytes.count - done)))
      // SAFETY: as in `read`.
      let slice = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<(done + count)])
      try unsafe parts[place.part].write(slice, at: place.offset, isDurable: isDurable)
      done += count
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    try forEachPart(in: range) { part, piece throws(BackendError) in
      try part.writeZeroes(
        piece, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
    }
  }

  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    try forEachPart(in: range) { part, piece throws(BackendError) in
      try part.trim(piece, isDurable: isDurable)
    }
  }

  /// Of every part, also after one has failed; throws what the first failed with.
  public func flush() throws(BackendError) { try flushAll(parts) }

  /// Of at most 4096 chunks a call.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    var at = range.lowerBound
    // Bounded: a question of 2^63 bytes would have as many answers as there are chunks.
    let last = min(range.upperBound, at &+ Self.extentChunkMaximum &* chunkByteCount)
    while at < last {
      let place = place(of: at)
      let count = min(place.rest, last - at)
      let found = try parts[place.part].extents(
        in: place.offset..<(place.offset + count), maximum: maximum)
      guard !found.isEmpty else { break }
      for extent in found {
        guard
          list.append(
            extent.byteCount, isHole: extent.isHole, readsAsZeroes: extent.readsAsZeroes)
        else { return list.extents }
        at += extent.byteCount
      }
    }
    return list.extents
  }

  private static let extentChunkMaximum: UInt64 = 4096

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    guard !range.isEmpty, range.upperBound <= byteCount else { return nil }
    let place = place(of: range.lowerBound)
    let count = range.upperBound - range.lowerBound
    guard count <= place.rest else { return nil }
    return parts[place.part].fileRange(of: place.offset..<(place.offset + count))
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard range.upperBound <= byteCount else { return }
    try? forEachPart(in: range) { part, piece throws(BackendError) in part.prefetch(piece) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Several media one after the other.
//
// Each is cut to whole blocks of the largest minimum among them, so that no block lies on two.

import LinuxSystem
import WireFormat

/// Several media as one; see the head of this file.
public final class LinearBackend: BlockBackend {
  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  public let summary: ByteString
  private let parts: [any BlockBackend]
  /// Where each part ends; as many as parts, each larger than the one before.
  private let ends: [UInt64]

  /// `parts`: in their order, at least one.
  public init(_ parts: [any BlockBackend]) throws(StackError) {
    guard !parts.isEmpty else { throw .tooFew(kind: "linear", wanted: 1, actual: 0) }
    let common = CommonProperties(parts)
    let block = UInt64(common.blockSizes.minimum)
    var ends: [UInt64] = []
    var end: UInt64 = 0
    for (index, part) in parts.enumerated() {
      let used = part.byteCount / block * block
      guard used > 0 else {
        throw .partTooSmall(
          kind: "linear", part: index, byteCount: part.byteCount, needed: block)
      }
      let (sum, overflow) = end.addingReportingOverflow(used)
      guard !overflow, sum <= UInt64(Int64.max) else { throw .tooLarge(kind: "linear") }
      end = sum
      ends.append(end)
    }
    self.parts = parts
    self.ends = ends
    byteCount = end
    blockSizes = common.blockSizes
    capabilities = common.capabilities
    summary = summaryOf("linear", parts)
  }

  /// The part that has the byte, and where it begins.
  @inline(__always)
  private func place(of offset: UInt64) -> (part: Int, start: UInt64) {
    var low = 0
    var high = ends.count - 1
    while low < high {
      let middle = (low + high) / 2
      if offset < ends[middle] { high = middle } else { low = middle + 1 }
    }
    return (low, low == 0 ? 0 : ends[low - 1])
  }

  /// Calls `body` for each part that the range touches, with the piece as the part sees it.
  @inline(__always)
  private func forEachPiece(
    of range: Range<UInt64>,
    _ body: (any BlockBackend, Range<UInt64>) throws(BackendError) -> Bool
  ) throws(BackendError) {
    var at = range.lowerBound
    while at < range.upperBound {
      let (part, start) = place(of: at)
      let end = min(range.upperBound, ends[part])
      guard try body(parts[part], (at - start)..<(end - start)) else { return }
      at = end
    }
  }
}

extension LinearBackend {
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    var done = 0
    try forEachPiece(of: offset..<(offset + UInt64(buffer.count))) {
      part, piece throws(BackendError) in
      // SAFETY: the pieces of a range are as long as the range together.
      let slice = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[done..<(done + piece.count)])
      try unsafe part.read(into: slice, at: piece.lowerBound)
      done += piece.count
      return true
    }
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    var done = 0
    try forEachPiece(of: offset..<(offset + UInt64(buffer.count))) {
      part, piece throws(BackendError) in
      // SAFETY: as in `read`.
      let slice = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[done..<(done + piece.count)])
      guard try unsafe part.readWithoutWaiting(into: slice, at: piece.lowerBound) else {
        return false
      }
      done += piece.count
      return true
    }
    return done == buffer.count
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    var done = 0
    try forEachPiece(of: offset..<(offset + UInt64(bytes.count))) {
      part, piece throws(BackendError) in
      // SAFETY: as in `read`.
      let slice = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<(done + piece.count)])
      try unsafe part.write(slice, at: piece.lowerBound, isDurable: isDurable)
      done += piece.count
      return true
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    try forEachPiece(of: range) { part, piece throws(BackendError) in
      try part.writeZeroes(
        piece, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
      return true
    }
  }

  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    try forEachPiece(of: range) { part, piece throws(BackendError) in
      try part.trim(piece, isDurable: isDurable)
      return true
    }
  }

  /// Of every part, also after one has failed; throws what the first failed with.
  public func flush() throws(BackendError) { try flushAll(parts) }

  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    try forEachPiece(of: range) { part, piece throws(BackendError) in
      var at = piece.lowerBound
      while at < piece.upperBound {
        let found = try part.extents(in: at..<piece.upperBound, maximum: maximum)
        guard !found.isEmpty else { return false }
        for extent in found {
          guard
            list.append(
              extent.byteCount, isHole: extent.isHole, readsAsZeroes: extent.readsAsZeroes)
          else { return false }
          at += extent.byteCount
        }
      }
      return true
    }
    return list.extents
  }

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    guard !range.isEmpty, range.upperBound <= byteCount else { return nil }
    let (part, start) = place(of: range.lowerBound)
    guard range.upperBound <= ends[part] else { return nil }
    return parts[part].fileRange(of: (range.lowerBound - start)..<(range.upperBound - start))
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard range.upperBound <= byteCount else { return }
    try? forEachPiece(of: range) { part, piece throws(BackendError) in
      part.prefetch(piece)
      return true
    }
  }
}

/// Flushes every one, also after one has failed, and throws what the first failed with.
func flushAll(_ parts: [any BlockBackend]) throws(BackendError) {
  var failure: BackendError?
  for part in parts {
    do throws(BackendError) { try part.flush() } catch { failure = failure ?? error }
  }
  if let failure { throw failure }
}

/// `kind(a, b)`.
func summaryOf(_ kind: ByteString, _ parts: [any BlockBackend]) -> ByteString {
  var text = kind + "("
  for (index, part) in parts.enumerated() {
    if index > 0 { text = text + ", " }
    text = text + part.summary
  }
  return text + ")"
}

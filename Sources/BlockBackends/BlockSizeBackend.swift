// SPDX-License-Identifier: Apache-2.0
// Other blocks than those of the medium (`blocksize=`).
//
// Larger ones are only said: clients then ask for nothing smaller. Smaller ones are made: what does
// not fill a block of the medium is read, changed and written back, under the lock of the region,
// which every write takes then.

import LinuxSystem
import Synchronization
import WireFormat

/// A medium with blocks of another size; see the head of this file.
public final class BlockSizeBackend: BlockBackend {
  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  private let base: any BlockBackend
  /// Of the medium.
  private let block: UInt64
  private let isSmaller: Bool
  private let locks = StripedLocks()
  private static let regionByteCount: UInt64 = 4 << 20

  /// `minimum`: what clients' offsets and lengths are multiples of; a power of two, 1 to 65536.
  /// The medium is cut to whole ones.
  public init(over base: any BlockBackend, minimum: UInt64) throws(StackError) {
    guard minimum >= 1, minimum <= 65536, minimum & (minimum - 1) == 0 else {
      throw .blockSize(minimum)
    }
    self.base = base
    block = UInt64(base.blockSizes.minimum)
    isSmaller = minimum < block
    byteCount = base.byteCount / minimum * minimum
    blockSizes = BackendBlockSizes(
      minimum: UInt32(minimum), preferred: max(base.blockSizes.preferred, UInt32(minimum)))
  }

  public var capabilities: BackendCapabilities { base.capabilities }
  public var summary: ByteString { base.summary }

  private func isWhole(_ offset: UInt64, _ count: Int) -> Bool {
    !isSmaller || (offset | UInt64(count)) & (block - 1) == 0
  }

  /// The range widened to blocks of the medium.
  private func widened(_ range: Range<UInt64>) -> Range<UInt64> {
    (range.lowerBound / block * block)..<((range.upperBound + block - 1) / block * block)
  }

  /// Calls `body` for the pieces of the range in one region each, under its lock.
  private func withRegions(
    of range: Range<UInt64>, _ body: (Range<UInt64>) throws(BackendError) -> Void
  ) throws(BackendError) {
    var at = range.lowerBound
    while at < range.upperBound {
      let region = at / Self.regionByteCount
      let end = min((region + 1) * Self.regionByteCount, range.upperBound)
      let piece = at..<end
      try locks.withLock(of: region) { () throws(BackendError) in try body(piece) }
      at = end
    }
  }

  private func withMemory(
    _ count: UInt64, _ body: (UnsafeMutableRawBufferPointer) throws(BackendError) -> Void
  ) throws(BackendError) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(count), alignment: 65536)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and not kept by `body`.
    try unsafe body(memory)
  }

  /// Changes blocks that a piece covers in part or whole: read, changed, written.
  private func modify(
    _ piece: Range<UInt64>, isDurable: Bool, _ change: (UnsafeMutableRawBufferPointer) -> Void
  ) throws(BackendError) {
    let wide = widened(piece)
    try unsafe withMemory(wide.upperBound - wide.lowerBound) { memory throws(BackendError) in
      try unsafe base.read(into: memory, at: wide.lowerBound)
      let start = Int(piece.lowerBound - wide.lowerBound)
      // SAFETY: the piece lies inside the widened one.
      unsafe change(.init(rebasing: memory[start..<(start + piece.count)]))
      try unsafe base.write(
        UnsafeRawBufferPointer(memory), at: wide.lowerBound, isDurable: isDurable)
    }
  }
}

extension BlockSizeBackend {
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    if isWhole(offset, buffer.count) || buffer.count == 0 {
      return try unsafe base.read(into: buffer, at: offset)
    }
    let wide = widened(offset..<(offset + UInt64(buffer.count)))
    try unsafe withMemory(wide.upperBound - wide.lowerBound) { memory throws(BackendError) in
      try unsafe base.read(into: memory, at: wide.lowerBound)
      let start = Int(offset - wide.lowerBound)
      // SAFETY: the buffer's range lies inside the widened one.
      unsafe buffer.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: memory[start..<(start + buffer.count)]))
    }
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    guard isWhole(offset, buffer.count) else { return false }
    return try unsafe base.readWithoutWaiting(into: buffer, at: offset)
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    guard isSmaller, capabilities.contains(.write) else {
      return try unsafe base.write(bytes, at: offset, isDurable: isDurable)
    }
    try withRegions(of: offset..<(offset + UInt64(bytes.count))) { piece throws(BackendError) in
      let start = Int(piece.lowerBound - offset)
      // SAFETY: the pieces of a range are as long as the range together.
      let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<(start + piece.count)])
      if isWhole(piece.lowerBound, piece.count) {
        try unsafe base.write(part, at: piece.lowerBound, isDurable: isDurable)
      } else {
        // SAFETY: as long as the piece.
        try unsafe modify(piece, isDurable: isDurable) { unsafe $0.copyMemory(from: part) }
      }
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    guard isSmaller, capabilities.contains(.write) else {
      return try base.writeZeroes(
        range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
    }
    try withRegions(of: range) { piece throws(BackendError) in
      let end = piece.upperBound / block * block
      let start = min(widened(piece).lowerBound + block, piece.upperBound)
      let first = piece.lowerBound % block == 0 ? piece.lowerBound : start
      let whole = first < end ? first..<end : piece.upperBound..<piece.upperBound
      if !whole.isEmpty {
        try base.writeZeroes(
          whole, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
      }
      for edge in [piece.lowerBound..<whole.lowerBound, whole.upperBound..<piece.upperBound]
      where !edge.isEmpty {
        // SAFETY: all of the edge.
        try unsafe modify(edge, isDurable: isDurable) {
          unsafe $0.initializeMemory(as: UInt8.self, repeating: 0)
        }
      }
    }
  }

  /// Whole blocks of the medium only.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    let end = range.upperBound / block * block
    let start = (range.lowerBound + block - 1) / block * block
    guard isSmaller else { return try base.trim(range, isDurable: isDurable) }
    if start < end {
      try withRegions(of: start..<end) { piece throws(BackendError) in
        try base.trim(piece, isDurable: isDurable)
      }
    } else if isDurable {
      try base.flush()
    }
  }

  public func flush() throws(BackendError) { try base.flush() }

  /// Asked in blocks of the medium, and cut to what was asked for.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    guard isSmaller else { return try base.extents(in: range, maximum: maximum) }
    let wide = widened(range)
    let found = try base.extents(in: wide, maximum: maximum)
    var list = ExtentList(maximum: maximum)
    var at = wide.lowerBound
    for extent in found {
      let start = max(at, range.lowerBound)
      at += extent.byteCount
      let end = min(at, range.upperBound)
      guard start < end else { continue }
      guard
        list.append(end - start, isHole: extent.isHole, readsAsZeroes: extent.readsAsZeroes)
      else { break }
    }
    return list.extents
  }

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    base.fileRange(of: range)
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard range.upperBound <= byteCount else { return }
    base.prefetch(isSmaller ? widened(range) : range)
  }
}

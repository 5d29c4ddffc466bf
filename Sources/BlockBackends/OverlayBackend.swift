// SPDX-License-Identifier: Apache-2.0
// The copy-on-write overlay: reads fall through to the base until a block has been written.
//
// Blocks are 64 KiB. One bit a block says where its bytes are: 0 base, 1 layer. The layer is a
// sparse file, so it takes disk space for what was written, and memory for the pages of the bits
// that have been touched (of 2 MiB for an image of 1 TiB). Without a name it is gone with the
// object, and with the process, however that ends; with one it is found again, see `LayerFile`.
//
//   1  A bit is set only after the block is whole in the layer, and never cleared.
//   2  The base is never written.
//   3  A block whose bit is 0 is a hole in the layer, or the rest of a copy that failed; it is
//      written anew before its bit is set.
//   4  Whoever writes to a block whose bit is 0 holds the lock of its region, so that a copy from
//      the base never comes after a write. Reads, and writes to blocks of the layer, hold none.
//
// Flush and FUA promise nothing of a layer without a name, for nothing of it outlives the session.

import CLinux
import LinuxSystem
import Synchronization
import WireFormat

/// An image that is only read, and a layer that takes the writes; see the head of this file.
public final class OverlayBackend: BlockBackend {
  /// What the layer takes over at once; a write of one byte copies so many from the base.
  public static let blockByteCount: UInt64 = 65536
  /// The blocks of one word of the map.
  private static let regionByteCount = blockByteCount * 64

  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  private let base: any BlockBackend
  private let file: LayerFile
  private let isSync: Bool
  private let inLayer: AtomicBits
  /// Pages of the map that are not durable.
  private let unrecorded: AtomicBits
  private let locks = StripedLocks()
  /// Whoever makes the layer durable; a second one waits, and begins when the first has ended.
  private let flushing = Mutex(())

  /// With a layer that ends with the object. `directory` holds it; its file system needs room for
  /// what the session writes.
  public convenience init(
    over base: any BlockBackend, layerIn directory: ByteString
  ) throws(LayerError) {
    do {
      _ = try LayerFile.wordCount(base.byteCount)
      try self.init(
        over: base,
        file: try LayerFile.unlinked(in: directory, imageByteCount: base.byteCount),
        isSync: false)
    } catch { throw .cannotKeep(directory: directory, error) }
  }

  /// With a layer that has a name and outlives the process. `mustExist`: what was written into it
  /// is counted on. `isSync`: every write is durable before it is answered.
  public convenience init(
    over base: any BlockBackend, layerAt path: ByteString, _ identity: LayerIdentity,
    mustExist: Bool, isSync: Bool = false
  ) throws(LayerError) {
    try self.init(
      over: base, layerAt: path, identity, mustExist: mustExist, isSync: isSync,
      boot: LayerFile.currentBoot)
  }

  /// `boot`: what tells this boot of the machine from others.
  convenience init(
    over base: any BlockBackend, layerAt path: ByteString, _ identity: LayerIdentity,
    mustExist: Bool, isSync: Bool = false, boot: [UInt8]
  ) throws(LayerError) {
    precondition(identity.imageByteCount == base.byteCount)
    let directory = directory(of: path)
    do {
      let opened = try LayerFile.open(path, identity, boot: boot)
      try self.init(over: base, opened, isSync: isSync, directory: directory)
      return
    } catch .gone where !mustExist {}
    do {
      _ = try LayerFile.wordCount(base.byteCount)
      try self.init(
        over: base, file: try LayerFile.create(path, identity, boot: boot), isSync: isSync)
    } catch { throw .cannotKeep(directory: directory, error) }
  }

  /// With a layer on any medium that is as long as `LayerFile.byteCount` says; for tests.
  convenience init(
    over base: any BlockBackend, layerOn storage: any BlockBackend, _ identity: LayerIdentity,
    isNew: Bool, boot: [UInt8]
  ) throws(LayerError) {
    do {
      if isNew {
        try self.init(
          over: base, file: try LayerFile.format(storage, identity, boot: boot), isSync: false)
        return
      }
    } catch { throw .cannotKeep(directory: "", error) }
    let opened = try LayerFile.open(storage, shownAs: storage.summary, identity, boot: boot)
    try self.init(over: base, opened, isSync: false, directory: "")
  }

  private convenience init(
    over base: any BlockBackend, _ opened: LayerFile.Opened, isSync: Bool, directory: ByteString
  ) throws(LayerError) {
    do {
      try self.init(over: base, file: opened.layer, isSync: isSync)
    } catch { throw .cannotKeep(directory: directory, error) }
    for (index, word) in opened.map.enumerated() where word != 0 {
      inLayer.formUnion(word, inWord: index)
    }
    for page in opened.unrecorded { unrecorded.insert(UInt64(page)) }
  }

  private init(
    over base: any BlockBackend, file: LayerFile, isSync: Bool
  ) throws(SystemError) {
    self.base = base
    byteCount = base.byteCount
    let blocks = LayerFile.blockCount(base.byteCount)
    inLayer = try AtomicBits(count: blocks)
    unrecorded = try AtomicBits(count: blocks / 64 / UInt64(LayerFile.wordsInPage) + 1)
    // A block is copied whole, so any base block up to 64 KiB lies inside one.
    blockSizes = BackendBlockSizes(minimum: 1, preferred: max(4096, base.blockSizes.preferred))
    self.file = file
    self.isSync = isSync
    var capabilities: BackendCapabilities = [.write, .trim, .fastZeroes]
    if base.capabilities.contains(.rotational) { capabilities.insert(.rotational) }
    self.capabilities = capabilities
  }

  public var summary: ByteString { "overlay(" + base.summary + ")" }

  /// How many bytes of the image the layer has taken over.
  public var layerByteCount: UInt64 { inLayer.population * Self.blockByteCount }

  /// Removes the name of a layer that has one. What is open stays usable until it is closed.
  public static func discardLayer(at path: ByteString) throws(SystemError) {
    do { try removeFile(path) } catch .noSuchFile {}
  }

  /// Whether a file is a layer of this token and export, whatever image it was made for.
  public static func isLayer(_ path: ByteString, of identity: LayerIdentity) -> Bool {
    LayerFile.belongs(path, to: identity)
  }
}

extension OverlayBackend {
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    let end = offset + UInt64(buffer.count)
    var at = offset
    // Neighbouring blocks from the same place are read in one call.
    while at < end {
      let piece = piece(of: at..<end)
      // SAFETY: pieces lie inside the range, which is as long as the buffer.
      let part = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(at - offset)..<Int(piece.end - offset)])
      if piece.isInLayer {
        try unsafe file.storage.read(into: part, at: file.dataOffset + at)
      } else {
        try unsafe readBase(into: part, at: at)
      }
      at = piece.end
    }
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    let end = offset + UInt64(buffer.count)
    var at = offset
    while at < end {
      let piece = piece(of: at..<end)
      // SAFETY: as in `read`.
      let part = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(at - offset)..<Int(piece.end - offset)])
      if piece.isInLayer {
        guard
          try unsafe file.storage.readWithoutWaiting(into: part, at: file.dataOffset + at)
        else { return false }
      } else {
        let mask = UInt64(base.blockSizes.minimum) - 1
        guard (at | piece.end) & mask == 0,
          try unsafe base.readWithoutWaiting(into: part, at: at)
        else { return false }
      }
      at = piece.end
    }
    return true
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    try change(offset..<(offset + UInt64(bytes.count))) { piece throws(BackendError) in
      let start = Int(piece.lowerBound - offset)
      // SAFETY: the pieces of a range are as long as the range together.
      let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<(start + piece.count)])
      try unsafe file.storage.write(
        part, at: file.dataOffset + piece.lowerBound, isDurable: false)
    }
    if isDurable || isSync { try flush() }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    try zero(range, mayPunch: mayPunch, mustBeFast: mustBeFast)
    if isDurable || isSync { try flush() }
  }

  /// What has been trimmed reads as zeroes and takes no space.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range)
    // Blocks at the ends that the range covers in part would have to be copied first: left alone.
    let first = (range.lowerBound + Self.blockByteCount - 1) / Self.blockByteCount
    let end =
      range.upperBound == byteCount
      ? (byteCount + Self.blockByteCount - 1) / Self.blockByteCount
      : range.upperBound / Self.blockByteCount
    guard first < end else { return }
    try zero(
      (first * Self.blockByteCount)..<min(end * Self.blockByteCount, byteCount), mayPunch: true,
      mustBeFast: false)
    if isDurable || isSync { try flush() }
  }

  private func zero(
    _ range: Range<UInt64>, mayPunch: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try change(range) { piece throws(BackendError) in
      try file.storage.writeZeroes(
        (file.dataOffset + piece.lowerBound)..<(file.dataOffset + piece.upperBound),
        mayPunch: mayPunch, isDurable: false, mustBeFast: mustBeFast)
    }
  }

  /// Does nothing for a layer without a name, which nobody could find again.
  public func flush() throws(BackendError) {
    guard file.isKept else { return }
    try flushing.withLock { _ throws(BackendError) in
      // The blocks of the bits that are copied here have been written: they are durable after
      // what follows. A bit that is set later marks its page later, too.
      var pages: [(page: Int, words: [UInt64])] = []
      for index in 0..<unrecorded.wordCount {
        var marks = unrecorded.takeWord(index)
        while marks != 0 {
          let page = index * 64 + marks.trailingZeroBitCount
          marks &= marks - 1
          let start = page * LayerFile.wordsInPage
          let end = min(start + LayerFile.wordsInPage, Int(byteCount / Self.regionByteCount) + 1)
          var words: [UInt64] = []
          words.reserveCapacity(end - start)
          for word in start..<end { words.append(inLayer.word(word)) }
          pages.append((page, words))
        }
      }
      do throws(SystemError) {
        try file.makeDurable(pages)
      } catch {
        for (page, _) in pages { unrecorded.insert(UInt64(page)) }
        throw BackendError.system(error)
      }
    }
  }
}

// What is known without reading.
extension OverlayBackend {
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    var at = range.lowerBound
    while at < range.upperBound {
      let piece = piece(of: at..<range.upperBound)
      let found: [BackendExtent]
      if piece.isInLayer {
        // What was trimmed or zeroed is a hole of the layer.
        found = try file.storage.extents(
          in: (file.dataOffset + at)..<(file.dataOffset + piece.end), maximum: maximum)
      } else {
        let minimum = UInt64(base.blockSizes.minimum)
        let start = at / minimum * minimum
        let end = min((piece.end + minimum - 1) / minimum * minimum, base.byteCount)
        var clipped = try base.extents(in: start..<end, maximum: maximum)
        if let first = clipped.first, first.byteCount > at - start {
          clipped[0].byteCount -= at - start
        }
        found = clipped
      }
      guard !found.isEmpty else { break }
      for extent in found where at < piece.end {
        let count = min(extent.byteCount, piece.end - at)
        guard
          list.append(count, isHole: extent.isHole, readsAsZeroes: extent.readsAsZeroes)
        else { return list.extents }
        at += count
      }
    }
    return list.extents
  }

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    guard !range.isEmpty, range.upperBound <= byteCount else { return nil }
    let piece = piece(of: range)
    guard piece.end == range.upperBound else { return nil }
    return piece.isInLayer
      ? file.storage.fileRange(
        of: (file.dataOffset + range.lowerBound)..<(file.dataOffset + range.upperBound))
      : base.fileRange(of: range)
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard range.upperBound <= byteCount else { return }
    var at = range.lowerBound
    while at < range.upperBound {
      let piece = piece(of: at..<range.upperBound)
      if piece.isInLayer {
        file.storage.prefetch((file.dataOffset + at)..<(file.dataOffset + piece.end))
      } else {
        base.prefetch(at..<piece.end)
      }
      at = piece.end
    }
  }
}

extension OverlayBackend {
  /// What of the range, from its start on, lies in one place. The range is not empty.
  @inline(__always)
  private func piece(of range: Range<UInt64>) -> (end: UInt64, isInLayer: Bool) {
    let block = range.lowerBound / Self.blockByteCount
    let last = (range.upperBound - 1) / Self.blockByteCount
    let isInLayer = inLayer.contains(block)
    if last == block { return (range.upperBound, isInLayer) }
    // What changes in between is the write of somebody else at the same time; it only makes pieces
    // smaller, for bits are never cleared.
    let count = inLayer.runLength(from: block, through: last)
    return (min((block + count) * Self.blockByteCount, range.upperBound), isInLayer)
  }

  /// Makes `apply` write the range to the layer, piece by piece, after the blocks that the range
  /// covers only in part have been copied there, and hands the blocks over to the layer.
  private func change(
    _ range: Range<UInt64>, _ apply: (Range<UInt64>) throws(BackendError) -> Void
  ) throws(BackendError) {
    var at = range.lowerBound
    while at < range.upperBound {
      let region = at / Self.regionByteCount
      let piece = at..<min((region + 1) * Self.regionByteCount, range.upperBound)
      let first = piece.lowerBound / Self.blockByteCount
      let last = (piece.upperBound - 1) / Self.blockByteCount
      if inLayer.all(first...last, are: true) {
        try apply(piece)
      } else {
        try locks.withLock(of: region) { () throws(BackendError) in
          try copy(first, besides: piece)
          if last != first { try copy(last, besides: piece) }
          try apply(piece)
          try record(first...last)
        }
      }
      at = piece.upperBound
    }
  }

  /// Sets the bits of blocks in one word of the map, in the file first.
  private func record(_ blocks: ClosedRange<UInt64>) throws(BackendError) {
    guard !inLayer.all(blocks, are: true) else { return }
    let index = Int(blocks.lowerBound / 64)
    var word = inLayer.word(index)
    for block in blocks { word |= 1 << (block % 64) }
    try asBackend { () throws(SystemError) in try file.record(word, at: index) }
    inLayer.formUnion(word, inWord: index)
    if file.isKept { unrecorded.insert(UInt64(index / LayerFile.wordsInPage)) }
  }

  /// Brings a block into the layer that the piece does not cover whole, unless it is there.
  private func copy(_ block: UInt64, besides piece: Range<UInt64>) throws(BackendError) {
    let start = block * Self.blockByteCount
    let end = min(start + Self.blockByteCount, byteCount)
    guard piece.lowerBound > start || piece.upperBound < end, !inLayer.contains(block) else {
      return
    }
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(Self.blockByteCount), alignment: 65536)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    // SAFETY: at most a block.
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<Int(end - start)])
    try unsafe readBase(into: part, at: start)
    try unsafe file.storage.write(
      UnsafeRawBufferPointer(part), at: file.dataOffset + start, isDurable: false)
  }

  /// From the base, whose own blocks may be larger than one byte.
  private func readBase(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    let minimum = UInt64(base.blockSizes.minimum)
    let end = offset + UInt64(buffer.count)
    if (offset | end) & (minimum - 1) == 0 {
      return try unsafe base.read(into: buffer, at: offset)
    }
    let start = offset / minimum * minimum
    let wideEnd = min((end + minimum - 1) / minimum * minimum, base.byteCount)
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(wideEnd - start), alignment: 65536)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    try unsafe base.read(into: memory, at: start)
    let skipped = Int(offset - start)
    // SAFETY: the wide range contains the buffer's.
    unsafe buffer.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: memory[skipped..<(skipped + buffer.count)]))
  }
}

// SPDX-License-Identifier: Apache-2.0
// The copy-on-write overlay: reads fall through to the base until a block has been written.
//
// Blocks are 64 KiB. One bit a block says where its bytes are: 0 base, 1 layer. The layer is a
// sparse file, so it takes disk space for what was written and memory for the bits alone (2 MiB for
// an image of 1 TiB). Without a name it is gone with the object, and with the process, however that
// ends; with one it is found again, see `LayerFile`.
//
//   1  A bit is set only after the block is whole in the layer.
//   2  The base is never written.
//   3  A block whose bit is 0 is a hole in the layer, or the rest of a copy that failed; it is
//      written anew before its bit is set.
//
// Flush and FUA promise nothing of a layer without a name, for nothing of it outlives the session.

import CLinux
import LinuxSystem
import Synchronization
import WireFormat

public final class OverlayBackend: BlockBackend {
  public static let blockByteCount: UInt64 = 65536

  private struct Layer {
    /// One bit a block, least significant first.
    var bits: LayerFile.Map
    /// Pages of the bits that are not durable.
    var unrecorded: Set<Int> = []

    func contains(_ block: UInt64) -> Bool {
      bits[Int(block / 64)] >> (block % 64) & 1 == 1
    }
  }

  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  private let base: any BlockBackend
  private let file: LayerFile
  private let isSync: Bool
  private let canPunch = Atomic(true)
  private let layer: Mutex<Layer>
  /// Whoever makes the layer durable; a second one waits, and begins when the first has ended.
  private let flushing = Mutex(())

  /// With a layer that ends with the object. `directory` holds it; its file system needs room for
  /// what the session writes.
  public convenience init(
    over base: any BlockBackend, layerIn directory: ByteString
  ) throws(LayerError) {
    do {
      let words = try LayerFile.wordCount(base.byteCount)
      self.init(
        over: base,
        file: try LayerFile.unlinked(in: directory, imageByteCount: base.byteCount),
        layer: Layer(bits: [UInt64](repeating: 0, count: words)), isSync: false)
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
    do {
      let (file, map, unrecorded) = try LayerFile.open(path, identity, boot: boot)
      self.init(
        over: base, file: file, layer: Layer(bits: map, unrecorded: unrecorded), isSync: isSync)
      return
    } catch .gone where !mustExist {}
    do {
      let words = try LayerFile.wordCount(base.byteCount)
      self.init(
        over: base, file: try LayerFile.create(path, identity, boot: boot),
        layer: Layer(bits: [UInt64](repeating: 0, count: words)), isSync: isSync)
    } catch { throw .cannotKeep(directory: directory(of: path), error) }
  }

  private init(over base: any BlockBackend, file: LayerFile, layer: Layer, isSync: Bool) {
    self.base = base
    byteCount = base.byteCount
    // A block is copied whole, so any base block up to 64 KiB lies inside one.
    blockSizes = BackendBlockSizes(minimum: 1, preferred: max(4096, base.blockSizes.preferred))
    self.file = file
    self.isSync = isSync
    self.layer = Mutex(layer)
    var capabilities: BackendCapabilities = [.write, .trim]
    if base.capabilities.contains(.rotational) { capabilities.insert(.rotational) }
    self.capabilities = capabilities
  }

  /// How many bytes of the image the layer has taken over.
  public var layerByteCount: UInt64 {
    layer.withLock { UInt64($0.bits.reduce(0) { $0 + $1.nonzeroBitCount }) }
      * Self.blockByteCount
  }

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
    let range = offset..<(offset + UInt64(buffer.count))
    // Neighbouring blocks from the same place are read in one call.
    for piece in pieces(of: range) {
      let start = Int(piece.range.lowerBound - offset)
      let end = Int(piece.range.upperBound - offset)
      // SAFETY: pieces lie inside the range, which is as long as the buffer.
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<end])
      if piece.isInLayer {
        try unsafe readLayer(into: part, at: piece.range.lowerBound)
      } else {
        try unsafe readBase(into: part, at: piece.range.lowerBound)
      }
    }
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    let range = offset..<(offset + UInt64(bytes.count))
    if range.isEmpty { return }
    try change(range) { () throws(BackendError) in
      try unsafe writeLayer(bytes, at: offset)  // SAFETY: as long as the range.
    }
    if isDurable || isSync { try flush() }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    if range.isEmpty { return }
    if mustBeFast { throw .notFast }
    try change(range) { () throws(BackendError) in try zeroLayer(range) }
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
    let whole =
      (first * Self.blockByteCount)..<min(end * Self.blockByteCount, byteCount)
    try change(whole) { () throws(BackendError) in try zeroLayer(whole) }
    if isDurable || isSync { try flush() }
  }

  public func flush() throws(BackendError) {
    guard file.path != nil else { return }
    try flushing.withLock { _ throws(BackendError) in
      // The blocks of these bits have been written: they are durable after what follows.
      let pages = layer.withLock { layer in
        let pages = layer.unrecorded.map { page in
          let start = page * LayerFile.wordsInPage
          let end = min(start + LayerFile.wordsInPage, layer.bits.count)
          return (page, Array(layer.bits[start..<end]))
        }
        layer.unrecorded = []
        return pages
      }
      do throws(SystemError) {
        try file.makeDurable(pages)
      } catch {
        layer.withLock { layer in
          for (page, _) in pages { layer.unrecorded.insert(page) }
        }
        throw BackendError.system(error)
      }
    }
  }
}

extension OverlayBackend {
  private struct Piece {
    var range: Range<UInt64>
    var isInLayer: Bool
  }

  /// The range cut where the place of its bytes changes.
  private func pieces(of range: Range<UInt64>) -> [Piece] {
    layer.withLock { layer in
      var pieces: [Piece] = []
      var at = range.lowerBound
      while at < range.upperBound {
        let block = at / Self.blockByteCount
        let end = min((block + 1) * Self.blockByteCount, range.upperBound)
        let isInLayer = layer.contains(block)
        if let last = pieces.last, last.isInLayer == isInLayer {
          pieces[pieces.count - 1].range = last.range.lowerBound..<end
        } else {
          pieces.append(Piece(range: at..<end, isInLayer: isInLayer))
        }
        at = end
      }
      return pieces
    }
  }

  /// Makes `apply` write the range to the layer, after the blocks that the range covers only in
  /// part have been copied there, and hands the blocks over to the layer. Held under the lock:
  /// two writers to one block must not both copy it.
  private func change(
    _ range: Range<UInt64>, _ apply: () throws(BackendError) -> Void
  ) throws(BackendError) {
    let first = range.lowerBound / Self.blockByteCount
    let last = (range.upperBound - 1) / Self.blockByteCount
    try layer.withLock { layer throws(BackendError) in
      for block in Set([first, last]) where !layer.contains(block) {
        let start = block * Self.blockByteCount
        let end = min(start + Self.blockByteCount, byteCount)
        guard range.lowerBound > start || range.upperBound < end else { continue }
        try copy(start..<end)
      }
      try apply()
      try record(first...last, in: &layer)
    }
  }

  /// Sets the bits of the blocks, in the file first.
  private func record(
    _ blocks: ClosedRange<UInt64>, in layer: inout Layer
  ) throws(BackendError) {
    guard !blocks.allSatisfy({ layer.contains($0) }) else { return }
    let words = Int(blocks.lowerBound / 64)...Int(blocks.upperBound / 64)
    var changed = Array(layer.bits[words])
    for block in blocks { changed[Int(block / 64) - words.lowerBound] |= 1 << (block % 64) }
    try asBackend { () throws(SystemError) in try file.record(changed, from: words.lowerBound) }
    layer.bits.replaceSubrange(words, with: changed)
    if file.path != nil {
      let first = words.lowerBound / LayerFile.wordsInPage
      let last = words.upperBound / LayerFile.wordsInPage
      for page in first...last { layer.unrecorded.insert(page) }
    }
  }

  private func copy(_ range: Range<UInt64>) throws(BackendError) {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(Self.blockByteCount), alignment: 4096)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<range.count])
    try unsafe readBase(into: part, at: range.lowerBound)
    try unsafe writeLayer(UnsafeRawBufferPointer(part), at: range.lowerBound)
  }

  /// From the base, whose own blocks may be larger than one byte.
  private func readBase(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    let minimum = UInt64(base.blockSizes.minimum)
    let end = offset + UInt64(buffer.count)
    if offset % minimum == 0, end % minimum == 0 {
      return try unsafe base.read(into: buffer, at: offset)
    }
    let start = offset - offset % minimum
    let wideEnd = min((end + minimum - 1) / minimum * minimum, base.byteCount)
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(wideEnd - start), alignment: 4096)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    try unsafe base.read(into: memory, at: start)
    let skipped = Int(offset - start)
    // SAFETY: the wide range contains the buffer's.
    unsafe buffer.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: memory[skipped..<(skipped + buffer.count)]))
  }

  private func readLayer(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    var done = 0
    while done < buffer.count {
      let count = try asBackend { () throws(SystemError) in
        try retryingInterrupts {
          // SAFETY: `done` is below the buffer's count.
          unsafe clinux_pread(
            file.file.rawValue, buffer.baseAddress! + done, buffer.count - done,
            Int64(file.dataOffset + offset) + Int64(done))
        }
      }
      guard count > 0 else { throw .truncated }
      done += count
    }
  }

  private func writeLayer(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    var done = 0
    while done < bytes.count {
      done += try asBackend { () throws(SystemError) in
        try retryingInterrupts {
          // SAFETY: `done` is below the count.
          unsafe clinux_pwrite(
            file.file.rawValue, bytes.baseAddress! + done, bytes.count - done,
            Int64(file.dataOffset + offset) + Int64(done))
        }
      }
    }
  }

  private func zeroLayer(_ range: Range<UInt64>) throws(BackendError) {
    if canPunch.load(ordering: .relaxed) {
      do {
        // FALLOC_FL_PUNCH_HOLE with KEEP_SIZE. Source: linux/falloc.h.
        _ = try retryingInterrupts {
          clinux_fallocate(
            file.file.rawValue, 3, Int64(file.dataOffset + range.lowerBound),
            Int64(range.upperBound - range.lowerBound))
        }
        return
      } catch {
        guard error.errno == 95 || error.errno == 38 else { throw .system(error) }
        canPunch.store(false, ordering: .relaxed)  // EOPNOTSUPP, ENOSYS: never.
      }
    }
    let zeroes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(Self.blockByteCount), alignment: 4096)
    defer { unsafe zeroes.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    unsafe zeroes.initializeMemory(as: UInt8.self, repeating: 0)  // SAFETY: all of it.
    var offset = range.lowerBound
    while offset < range.upperBound {
      let count = Int(min(Self.blockByteCount, range.upperBound - offset))
      // SAFETY: `count` is at most the buffer's.
      try unsafe writeLayer(UnsafeRawBufferPointer(rebasing: zeroes[..<count]), at: offset)
      offset += UInt64(count)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The file under an overlay: unlinked and gone with the process, or one with a name that the next
// process finds again.
//
// A named layer is one file, all numbers little-endian:
//
//   0      header, 512 bytes with a checksum: whose layer of what image this is, and the boot of
//          the server in which the second map was written
//   4096   map of the blocks whose bytes are durable
//   ...    map of the blocks whose bytes have been written
//   ...    the blocks, at 64 KiB; a hole where nothing has been written
//
// The layer sees the file as a `BlockBackend`, so that a test can be the disk that loses power.
//
// The process may be killed, and the machine may lose power. What pwrite(2) has taken survives the
// first, what fdatasync(2) has taken the second, in no order between the two. So there are two maps:
//
//   1  A bit of the second map is written after its block and before the write is answered. It
//      counts only in the boot that the header names: then nothing of the page cache was lost.
//   2  A bit of the first map is written after an fdatasync that came after its block was written.
//   3  Bits are set and never cleared, so a map that was written in part is right in every part.

import CLinux
import LinuxSystem
import WireFormat

/// Whose layer of what image this is.
public struct LayerIdentity: Equatable, Sendable {
  /// The first eight bytes of the attachment's token; 0 for a layer that all clients share.
  public var tokenHigh: UInt64
  /// The last eight.
  public var tokenLow: UInt64
  /// The export's name; of a layer that all clients share, its path.
  public var export: ByteString
  /// Of the image below: over one of another size the layer is refused.
  public var imageByteCount: UInt64
  /// When the image was last written to: a layer over other bytes would be half of each. 0 where
  /// nothing tells.
  public var imageModifiedSeconds: UInt64

  public init(
    tokenHigh: UInt64, tokenLow: UInt64, export: ByteString, imageByteCount: UInt64,
    imageModifiedSeconds: UInt64
  ) {
    self.tokenHigh = tokenHigh
    self.tokenLow = tokenLow
    self.export = export
    self.imageByteCount = imageByteCount
    self.imageModifiedSeconds = imageModifiedSeconds
  }

  /// The first 48 bytes of what the header says of it.
  fileprivate var encoded: [UInt8] {
    var bytes: [UInt8] = []
    for word in [
      tokenHigh, tokenLow, fnv1a(export.bytes), UInt64(export.count), imageByteCount,
      imageModifiedSeconds,
    ] { bytes.append(littleEndian: word) }
    return bytes
  }
}

final class LayerFile: Sendable {
  /// The blocks of an overlay whose bytes are in its layer, one bit each.
  typealias Map = [UInt64]

  /// 512 MiB of bits, 512 TiB of image.
  private static let mapByteCountMaximum: UInt64 = 512 << 20
  private static let pageByteCount: UInt64 = 4096
  static let wordsInPage = 512
  private static let magic = Array("rootlinkd layer\n".utf8)
  private static let version: UInt64 = 1
  /// What a disk writes whole. The checksum is its end.
  private static let headerByteCount = 512

  /// The whole file.
  let storage: any BlockBackend
  /// Where block 0 is.
  let dataOffset: UInt64
  /// What is written is found again; else the layer ends with the process, and has no maps.
  let isKept: Bool
  private let mapByteCount: UInt64
  private let wordCount: Int

  private init(
    _ storage: any BlockBackend, isKept: Bool, mapByteCount: UInt64, dataOffset: UInt64,
    wordCount: Int
  ) {
    self.storage = storage
    self.isKept = isKept
    self.mapByteCount = mapByteCount
    self.dataOffset = dataOffset
    self.wordCount = wordCount
  }

  // Closing does not end a lock while a process that was just forked has the file open, too.
  deinit {
    if isKept, let file = storage as? FileBackend { _ = clinux_unlock_file(file.file.rawValue) }
  }

  static func wordCount(_ imageByteCount: UInt64) throws(SystemError) -> Int {
    let words = imageByteCount / OverlayBackend.blockByteCount / 64 + 1
    guard words <= mapByteCountMaximum / 8 else { throw .fileTooLarge }
    return Int(words)
  }

  static func blockCount(_ imageByteCount: UInt64) -> UInt64 {
    imageByteCount / OverlayBackend.blockByteCount + 1
  }

  /// A layer without a name.
  static func unlinked(
    in directory: ByteString, imageByteCount: UInt64
  ) throws(SystemError) -> LayerFile {
    // SAFETY: a terminated copy that outlives the call.
    let number = try unsafe withCString(directory) { unsafe clinux_open_unlinked($0) }
    let file = FileDescriptor(owning: number)
    guard let size = Int64(exactly: imageByteCount) else { throw .fileTooLarge }
    _ = try checked(clinux_ftruncate(file.rawValue, size))
    return LayerFile(
      FileBackend(owning: file, byteCount: imageByteCount, summary: directory), isKept: false,
      mapByteCount: 0, dataOffset: 0, wordCount: 0)
  }

  private struct Layout {
    var words: Int
    var mapByteCount: UInt64
    var dataOffset: UInt64
    var fileByteCount: UInt64

    init(_ imageByteCount: UInt64) throws(SystemError) {
      words = try LayerFile.wordCount(imageByteCount)
      let page = LayerFile.pageByteCount
      mapByteCount = (UInt64(words) * 8 + page - 1) / page * page
      let block = OverlayBackend.blockByteCount
      dataOffset = (page + 2 * mapByteCount + block - 1) / block * block
      let (sum, overflow) = dataOffset.addingReportingOverflow(imageByteCount)
      guard !overflow, sum <= UInt64(Int64.max) else { throw .fileTooLarge }
      fileByteCount = sum
    }
  }

  /// How long a layer with a name is.
  static func byteCount(_ imageByteCount: UInt64) throws(SystemError) -> UInt64 {
    try Layout(imageByteCount).fileByteCount
  }

  private init(_ storage: any BlockBackend, _ layout: Layout) {
    self.storage = storage
    isKept = true
    mapByteCount = layout.mapByteCount
    dataOffset = layout.dataOffset
    wordCount = layout.words
  }

  /// A new layer with a name. It is there whole or not at all: made beside its place and renamed.
  static func create(
    _ path: ByteString, _ identity: LayerIdentity, boot: [UInt8]
  ) throws(SystemError) -> LayerFile {
    let layout = try Layout(identity.imageByteCount)
    let temporary = path + ".new"
    do { try removeFile(temporary) } catch .noSuchFile {}  // Left by a process that was killed.
    let file = try FileDescriptor.open(
      temporary, [.readWrite, .create, .exclusive], mode: 0o600)
    let number = file.rawValue
    _ = try checked(clinux_lock_file(number))
    let storage = FileBackend(
      owning: file, byteCount: layout.fileByteCount, summary: path)
    do {
      _ = try checked(clinux_ftruncate(number, Int64(layout.fileByteCount)))
      let layer = try format(storage, identity, boot: boot)
      _ = try checked(clinux_fsync(number))
      // SAFETY: terminated copies that outlive the call.
      _ = try unsafe withCStrings(temporary, path) { unsafe clinux_rename($0, $1) }
      try synchronizeDirectory(of: path)
      return layer
    } catch {
      try? removeFile(temporary)
      throw error
    }
  }

  /// A new layer on zeroes that are as long as `byteCount(_:)` says.
  static func format(
    _ storage: any BlockBackend, _ identity: LayerIdentity, boot: [UInt8]
  ) throws(SystemError) -> LayerFile {
    let layer = LayerFile(storage, try Layout(identity.imageByteCount))
    try layer.write(header(identity, boot: boot), at: 0)
    try layer.synchronize()
    return layer
  }

  /// The layer of an earlier process, see below.
  static func open(
    _ path: ByteString, _ identity: LayerIdentity, boot: [UInt8]
  ) throws(LayerError) -> Opened {
    let storage: FileBackend
    do {
      let file = try FileDescriptor.open(path, .readWrite)
      guard clinux_lock_file(file.rawValue) == 0 else { throw LayerError.inUse(path) }
      var status = clinux_status()
      // SAFETY: a structure of ours that the call fills.
      _ = try checked(unsafe clinux_fstat(file.rawValue, &status))
      let count = FileStatus(status).byteCount
      storage = FileBackend(owning: file, byteCount: count, summary: path)
    } catch let error as LayerError {
      throw error
    } catch let error as SystemError {
      if error == .noSuchFile { throw .gone(path) }
      throw .cannotKeep(directory: directory(of: path), error)
    } catch {
      throw .torn(path, "it cannot be read")
    }
    do { return try open(storage, shownAs: path, identity, boot: boot) } catch {
      // An object that is not finished does not unlock.
      _ = clinux_unlock_file(storage.file.rawValue)
      throw error
    }
  }

  struct Opened {
    var layer: LayerFile
    /// What is in it.
    var map: Map
    /// The pages of the map that are not durable yet.
    var unrecorded: [Int] = []
  }

  static func open(
    _ storage: any BlockBackend, shownAs path: ByteString, _ identity: LayerIdentity,
    boot: [UInt8]
  ) throws(LayerError) -> Opened {
    do {
      let layout = try Layout(identity.imageByteCount)
      let layer = LayerFile(storage, layout)
      let header = try layer.read(
        Int(min(storage.byteCount, UInt64(Self.headerByteCount))), at: 0)
      if let wrong = Self.mismatch(header, identity) { throw LayerError.foreign(path, wrong) }
      guard isWhole(header) else {
        throw LayerError.torn(path, "its header is not what was written")
      }
      guard storage.byteCount == layout.fileByteCount else {
        throw LayerError.torn(path, "its length is not that of the image and its map")
      }
      let durable = try layer.readMap(at: Self.pageByteCount)
      guard Self.bootName(in: header) != boot else {
        let written = try layer.readMap(at: Self.pageByteCount + layout.mapByteCount)
        var opened = Opened(layer: layer, map: written)
        for index in written.indices where written[index] & ~durable[index] != 0 {
          let page = index / Self.wordsInPage
          if opened.unrecorded.last != page { opened.unrecorded.append(page) }
        }
        return opened
      }
      // Another boot: what was written and not flushed may be there in part, so it is not there.
      // The second map begins anew before the header says that it counts.
      try layer.write(durable, inMapAt: Self.pageByteCount + layout.mapByteCount, from: 0)
      try layer.synchronize()
      try layer.write(Self.header(identity, boot: boot), at: 0)
      try layer.synchronize()
      return Opened(layer: layer, map: durable)
    } catch let error as LayerError {
      throw error
    } catch let error as SystemError {
      throw .cannotKeep(directory: directory(of: path), error)
    } catch {
      throw .torn(path, "it cannot be read")
    }
  }

  /// Whether a file is a layer of this token and export, whatever image it was made for.
  static func belongs(_ path: ByteString, to identity: LayerIdentity) -> Bool {
    guard let file = try? FileDescriptor.open(path, [.readOnly, .nonBlocking]) else { return false }
    var header: [UInt8] = []
    guard (try? file.read(into: &header, maximum: headerByteCount)) == true,
      header.count == headerByteCount, isWhole(header)
    else { return false }
    return header.starts(with: magic)
      && header[24..<56].elementsEqual(identity.encoded.prefix(32))
  }
}

// The header: magic, u64 version, identity, the name of the boot, ..., u64 checksum.
extension LayerFile {
  private static let bootRange = 72..<108

  private static func header(_ identity: LayerIdentity, boot: [UInt8]) -> [UInt8] {
    var bytes = magic
    bytes.append(littleEndian: version)
    bytes += identity.encoded
    bytes += boot
    bytes += [UInt8](repeating: 0, count: headerByteCount - 8 - bytes.count)
    bytes.append(littleEndian: fnv1a(bytes))
    return bytes
  }

  private static func isWhole(_ header: [UInt8]) -> Bool {
    let end = headerByteCount - 8
    return header.count == headerByteCount
      && header.span.littleEndian(UInt64.self, at: end) == fnv1a(Array(header[..<end]))
  }

  /// In which the layer is not the one that is wanted.
  private static func mismatch(
    _ header: [UInt8], _ identity: LayerIdentity
  ) -> StaticFieldName? {
    guard header.count == headerByteCount, header.starts(with: magic) else {
      return "it is no layer of rootlinkd"
    }
    // What it says counts only if it is whole.
    guard isWhole(header) else { return nil }
    let wanted = Self.header(identity, boot: bootName(in: header))
    func differs(_ range: Range<Int>) -> Bool { header[range] != wanted[range] }
    if differs(16..<24) { return "it is of another version of rootlinkd" }
    if differs(24..<56) { return "it is of another attachment or export" }
    if differs(56..<64) { return "the image has another size now" }
    if differs(64..<72) { return "the image has been written to since" }
    return nil
  }

  private static func bootName(in header: [UInt8]) -> [UInt8] { Array(header[bootRange]) }

  /// Changes with each boot of this machine. Source: random(4), "boot_id": a UUID, 36 characters.
  static let currentBoot: [UInt8] = {
    let text = (try? readFile("/proc/sys/kernel/random/boot_id", limit: 64))?.trimmed.bytes ?? []
    // Without a name no boot is the same as another, and flushed is what counts.
    return text.count == bootRange.count
      ? text : (0..<bootRange.count).map { _ in UInt8(randomValue(below: 256)) }
  }()
}

// Bytes in and out.
extension LayerFile {
  /// Writes a word of the map of what has been written; invariant 1.
  func record(_ word: UInt64, at index: Int) throws(SystemError) {
    guard isKept else { return }
    precondition(index < wordCount)
    var word = word.littleEndian
    var failure: BackendError?
    unsafe withUnsafeBytes(of: &word) { raw in
      do throws(BackendError) {
        // SAFETY: the eight bytes of the word, for the time of the call.
        try unsafe storage.write(
          raw, at: Self.pageByteCount + mapByteCount + UInt64(index) * 8, isDurable: false)
      } catch { failure = error }
    }
    try asSystem { () throws(BackendError) in if let failure { throw failure } }
  }

  /// Makes the blocks durable, then what the pages of the map say of them; invariant 2. The words
  /// were copied before the call.
  func makeDurable(_ pages: [(page: Int, words: [UInt64])]) throws(SystemError) {
    try synchronize()
    if pages.isEmpty { return }
    for (page, words) in pages {
      try write(words, inMapAt: Self.pageByteCount, from: page * Self.wordsInPage)
    }
    try synchronize()
  }

  private func synchronize() throws(SystemError) {
    try asSystem { () throws(BackendError) in try storage.flush() }
  }

  private func write(
    _ words: [UInt64], inMapAt offset: UInt64, from index: Int
  ) throws(SystemError) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(words.count * 8)
    for word in words { bytes.append(littleEndian: word) }
    try write(bytes, at: offset + UInt64(index) * 8)
  }

  private func write(_ bytes: [UInt8], at offset: UInt64) throws(SystemError) {
    try asSystem { () throws(BackendError) in try storage.writeArray(bytes, at: offset) }
  }

  private func read(_ count: Int, at offset: UInt64) throws(SystemError) -> [UInt8] {
    var bytes: [UInt8] = []
    try asSystem { () throws(BackendError) in bytes = try storage.readArray(count, at: offset) }
    return bytes
  }

  private func readMap(at offset: UInt64) throws(SystemError) -> Map {
    let bytes = try read(wordCount * 8, at: offset)
    let span = bytes.span
    var words: Map = []
    words.reserveCapacity(wordCount)
    for index in 0..<wordCount { words.append(span.littleEndian(UInt64.self, at: index * 8)) }
    return words
  }
}

/// The other way round than `asBackend`.
private func asSystem(_ body: () throws(BackendError) -> Void) throws(SystemError) {
  do { try body() } catch {
    if case .system(let system) = error { throw system }
    throw .inputOutput
  }
}

func directory(of path: ByteString) -> ByteString {
  guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return "." }
  return slash == 0 ? "/" : ByteString(path.bytes[..<slash])
}

private func synchronizeDirectory(of path: ByteString) throws(SystemError) {
  let file = try FileDescriptor.open(directory(of: path))
  _ = try checked(clinux_fsync(file.rawValue))
}

/// 64-bit FNV-1a: tells bytes that were written from others, and withstands nobody.
/// Source: RFC 9923.
func fnv1a(_ bytes: [UInt8]) -> UInt64 {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
  return hash
}

extension Array where Element == UInt8 {
  mutating func append(littleEndian value: UInt64) {
    for shift in stride(from: 0, to: 64, by: 8) {
      append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
    }
  }
}

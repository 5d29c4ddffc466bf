// SPDX-License-Identifier: Apache-2.0
// The state of a mirror on a medium of its own: header and maps, see `MirrorRecord`.
//
// A page of a map that is torn by a loss of power counts as all ones, which only costs a copy.
// One thread at a time calls what writes.

import LinuxSystem
import WireFormat

final class MirrorStateFile: Sendable {
  /// Words of bits in a page of a map.
  static let wordsInPage = 511
  private static let pageByteCount: UInt64 = 4096
  /// 32704 regions a page, and so many pages a map: what one flush writes stays small.
  private static let regionCountWanted: UInt64 = 1 << 17
  static let regionByteCountMinimum: UInt64 = 4 << 20

  private let storage: any BlockBackend
  private let pagesInMap: Int

  init(_ storage: any BlockBackend, regionCount: UInt64) {
    self.storage = storage
    pagesInMap = Self.pagesInMap(regionCount)
  }

  private static func pagesInMap(_ regionCount: UInt64) -> Int {
    let words = (regionCount + 63) / 64
    return Int((words + UInt64(wordsInPage) - 1) / UInt64(wordsInPage))
  }

  /// The least power of two from 4 MiB on that keeps the maps small.
  static func regionByteCount(for byteCount: UInt64) -> UInt64 {
    var size = regionByteCountMinimum
    while byteCount / size > regionCountWanted { size *= 2 }
    return size
  }

  /// How long the medium must be.
  static func byteCount(for byteCount: UInt64, regionByteCount: UInt64) -> UInt64 {
    let regions = (byteCount + regionByteCount - 1) / regionByteCount
    let maps = UInt64(MirrorHeader.halfCountMaximum + 1)
    return (2 + maps * UInt64(pagesInMap(regions))) * pageByteCount
  }

  /// The newer of the headers that are whole.
  static func readHeader(_ storage: any BlockBackend) throws(BackendError) -> MirrorHeader? {
    guard storage.byteCount >= 2 * pageByteCount else { return nil }
    var newest: MirrorHeader?
    for slot: UInt64 in 0..<2 {
      let page = try storage.readArray(Int(pageByteCount), at: slot * pageByteCount)
      if let header = MirrorHeader(page), header.sequence >= newest?.sequence ?? 0 {
        newest = header
      }
    }
    return newest
  }

  /// Durable when it returns, and all maps that were written before with it.
  func write(_ header: inout MirrorHeader) throws(BackendError) {
    try storage.flush()
    header.sequence &+= 1
    try storage.writeArray(
      header.encoded, at: header.sequence % 2 * Self.pageByteCount, isDurable: true)
  }

  func flush() throws(BackendError) { try storage.flush() }

  private func offset(map: Int, page: Int) -> UInt64 {
    UInt64(2 + map * pagesInMap + page) * Self.pageByteCount
  }

  /// `map`: 0 for what is being written, 1 + the index of a half for what it has missed.
  func read(map: Int, into bits: borrowing AtomicBits, regionCount: UInt64) throws(BackendError) {
    for page in 0..<pagesInMap {
      let bytes = try storage.readArray(
        Int(Self.pageByteCount), at: offset(map: map, page: page))
      let isWhole = isSealed(bytes)
      for index in 0..<Self.wordsInPage {
        let word = page * Self.wordsInPage + index
        let first = UInt64(word) * 64
        guard first < regionCount else { break }
        let value =
          isWhole ? bytes.span.littleEndian(UInt64.self, at: index * 8) : UInt64.max
        let valid = regionCount - first >= 64 ? .max : (UInt64(1) << (regionCount - first)) - 1
        if value & valid != 0 { bits.formUnion(value & valid, inWord: word) }
      }
    }
  }

  /// The pages that have these words, as the bits are now; not durable before a flush.
  func write(
    map: Int, from bits: borrowing AtomicBits, words: ClosedRange<Int>
  ) throws(BackendError) {
    for page in (words.lowerBound / Self.wordsInPage)...(words.upperBound / Self.wordsInPage) {
      guard page < pagesInMap else { break }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(Int(Self.pageByteCount))
      let start = page * Self.wordsInPage
      for word in start..<min(start + Self.wordsInPage, bits.wordCount) {
        bytes.append(littleEndian: bits.word(word))
      }
      try storage.writeArray(sealed(bytes), at: offset(map: map, page: page))
    }
  }

  func write(map: Int, from bits: borrowing AtomicBits) throws(BackendError) {
    try write(map: map, from: bits, words: 0...(bits.wordCount - 1))
  }
}

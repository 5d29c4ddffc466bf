// SPDX-License-Identifier: Apache-2.0
// What a mirror leaves on disks, byte by byte. All numbers are little-endian; every page of 4096
// bytes ends with a checksum of the rest.
//
// On each half, in its last 8192 bytes (of whole pages), a label, twice: it is written to the two
// places in turn, so a torn write leaves the one before.
//
//   0  "rootlinkd mhalf\n"   16  version      24  mirror, 16 bytes    40  half
//   48 bytes of the mirror   56  generation   64  change              72  sequence
//
// On the state medium two places for the header, again written in turn, then the maps: which
// regions are being written, and for each half which regions it has missed. A page of a map is
// 511 words of bits and the checksum.
//
//   0  "rootlinkd mirror"    16  version      24  mirror, 16 bytes    40  bytes of the mirror
//   48 bytes of a region     56  generation   64  change              72  sequence
//   80 count of halves       88  for each half: its number, 1 good or 2 behind, and the generation
//                                and the change that its label has
//
// Generation and change become others whenever a half goes out of use or comes back, and when the
// mirror is opened and closed: a half that was elsewhere meanwhile has an old label, and of two
// halves that went separate ways each has a change that the other does not know.

import LinuxSystem
import WireFormat

/// Tells this time from others: a counter, and a random number for those who count alike.
struct MirrorGeneration: Equatable, Sendable {
  var count: UInt64
  var change: UInt64

  static let none = MirrorGeneration(count: 0, change: 0)

  func next() -> MirrorGeneration {
    MirrorGeneration(count: count &+ 1, change: .random(in: 1 ... .max))
  }
}

struct MirrorIdentity: Equatable, Sendable {
  var high: UInt64
  var low: UInt64

  static func random() -> MirrorIdentity {
    MirrorIdentity(high: .random(in: 1 ... .max), low: .random(in: 1 ... .max))
  }
}

/// Says of a half which one of which mirror it is, and when it last was a good one.
struct HalfLabel: Equatable, Sendable {
  static let pageByteCount: UInt64 = 4096
  static let areaByteCount = 2 * pageByteCount
  private static let magic = Array("rootlinkd mhalf\n".utf8)
  private static let version: UInt64 = 1

  var mirror: MirrorIdentity
  /// Random, never 0.
  var half: UInt64
  var byteCount: UInt64
  var generation: MirrorGeneration
  var sequence: UInt64

  /// Where the area begins; nil when the medium is too small for one.
  static func offset(on half: any BlockBackend) -> UInt64? {
    let end = half.byteCount / pageByteCount * pageByteCount
    return end > areaByteCount ? end - areaByteCount : nil
  }

  /// What is found where a label would be.
  enum Found: Equatable, Sendable {
    case label(HalfLabel)
    /// Zeroes: a medium that nobody has used.
    case blank
    /// Bytes of somebody else.
    case other
  }

  static func find(on half: any BlockBackend) throws(BackendError) -> Found {
    guard let offset = offset(on: half) else { return .other }
    let area = try half.readArray(Int(areaByteCount), at: offset)
    var newest: HalfLabel?
    for start in [0, Int(pageByteCount)] {
      let page = Array(area[start..<(start + Int(pageByteCount))])
      if let label = HalfLabel(page), label.sequence >= newest?.sequence ?? 0 { newest = label }
    }
    if let newest { return .label(newest) }
    return area.allSatisfy { $0 == 0 } ? .blank : .other
  }

  func write(to half: any BlockBackend) throws(BackendError) {
    guard let offset = Self.offset(on: half) else { throw .range }
    try half.writeArray(
      encoded, at: offset + sequence % 2 * Self.pageByteCount, isDurable: true)
  }

  private var encoded: [UInt8] {
    var bytes = Self.magic
    for word in [
      Self.version, mirror.high, mirror.low, half, byteCount, generation.count,
      generation.change, sequence,
    ] { bytes.append(littleEndian: word) }
    return sealed(bytes)
  }

  private init?(_ page: [UInt8]) {
    guard isSealed(page), page.starts(with: Self.magic) else { return nil }
    let span = page.span
    func word(_ index: Int) -> UInt64 { span.littleEndian(UInt64.self, at: 16 + 8 * index) }
    guard word(0) == Self.version else { return nil }
    mirror = MirrorIdentity(high: word(1), low: word(2))
    half = word(3)
    byteCount = word(4)
    guard byteCount >= 4096 else { return nil }
    generation = MirrorGeneration(count: word(5), change: word(6))
    sequence = word(7)
  }

  init(
    mirror: MirrorIdentity, half: UInt64, byteCount: UInt64, generation: MirrorGeneration,
    sequence: UInt64
  ) {
    self.mirror = mirror
    self.half = half
    self.byteCount = byteCount
    self.generation = generation
    self.sequence = sequence
  }
}

/// What is known of the mirror as a whole.
struct MirrorHeader: Equatable, Sendable {
  static let halfCountMaximum = 8
  private static let magic = Array("rootlinkd mirror".utf8)
  private static let version: UInt64 = 1

  struct Half: Equatable, Sendable {
    /// As in its label.
    var number: UInt64
    var isGood: Bool
    /// What its label says, or said when it was last seen.
    var label: MirrorGeneration
  }

  var mirror: MirrorIdentity
  var byteCount: UInt64
  var regionByteCount: UInt64
  /// What the labels of all good halves will say; that of a half may still say what stands there.
  var generation: MirrorGeneration
  var sequence: UInt64
  /// At most `halfCountMaximum`.
  var halves: [Half]

  var regionCount: UInt64 { (byteCount + regionByteCount - 1) / regionByteCount }

  var encoded: [UInt8] {
    precondition(halves.count <= Self.halfCountMaximum)
    var bytes = Self.magic
    for word in [
      Self.version, mirror.high, mirror.low, byteCount, regionByteCount, generation.count,
      generation.change, sequence, UInt64(halves.count),
    ] { bytes.append(littleEndian: word) }
    for half in halves {
      for word in [half.number, half.isGood ? 1 : 2, half.label.count, half.label.change] {
        bytes.append(littleEndian: word)
      }
    }
    return sealed(bytes)
  }

  init?(_ page: [UInt8]) {
    guard isSealed(page), page.starts(with: Self.magic) else { return nil }
    let span = page.span
    func word(_ index: Int) -> UInt64 { span.littleEndian(UInt64.self, at: 16 + 8 * index) }
    guard word(0) == Self.version, word(3) >= 4096, word(8) >= 1,
      word(8) <= UInt64(Self.halfCountMaximum),
      word(4) >= 4096, word(4) & (word(4) - 1) == 0, word(3) <= UInt64(Int64.max)
    else { return nil }
    mirror = MirrorIdentity(high: word(1), low: word(2))
    byteCount = word(3)
    regionByteCount = word(4)
    generation = MirrorGeneration(count: word(5), change: word(6))
    sequence = word(7)
    halves = []
    for index in 0..<Int(word(8)) {
      let at = 9 + 4 * index
      halves.append(
        Half(
          number: word(at), isGood: word(at + 1) == 1,
          label: MirrorGeneration(count: word(at + 2), change: word(at + 3))))
    }
  }

  init(
    mirror: MirrorIdentity, byteCount: UInt64, regionByteCount: UInt64,
    generation: MirrorGeneration, halves: [Half]
  ) {
    self.mirror = mirror
    self.byteCount = byteCount
    self.regionByteCount = regionByteCount
    self.generation = generation
    self.halves = halves
    sequence = 0
  }
}

/// A page: the bytes, zeroes, and the checksum.
func sealed(_ bytes: [UInt8]) -> [UInt8] {
  precondition(bytes.count <= 4088)
  var page = bytes
  page += [UInt8](repeating: 0, count: 4088 - bytes.count)
  page.append(littleEndian: fnv1a(page))
  return page
}

func isSealed(_ page: [UInt8]) -> Bool {
  page.count == 4096
    && page.span.littleEndian(UInt64.self, at: 4088) == fnv1a(Array(page[..<4088]))
}

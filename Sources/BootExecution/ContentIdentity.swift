// SPDX-License-Identifier: Apache-2.0
// Whether an export still holds what it held: the identifiers that file systems and partition
// tables carry, which no ordinary write changes. Asked again at every reconnection, before the
// kernel may write to what has come back under the name.
//
// Allocates nothing: the regions to read are worked out one after the other, and what is found
// goes into a checksum.

import WireFormat

/// A part of the export to be read.
public struct IdentityRegion: Equatable, Sendable {
  public var offset: UInt64
  public var byteCount: Int
}

/// A checksum of the identifiers of an export, and how many there were.
public struct ContentIdentity: Equatable, Sendable {
  /// FNV-1a over what was found, from two bases: no proof against forgery, which is not asked for.
  private var first: UInt64 = 0xcbf2_9ce4_8422_2325
  private var second: UInt64 = 0x6c62_272e_07bb_0142
  /// How many identifiers were found; with none there is nothing to compare.
  public private(set) var count: UInt32 = 0

  public init() {}
  public init(first: UInt64, second: UInt64, count: UInt32) {
    self.first = first
    self.second = second
    self.count = count
  }
  /// What `init(first:second:count:)` takes, for a keeper's file.
  public var words: (first: UInt64, second: UInt64) { (first, second) }

  /// Whether what is there now may stand in for what was there: nothing is held against content
  /// that had no identifier.
  public func accepts(_ present: ContentIdentity) -> Bool { count == 0 || self == present }

  mutating func add(_ kind: UInt8, at offset: UInt64, _ bytes: Span<UInt8>) {
    count &+= 1
    mix(kind)
    for shift in 0..<8 { mix(UInt8(truncatingIfNeeded: offset >> UInt64(shift * 8))) }
    for index in 0..<bytes.count { mix(bytes[index]) }
  }

  private mutating func mix(_ byte: UInt8) {
    let prime: UInt64 = 0x0000_0100_0000_01b3
    first = (first ^ UInt64(byte)) &* prime
    second = (second ^ UInt64(byte)) &* prime
  }
}

/// Walks through an export: `region` says what to read, `examine` takes it.
public struct IdentityReader: Sendable {
  /// No region is larger.
  public static let regionByteCountMaximum = 8192
  /// Of a partition table only so many partitions are looked into.
  static let partitionCountMaximum = 4

  private enum Place: Equatable {
    case head, volume, btrfs
    case partition(Int)
    case partitionBtrfs(Int)
    case done
  }

  private let exportByteCount: UInt64
  /// A power of two; regions begin and end at its multiples.
  private let blockByteCount: UInt64
  private var place = Place.head
  private var starts: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  private var startCount = 0
  /// Complete once `region` is nil.
  public private(set) var identity = ContentIdentity()

  /// `minimumBlockByteCount` up to 4096: no larger one can be attached.
  public init(exportByteCount: UInt64, minimumBlockByteCount: UInt32) {
    self.exportByteCount = exportByteCount
    blockByteCount = UInt64(max(512, min(minimumBlockByteCount, 4096)))
    skipWhatIsNotThere()
  }

  /// What to read next; nil when all has been seen.
  public var region: IdentityRegion? {
    switch place {
    case .head: region(at: 0, Self.regionByteCountMaximum)
    case .volume: region(at: 32768, 4096)
    case .btrfs: region(at: 65536, 4096)
    case .partition(let index): region(at: start(index), Self.regionByteCountMaximum)
    case .partitionBtrfs(let index): region(at: start(index) &+ 65536, 4096)
    case .done: nil
    }
  }

  private func region(at offset: UInt64, _ byteCount: Int) -> IdentityRegion? {
    let start = offset / blockByteCount * blockByteCount
    guard start < exportByteCount else { return nil }
    let rest = (exportByteCount - start) / blockByteCount * blockByteCount
    guard rest >= 512 else { return nil }
    return IdentityRegion(offset: start, byteCount: Int(min(UInt64(byteCount), rest)))
  }

  private func start(_ index: Int) -> UInt64 {
    switch index {
    case 0: starts.0
    case 1: starts.1
    case 2: starts.2
    default: starts.3
    }
  }

  private mutating func addPartition(startingAt start: UInt64) {
    guard startCount < Self.partitionCountMaximum, start > 0, start < exportByteCount else {
      return
    }
    switch startCount {
    case 0: starts.0 = start
    case 1: starts.1 = start
    case 2: starts.2 = start
    default: starts.3 = start
    }
    startCount += 1
  }

  /// Takes the bytes of `region`, and goes on.
  public mutating func examine(_ bytes: Span<UInt8>) {
    guard let region else { return }
    switch place {
    case .head:
      examineTables(bytes)
      examineFileSystems(bytes, at: region.offset)
    case .partition:
      examineFileSystems(bytes, at: region.offset)
    case .volume:
      // ISO 9660: the primary volume descriptor, whole; it holds names and dates.
      if has(bytes, at: 1, "CD001"), bytes.count >= 2048 {
        identity.add(20, at: region.offset, bytes.extracting(first: 2048))
      }
    case .btrfs, .partitionBtrfs:
      if has(bytes, at: 64, "_BHRfS_M") { add(21, region.offset, bytes, 32, 16) }
    case .done: break
    }
    advance()
    skipWhatIsNotThere()
  }

  private mutating func skipWhatIsNotThere() {
    while place != .done, region == nil { advance() }
  }

  private mutating func advance() {
    switch place {
    case .head: place = .volume
    case .volume: place = .btrfs
    case .btrfs: place = startCount > 0 ? .partition(0) : .done
    case .partition(let index): place = .partitionBtrfs(index)
    case .partitionBtrfs(let index):
      place = index + 1 < startCount ? .partition(index + 1) : .done
    case .done: break
    }
  }

  private func has(_ bytes: Span<UInt8>, at offset: Int, _ text: StaticString) -> Bool {
    guard offset + text.utf8CodeUnitCount <= bytes.count else { return false }
    return text.withUTF8Buffer { expected in
      for index in 0..<expected.count {
        // SAFETY: below the buffer's own count.
        if unsafe bytes[offset + index] != expected[index] { return false }
      }
      return true
    }
  }

  private mutating func add(
    _ kind: UInt8, _ place: UInt64, _ bytes: Span<UInt8>, _ offset: Int, _ count: Int
  ) {
    guard offset + count <= bytes.count else { return }
    identity.add(kind, at: place, bytes.extracting(offset..<(offset + count)))
  }

  /// MBR: disk signature at 440, four entries at 446. GPT header in the second block: disk GUID at
  /// 56, first entry's block at 72, entry size at 84. Source: UEFI 2.10, 5.2 and 5.3.
  private mutating func examineTables(_ bytes: Span<UInt8>) {
    let sector = has(bytes, at: 512, "EFI PART") ? 512 : 4096
    if has(bytes, at: sector, "EFI PART"), bytes.count >= sector + 92 {
      add(2, 0, bytes, sector + 56, 16)
      let entries = bytes.littleEndian(UInt64.self, at: sector + 72)
      let size = Int(bytes.littleEndian(UInt32.self, at: sector + 84))
      guard entries >= 2, entries < 16, size >= 128, size <= 4096 else { return }
      for index in 0..<Self.partitionCountMaximum {
        let offset = Int(entries) * sector + index * size
        guard offset + 48 <= bytes.count else { return }
        let start = bytes.littleEndian(UInt64.self, at: offset + 32)
        let (product, overflow) = start.multipliedReportingOverflow(by: UInt64(sector))
        if !overflow { addPartition(startingAt: product) }
      }
      return
    }
    guard bytes.count >= 512, bytes[510] == 0x55, bytes[511] == 0xaa else { return }
    for entry in 0..<4 where bytes[446 + entry * 16] & 0x7f != 0 { return }  // A boot sector.
    if bytes.littleEndian(UInt32.self, at: 440) != 0 { add(1, 0, bytes, 440, 4) }
    for entry in 0..<4 where bytes[446 + entry * 16 + 4] != 0 {
      addPartition(
        startingAt: UInt64(bytes.littleEndian(UInt32.self, at: 446 + entry * 16 + 8)) * 512)
    }
  }

  /// Magic numbers and where each keeps its identifier. Source: libblkid's list of superblocks, and
  /// the formats' own headers.
  private mutating func examineFileSystems(_ bytes: Span<UInt8>, at place: UInt64) {
    if bytes.count >= 2048, bytes.littleEndian(UInt16.self, at: 1024 + 56) == 0xef53 {
      add(10, place, bytes, 1024 + 104, 16)  // ext2, ext3, ext4
    }
    if has(bytes, at: 0, "XFSB") { add(11, place, bytes, 32, 16) }
    if has(bytes, at: 0, "LUKS"), bytes.count >= 4096 { add(12, place, bytes, 168, 40) }
    if has(bytes, at: 0, "hsqs") { add(13, place, bytes, 0, 96) }  // squashfs, never written to
    if has(bytes, at: 512, "LABELONE") { add(14, place, bytes, 512 + 32, 32) }  // LVM
    if has(bytes, at: 4086, "SWAPSPACE2") { add(15, place, bytes, 1036, 16) }
    if bytes.count >= 2048 {
      let magic = bytes.littleEndian(UInt32.self, at: 1024)
      if magic == 0xf2f5_2010 { add(16, place, bytes, 1024 + 108, 16) }  // F2FS
      if magic == 0xe0f5_e1e2 { add(17, place, bytes, 1024 + 48, 16) }  // EROFS
    }
    if bytes.count >= 8192, bytes.littleEndian(UInt32.self, at: 4096) == 0xa92b_4efc {
      add(18, place, bytes, 4096 + 16, 16)  // md 1.2
    }
    if has(bytes, at: 82, "FAT32"), bytes.count >= 512 { add(19, place, bytes, 67, 4) }
  }
}

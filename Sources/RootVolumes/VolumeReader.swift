// SPDX-License-Identifier: Apache-2.0
// Which file system lies on a device or a partition: `region` says what to read, `examine` takes
// it, `volumes` is what was found. Three regions do, a fourth for the label of a vfat:
//
//   0        xfs, squashfs, vfat; 1024 into it ext, erofs, f2fs
//   32768    iso9660
//   65536    btrfs
//
// Old superblocks survive mkfs, and an image may be two things at once, so there may be several.
// Offsets: the formats' own headers, named at each.

import WireFormat

/// Reads nothing by itself: `region` says what it wants, `examine` takes it.
public struct VolumeReader: Sendable {
  static let headByteCount: UInt64 = 4096
  static let isoOffset: UInt64 = 32768
  static let btrfsOffset: UInt64 = 65536
  /// As much of a root directory as is searched for a label.
  static let directoryByteCountMaximum: UInt64 = 8192

  private enum Place: Equatable {
    case head
    case directory(Range<UInt64>)
    case iso, btrfs, done
  }

  private let byteCount: UInt64
  private let sectorByteCount: UInt64
  private var place = Place.head
  /// In the order of the regions.
  public private(set) var volumes: [VolumeIdentity] = []

  /// `sectorByteCount` is a power of two from 512 to 4096; others are taken as the nearest of
  /// these.
  public init(byteCount: UInt64, sectorByteCount: UInt32 = 512) {
    self.byteCount = byteCount
    self.sectorByteCount = sectorByteCount > 512 ? 4096 : 512
    skipWhatIsNotThere()
  }

  /// What to read next; nil when all has been seen.
  public var region: VolumeRegion? {
    switch place {
    case .head: region(0..<Self.headByteCount)
    case .directory(let range): region(range)
    case .iso: region(Self.isoOffset..<(Self.isoOffset + 2048))
    case .btrfs: region(Self.btrfsOffset..<(Self.btrfsOffset + 4096))
    case .done: nil
    }
  }

  private func region(_ range: Range<UInt64>) -> VolumeRegion? {
    VolumeRegion(range, deviceByteCount: byteCount, sectorByteCount: sectorByteCount)
  }

  /// Takes the bytes of `region`, as many as there are, and goes on. Give it an empty span for
  /// what cannot be read.
  public mutating func examine(_ bytes: Span<UInt8>) {
    var next: Place
    switch place {
    case .head:
      examineHead(bytes)
      next = .iso
      if volumes.contains(where: { $0.fileSystem == .vfat }), let range = Self.directory(bytes) {
        next = .directory(range)
      }
    case .directory:
      examineDirectory(bytes)
      next = .iso
    case .iso:
      if let volume = Self.iso9660(bytes) { volumes.append(volume) }
      next = .btrfs
    case .btrfs:
      if let volume = Self.btrfs(bytes) { volumes.append(volume) }
      next = .done
    case .done: next = .done
    }
    place = next
    skipWhatIsNotThere()
  }

  private mutating func skipWhatIsNotThere() {
    while place != .done, region == nil {
      switch place {
      case .head, .directory: place = .iso
      case .iso: place = .btrfs
      case .btrfs, .done: place = .done
      }
    }
  }

  private mutating func examineHead(_ bytes: Span<UInt8>) {
    if let volume = Self.xfs(bytes) { volumes.append(volume) }
    if bytes.has("hsqs", at: 0), bytes.count >= 96, bytes.littleEndian(UInt16.self, at: 28) == 4 {
      volumes.append(VolumeIdentity(.squashfs, uuid: nil, label: nil))
    }
    if let volume = Self.vfat(bytes) { volumes.append(volume) }
    guard bytes.count >= 2048 else { return }
    let superblock = bytes.extracting(1024..<bytes.count)
    if let volume = Self.ext(superblock) { volumes.append(volume) }
    if let volume = Self.erofs(superblock) { volumes.append(volume) }
    if let volume = Self.f2fs(superblock) { volumes.append(volume) }
  }

  // MARK: Formats

  /// `struct ext4_super_block`: magic at 56, features at 92, UUID at 104, name at 120.
  /// Which of the three it is: Linux `EXT2_FEATURE_*_SUPP` and `EXT3_FEATURE_*_SUPP` in
  /// `fs/ext4/ext4.h`. A device that holds only a journal is none.
  private static func ext(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 1024, bytes.littleEndian(UInt16.self, at: 56) == 0xef53 else { return nil }
    let compatible = bytes.littleEndian(UInt32.self, at: 92)
    let incompatible = bytes.littleEndian(UInt32.self, at: 96)
    let readOnlyCompatible = bytes.littleEndian(UInt32.self, at: 100)
    guard incompatible & 0x8 == 0 else { return nil }
    let hasJournal = compatible & 0x4 != 0
    // File types and meta block groups; sparse superblocks, large files, directory trees.
    let isOld = incompatible & ~0x16 == 0 && readOnlyCompatible & ~0x7 == 0
    let needsRecovery = incompatible & 0x4 != 0
    let kind: VolumeIdentity.FileSystem =
      !isOld || (needsRecovery && !hasJournal) ? .ext4 : hasJournal ? .ext3 : .ext2
    return VolumeIdentity(
      kind, uuid: VolumeText.uuid(bytes.field(at: 104, byteCount: 16)),
      label: VolumeText.label(bytes.field(at: 120, byteCount: 16)))
  }

  /// `struct xfs_dsb`, big-endian: magic at 0, block size at 4, UUID at 32, name at 108.
  private static func xfs(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 512, bytes.has("XFSB", at: 0) else { return nil }
    let block = bytes.bigEndian(UInt32.self, at: 4)
    guard block >= 512, block <= 65536, block.nonzeroBitCount == 1 else { return nil }
    return VolumeIdentity(
      .xfs, uuid: VolumeText.uuid(bytes.field(at: 32, byteCount: 16)),
      label: VolumeText.label(bytes.field(at: 108, byteCount: 12)))
  }

  /// `struct erofs_super_block`: magic at 0, UUID at 48, name at 64.
  private static func erofs(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 128, bytes.littleEndian(UInt32.self, at: 0) == 0xe0f5_e1e2 else {
      return nil
    }
    return VolumeIdentity(
      .erofs, uuid: VolumeText.uuid(bytes.field(at: 48, byteCount: 16)),
      label: VolumeText.label(bytes.field(at: 64, byteCount: 16)))
  }

  /// `struct f2fs_super_block`: magic at 0, UUID at 108, a name of 512 UTF-16 units at 124.
  private static func f2fs(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 124 + 1024, bytes.littleEndian(UInt32.self, at: 0) == 0xf2f5_2010 else {
      return nil
    }
    return VolumeIdentity(
      .f2fs, uuid: VolumeText.uuid(bytes.field(at: 108, byteCount: 16)),
      label: VolumeText.utf16(bytes.field(at: 124, byteCount: 1024)))
  }

  /// `struct btrfs_super_block`: UUID at 32, its own offset at 48, magic at 64, name at 299.
  private static func btrfs(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 4096, bytes.has("_BHRfS_M", at: 64),
      bytes.littleEndian(UInt64.self, at: 48) == btrfsOffset
    else { return nil }
    return VolumeIdentity(
      .btrfs, uuid: VolumeText.uuid(bytes.field(at: 32, byteCount: 16)),
      label: VolumeText.label(bytes.field(at: 299, byteCount: 256)))
  }

  /// The primary volume descriptor: name at 40, dates of 16 digits at 813 (made) and 830 (changed).
  /// Source: ECMA-119, section 8.4. The date of the change serves as identifier.
  private static func iso9660(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 2048, bytes[0] == 1, bytes.has("CD001", at: 1) else { return nil }
    return VolumeIdentity(
      .iso9660,
      uuid: date(bytes.field(at: 830, byteCount: 16)) ?? date(bytes.field(at: 813, byteCount: 16)),
      label: VolumeText.label(bytes.field(at: 40, byteCount: 32)))
  }

  private static func date(_ digits: [UInt8]) -> ByteString? {
    guard ByteString(digits).isAllDigits, digits.contains(where: { $0 != 0x30 }) else { return nil }
    var text: [UInt8] = []
    for (index, digit) in digits.enumerated() {
      if index >= 4, index.isMultiple(of: 2) { text.append(0x2d) }
      text.append(digit)
    }
    return ByteString(text)
  }

  // MARK: FAT

  /// The boot sector: serial number at 67 and "FAT32" at 82, or at 39 and 54.
  /// Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.
  private static func vfat(_ bytes: Span<UInt8>) -> VolumeIdentity? {
    guard bytes.count >= 512, bytes[510] == 0x55, bytes[511] == 0xaa else { return nil }
    let isLarge = bytes.has("FAT32   ", at: 82)
    guard isLarge || bytes.has("FAT16   ", at: 54) || bytes.has("FAT12   ", at: 54) else {
      return nil
    }
    let serial = bytes.field(at: isLarge ? 67 : 39, byteCount: 4)
    var text: [UInt8] = []
    for index in [3, 2, 1, 0] {
      if index == 1 { text.append(0x2d) }
      for digit in VolumeText.hexadecimal([serial[index]]) {
        text.append(digit >= 0x61 ? digit & ~0x20 : digit)
      }
    }
    let hasSerial = serial.contains { $0 != 0 }
    return VolumeIdentity(.vfat, uuid: hasSerial ? ByteString(text) : nil, label: nil)
  }

  /// Where the root directory begins. Sector size at 11, sectors a cluster at 13, reserved sectors
  /// at 14, tables at 16, sectors a table at 22 or 36, first cluster of the root at 44.
  private static func directory(_ bytes: Span<UInt8>) -> Range<UInt64>? {
    guard bytes.count >= 512 else { return nil }
    let sector = UInt64(bytes.littleEndian(UInt16.self, at: 11))
    guard sector >= 512, sector <= 4096, sector.nonzeroBitCount == 1 else { return nil }
    let cluster = UInt64(bytes[13])
    let reserved = UInt64(bytes.littleEndian(UInt16.self, at: 14))
    let short = UInt64(bytes.littleEndian(UInt16.self, at: 22))
    let table = short != 0 ? short : UInt64(bytes.littleEndian(UInt32.self, at: 36))
    // At most 65535 + 255 * 2^32 sectors, and 255 * 2^32 more: far from 64 bits.
    var first = reserved + UInt64(bytes[16]) * table
    if short == 0 {
      let root = UInt64(bytes.littleEndian(UInt32.self, at: 44))
      guard root >= 2 else { return nil }
      first += (root - 2) * cluster
    }
    let entries = UInt64(bytes.littleEndian(UInt16.self, at: 17)) * 32
    let size = short != 0 ? entries : cluster * sector
    guard size > 0 else { return nil }
    let start = first * sector
    return start..<(start + min(size, directoryByteCountMaximum))
  }

  /// The entry that is a label: attribute 8 at 11, eleven bytes of name; 0xe5 means deleted.
  private mutating func examineDirectory(_ bytes: Span<UInt8>) {
    var offset = 0
    while offset + 32 <= bytes.count, bytes[offset] != 0 {
      if bytes[offset] != 0xe5, bytes[offset + 11] & 0x18 == 0x08, bytes[offset + 11] & 0x0f != 0x0f
      {
        for index in volumes.indices where volumes[index].fileSystem == .vfat {
          volumes[index].label = VolumeText.label(bytes.field(at: offset, byteCount: 11))
        }
        return
      }
      offset += 32
    }
  }
}

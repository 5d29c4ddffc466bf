// SPDX-License-Identifier: Apache-2.0
import RootVolumes
import TestSupport
import Testing
import WireFormat

@Suite("A volume")
struct VolumeReaderTests {
  static let size: UInt64 = 1 << 20

  static func image(_ parts: [(UInt64, [UInt8])]) -> Image {
    var image = Image(byteCount: size)
    for (offset, bytes) in parts { image.write(bytes, at: offset) }
    return image
  }

  /// Features as mke2fs writes them: compatible, incompatible, read-only compatible.
  static func ext(_ compatible: UInt64, _ incompatible: UInt64, _ readOnly: UInt64) -> Image {
    image([
      (1024 + 56, [0x53, 0xef]),
      (1024 + 92, little(compatible, 4) + little(incompatible, 4) + little(readOnly, 4)),
      (1024 + 104, uuidBytes), (1024 + 120, Array("my root".utf8)),
    ])
  }

  static var xfs: Image {
    image([
      (0, Array("XFSB".utf8) + bytes("00001000")), (32, uuidBytes),
      (108, Array("twelve bytes".utf8)), (120, [0x7f]),
    ])
  }
  static var btrfs: Image {
    image([
      (65536 + 32, uuidBytes), (65536 + 48, little(65536, 8)),
      (65536 + 64, Array("_BHRfS_M".utf8)), (65536 + 299, Array("data  ".utf8)),
    ])
  }
  static var erofs: Image {
    image([(1024, bytes("e2e1f5e0")), (1024 + 48, uuidBytes), (1024 + 64, Array("e".utf8))])
  }
  static var f2fs: Image {
    image([
      (1024, bytes("1020f5f2")), (1024 + 108, uuidBytes), (1024 + 124, bytes("6600 fc00 3dd800de")),
    ])
  }
  static var squashfs: Image { image([(0, Array("hsqs".utf8)), (28, [4, 0])]) }
  static var iso9660: Image {
    image([
      (32768, [1] + Array("CD001".utf8)), (32768 + 40, Array("DEBIAN 12       ".utf8)),
      (32768 + 813, Array("2026112201020300".utf8)), (32768 + 830, Array("0000000000000000".utf8)),
    ])
  }
  /// 16 bits: root directory behind 1 reserved sector and 2 tables of 4.
  static var vfat16: Image {
    image([
      (11, bytes("0002 04 0100 02 1000 0000 f8 0400")), (39, bytes("78563412")),
      (54, Array("FAT16   ".utf8)), (510, [0x55, 0xaa]),
      (9 * 512, bytes("e5") + Array("ELETED    ".utf8) + [8]),
      (9 * 512 + 32, Array("LONG NAME..".utf8) + [0x0f]),
      (9 * 512 + 64, Array("BOOT DISK  ".utf8) + [8]),
    ])
  }
  /// 32 bits: reserved 32 sectors, 2 tables of 8, root in cluster 3 of 4 sectors.
  static var vfat32: Image {
    image([
      (11, bytes("0002 04 2000 02 0000 0000 f8 0000")), (36, little(8, 4)), (44, little(3, 4)),
      (67, bytes("cdab0100")), (82, Array("FAT32   ".utf8)), (510, [0x55, 0xaa]),
      ((32 + 16 + 4) * 512, Array("EFI        ".utf8) + [8]),
    ])
  }

  /// Sources: Linux `fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h`,
  /// `include/uapi/linux/btrfs_tree.h`, `fs/erofs/erofs_fs.h`, `include/linux/f2fs_fs.h`; ECMA-119;
  /// what blkid(8) prints for such images.
  static let rows: [(String, Image, VolumeIdentity)] = [
    ("ext2", ext(0x38, 0x2, 0x3), VolumeIdentity(.ext2, uuid: uuidText, label: "my root")),
    ("ext3", ext(0x3c, 0x2, 0x3), VolumeIdentity(.ext3, uuid: uuidText, label: "my root")),
    ("unclean ext3", ext(0x3c, 0x6, 0x3), VolumeIdentity(.ext3, uuid: uuidText, label: "my root")),
    ("ext4", ext(0x3c, 0x2c2, 0x46b), VolumeIdentity(.ext4, uuid: uuidText, label: "my root")),
    (
      "ext4 without a journal", ext(0x38, 0x242, 0x46b),
      VolumeIdentity(.ext4, uuid: uuidText, label: "my root")
    ),
    ("xfs", xfs, VolumeIdentity(.xfs, uuid: uuidText, label: "twelve bytes")),
    ("btrfs", btrfs, VolumeIdentity(.btrfs, uuid: uuidText, label: "data")),
    ("erofs", erofs, VolumeIdentity(.erofs, uuid: uuidText, label: "e")),
    ("f2fs", f2fs, VolumeIdentity(.f2fs, uuid: uuidText, label: "fü😀")),
    ("squashfs", squashfs, VolumeIdentity(.squashfs, uuid: nil, label: nil)),
    (
      "iso9660", iso9660,
      VolumeIdentity(.iso9660, uuid: "2026-11-22-01-02-03-00", label: "DEBIAN 12")
    ),
    ("vfat of 16 bits", vfat16, VolumeIdentity(.vfat, uuid: "1234-5678", label: "BOOT DISK")),
    ("vfat of 32 bits", vfat32, VolumeIdentity(.vfat, uuid: "0001-ABCD", label: "EFI")),
  ]

  @Test("is known by its superblock", arguments: rows)
  func recognized(name: String, image: Image, volume: VolumeIdentity) {
    #expect(image.volumes == [volume])
  }

  @Test("cut off anywhere is known or not, and nothing is read beyond its end", arguments: rows)
  func truncations(name: String, image: Image, volume: VolumeIdentity) {
    for count in stride(from: UInt64(0), through: 72_000, by: 257) {
      var image = image
      image.byteCount = count
      let found = image.volumes
      #expect(found.isEmpty || found.map(\.fileSystem) == [volume.fileSystem])
    }
  }

  @Test("that cannot be read is none")
  func unreadable() {
    var reader = VolumeReader(byteCount: Self.size)
    while reader.region != nil { reader.examine([UInt8]().span) }
    #expect(reader.volumes.isEmpty)
  }

  @Test("with a wrong constant is none")
  func wrongConstants() {
    #expect(Self.ext(0x3c, 0x8, 0x3).volumes.isEmpty)  // Only a journal.
    var image = Self.xfs
    image.write(bytes("00000100"), at: 4)
    #expect(image.volumes.isEmpty)
    image.write(bytes("00020000"), at: 4)
    #expect(image.volumes.isEmpty)
    image = Self.btrfs
    image.write([1], at: 65536 + 48)
    #expect(image.volumes.isEmpty)
    image = Self.squashfs
    image.write([3], at: 28)
    #expect(image.volumes.isEmpty)
    image = Self.vfat32
    image.write([0], at: 511)
    #expect(image.volumes.isEmpty)
  }

  @Test("that is two things is both")
  func ambiguous() {
    var image = Self.btrfs
    image.write(bytes("00001000"), at: 4)
    image.write("XFSB", at: 0)
    #expect(image.volumes.map(\.fileSystem) == [.xfs, .btrfs])
  }

  @Test("is found by UUID= and LABEL=")
  func tags() throws {
    let volume = try #require(Self.rows[3].1.volumes.first)
    for text: ByteString in [
      "UUID=00112233-4455-6677-8899-aabbccddeeff", "UUID=00112233-4455-6677-8899-AABBCCDDEEFF",
      "LABEL=my root", "LABEL=my\\x20root", "LABEL=\"my root\"",
    ] {
      #expect(RootTag(text)?.matches(volume) == true, "\(text.printable)")
    }
    for text: ByteString in ["LABEL=My root", "LABEL=my", "UUID=0", "PARTLABEL=my root"] {
      #expect(RootTag(text)?.matches(volume) == false, "\(text.printable)")
    }
  }

  @Test("of mutated bytes never traps", arguments: 0..<10)
  func mutated(shard: Int) {
    var random = SeededGenerator(printingAs: "volumes")
    let images = Self.rows.map { row in
      [0, 32768, 65536].map { row.1.read(VolumeRegion(offset: UInt64($0), byteCount: 4096)) }
    }
    var found = 0
    for round in 0..<100_000 {
      let image = images[round % images.count]
      var reader = VolumeReader(
        byteCount: random.next() % 16 == 0 ? random.next() : Self.size,
        sectorByteCount: random.next() % 2 == 0 ? 512 : 4096)
      while let region = reader.region {
        var bytes = image[region.offset >= 65536 ? 2 : region.offset >= 32768 ? 1 : 0]
        for _ in 0...Int(random.next() % 3) {
          let range = region.offset == 0 ? random.next() % 4096 : random.next() % 600
          let place = random.next() % 2 == 0 ? range % 128 : range
          bytes[Int(place)] = UInt8(truncatingIfNeeded: random.next())
        }
        if random.next() % 16 == 0 { bytes.removeLast(Int(random.next() % 4097)) }
        reader.examine(bytes.span)
      }
      found += reader.volumes.count
    }
    #expect(found > 50_000)
  }
}

// SPDX-License-Identifier: Apache-2.0
// What tells one image from another, and what does not.

import TestSupport
import Testing

@testable import BootExecution

@Suite("The identity of an export's content")
struct ContentIdentityTests {
  static let byteCount = 4 << 20

  /// Everything that a reader asks for, from an image in memory.
  static func identity(_ image: [UInt8], block: UInt32 = 1) -> ContentIdentity {
    var reader = IdentityReader(
      exportByteCount: UInt64(image.count), minimumBlockByteCount: block)
    var regions = 0
    while let region = reader.region {
      regions += 1
      #expect(regions <= 16, "the reader does not end")
      let start = Int(region.offset)
      reader.examine(image.span.extracting(start..<(start + region.byteCount)))
      if regions > 16 { break }
    }
    return reader.identity
  }

  static func put(_ bytes: [UInt8], at offset: Int, _ image: inout [UInt8]) {
    image.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
  }

  static func ext4(_ uuid: UInt8, at start: Int = 0, _ image: inout [UInt8]) {
    put([0x53, 0xef], at: start + 1024 + 56, &image)
    put([UInt8](repeating: uuid, count: 16), at: start + 1024 + 104, &image)
  }

  /// Each makes an image with this identifier. Source of the places: the formats' own headers.
  static let formats: [(name: String, make: @Sendable (UInt8, inout [UInt8]) -> Void)] = [
    ("ext4", { ext4($0, &$1) }),
    (
      "XFS",
      {
        put(Array("XFSB".utf8), at: 0, &$1)
        put([$0], at: 32, &$1)
      }
    ),
    (
      "LUKS",
      {
        put(Array("LUKS".utf8) + [0xba, 0xbe], at: 0, &$1)
        put([$0], at: 168, &$1)
      }
    ),
    (
      "swap",
      {
        put(Array("SWAPSPACE2".utf8), at: 4086, &$1)
        put([$0], at: 1036, &$1)
      }
    ),
    (
      "Btrfs",
      {
        put(Array("_BHRfS_M".utf8), at: 65536 + 64, &$1)
        put([$0], at: 65536 + 32, &$1)
      }
    ),
    (
      "ISO 9660",
      {
        put([1] + Array("CD001".utf8), at: 32768, &$1)
        put([$0], at: 32768 + 813, &$1)
      }
    ),
    (
      "an MBR's signature",
      {
        put([0x55, 0xaa], at: 510, &$1)
        put([$0], at: 440, &$1)
      }
    ),
    (
      "a GPT's disk",
      {
        put([0x55, 0xaa], at: 510, &$1)
        put(Array("EFI PART".utf8), at: 512, &$1)
        put([$0], at: 512 + 56, &$1)
      }
    ),
    (
      "the first partition's file system",
      {
        put([0x55, 0xaa], at: 510, &$1)
        put([0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0], at: 446, &$1)
        ext4($0, at: 1 << 20, &$1)
      }
    ),
  ]

  @Test("differs when an identifier does, and holds when only data do", arguments: formats.indices)
  func identifiers(index: Int) {
    let (name, make) = Self.formats[index]
    var image = [UInt8](repeating: 0, count: Self.byteCount)
    make(1, &image)
    let identity = Self.identity(image)
    #expect(identity.count > 0, "\(name) is not recognized")
    var written = image
    Self.put([UInt8](repeating: 0x77, count: 4096), at: 200_000, &written)
    #expect(Self.identity(written) == identity, "\(name)")
    var other = image
    make(2, &other)
    #expect(!identity.accepts(Self.identity(other)), "\(name)")
    #expect(!identity.accepts(Self.identity([UInt8](repeating: 0, count: Self.byteCount))))
  }

  @Test("of content without an identifier holds nothing against what comes")
  func unknown() {
    var image = [UInt8](repeating: 0, count: Self.byteCount)
    let blank = Self.identity(image)
    #expect(blank.count == 0)
    Self.ext4(1, &image)
    #expect(blank.accepts(Self.identity(image)))
  }

  @Test("is read from exports of every size and block, without reading outside")
  func sizes() {
    for size in [0, 1, 511, 512, 513, 4096, 8192, 8193, 32768, 65536, 66_000, 70_000] {
      for block: UInt32 in [1, 512, 4096] {
        _ = Self.identity([UInt8](repeating: 0xff, count: size), block: block)
      }
    }
  }

  @Test("of random bytes, with tables that lead anywhere, never traps")
  func random() {
    var generator = SeededGenerator(printingAs: "content identity")
    for _ in 0..<300 {
      var image = [UInt8](repeating: 0, count: 80_000)
      for index in 0..<8192 { image[index] = UInt8.random(in: 0...255, using: &generator) }
      Self.put([0x55, 0xaa], at: 510, &image)
      if Bool.random(using: &generator) { Self.put(Array("EFI PART".utf8), at: 512, &image) }
      for entry in 0..<4 { image[446 + entry * 16] &= 0x80 }
      var reader = IdentityReader(exportByteCount: .max, minimumBlockByteCount: 1)
      while let region = reader.region {
        reader.examine(image.span.extracting(first: region.byteCount))
      }
    }
  }
}

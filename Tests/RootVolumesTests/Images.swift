// SPDX-License-Identifier: Apache-2.0
// Devices as sparse maps of what is written into them, and readers fed from them.

import RootVolumes
import TestSupport
import WireFormat

struct Image {
  var byteCount: UInt64
  private(set) var bytes: [UInt64: UInt8] = [:]

  init(byteCount: UInt64) { self.byteCount = byteCount }

  mutating func write(_ new: [UInt8], at offset: UInt64) {
    for (index, byte) in new.enumerated() { bytes[offset + UInt64(index)] = byte }
  }
  mutating func write(_ text: String, at offset: UInt64) { write(Array(text.utf8), at: offset) }

  func read(_ region: VolumeRegion) -> [UInt8] {
    var read = [UInt8](repeating: 0, count: region.byteCount)
    guard region.byteCount > bytes.count else {
      for index in read.indices { read[index] = bytes[region.offset + UInt64(index)] ?? 0 }
      return read
    }
    for (offset, byte) in bytes
    where offset >= region.offset && offset - region.offset < UInt64(region.byteCount) {
      read[Int(offset - region.offset)] = byte
    }
    return read
  }

  var volumes: [VolumeIdentity] {
    var reader = VolumeReader(byteCount: byteCount)
    while let region = reader.region {
      precondition(region.offset + UInt64(region.byteCount) <= byteCount)
      reader.examine(read(region).span)
    }
    return reader.volumes
  }

  func table(sectorByteCount: UInt32 = 512) -> PartitionTable? {
    var reader = PartitionTableReader(byteCount: byteCount, sectorByteCount: sectorByteCount)
    while let region = reader.region {
      precondition(region.offset + UInt64(region.byteCount) <= byteCount)
      reader.examine(read(region).span)
    }
    return reader.table
  }
}

let uuidBytes = bytes("00112233445566778899aabbccddeeff")
let uuidText: ByteString = "00112233-4455-6677-8899-aabbccddeeff"

func little(_ value: UInt64, _ byteCount: Int) -> [UInt8] {
  (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
}

/// Bit by bit, unlike the module's own. Source: ISO 3309.
func crc32(_ bytes: [UInt8]) -> UInt32 {
  var sum = UInt32.max
  for byte in bytes {
    sum ^= UInt32(byte)
    for _ in 0..<8 { sum = sum & 1 == 0 ? sum >> 1 : (sum >> 1) ^ 0xedb8_8320 }
  }
  return ~sum
}

/// A GPT of `entryCount` entries, its copy at the end, and a protective MBR.
/// Layout: UEFI 2.10, sections 5.2.3 and 5.3.
struct GPTImage {
  var sector: UInt64 = 512
  var sectorCount: UInt64 = 4096
  var entryByteCount = 128
  var entries: [(number: Int, first: UInt64, last: UInt64, name: String)] = [
    (1, 64, 127, "boot"), (3, 128, 1023, "root ü😀"),
  ]
  var entryCount = 4

  func array() -> [UInt8] {
    var array = [UInt8](repeating: 0, count: entryCount * entryByteCount)
    for entry in entries {
      var wire = [UInt8](repeating: 0x11, count: 16) + uuidBytes.dropLast()
      wire.append(UInt8(entry.number))
      wire += little(entry.first, 8) + little(entry.last, 8) + little(0, 8)
      for unit in entry.name.utf16 { wire += little(UInt64(unit), 2) }
      let start = (entry.number - 1) * entryByteCount
      array.replaceSubrange(start..<(start + wire.count), with: wire)
    }
    return array
  }

  func header(at place: UInt64, other: UInt64, entriesAt: UInt64) -> [UInt8] {
    var wire = Array("EFI PART".utf8) + bytes("00000100 5c000000 00000000 00000000")
    wire += little(place, 8) + little(other, 8) + little(34, 8) + little(sectorCount - 34, 8)
    wire += uuidBytes + little(entriesAt, 8) + little(UInt64(entryCount), 4)
    wire += little(UInt64(entryByteCount), 4) + little(UInt64(crc32(array())), 4)
    wire.replaceSubrange(16..<20, with: little(UInt64(crc32(wire)), 4))
    return wire
  }

  var image: Image {
    var image = Image(byteCount: sectorCount * sector)
    image.write(bytes("00000200 ee ffffff 01000000 ffffffff"), at: 446)
    image.write([0x55, 0xaa], at: 510)
    image.write(header(at: 1, other: sectorCount - 1, entriesAt: 2), at: sector)
    image.write(array(), at: 2 * sector)
    image.write(
      header(at: sectorCount - 1, other: 1, entriesAt: sectorCount - 33),
      at: (sectorCount - 1) * sector)
    image.write(array(), at: (sectorCount - 33) * sector)
    return image
  }
}

/// An entry of an MBR.
func entry(_ type: UInt8, _ start: UInt64, _ count: UInt64, status: UInt8 = 0) -> [UInt8] {
  [status, 0, 0, 0, type, 0, 0, 0] + little(start, 4) + little(count, 4)
}

/// Primary 1, extended 2 with logical 5 and 6, primary 4. Numbers: Linux `msdos.c`.
var chainImage: Image {
  var image = Image(byteCount: 10_000 * 512)
  image.write(little(0x1234_abcd, 4), at: 440)
  image.write(entry(0x83, 64, 100, status: 0x80) + entry(0x05, 1000, 4000), at: 446)
  image.write(entry(0x83, 6000, 1000), at: 446 + 48)
  image.write([0x55, 0xaa], at: 510)
  image.write(entry(0x83, 10, 90) + entry(0x05, 200, 800), at: 1000 * 512 + 446)
  image.write([0x55, 0xaa], at: 1000 * 512 + 510)
  image.write(entry(0x82, 20, 80), at: 1200 * 512 + 446)
  image.write([0x55, 0xaa], at: 1200 * 512 + 510)
  return image
}

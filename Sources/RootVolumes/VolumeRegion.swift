// SPDX-License-Identifier: Apache-2.0
// How a reader that owns no device is fed: it names a part of the device, gets its bytes, and goes
// on until there is nothing more to read.

import WireFormat

/// A part of a device to be read. It lies within the device and begins and ends at a sector.
public struct VolumeRegion: Equatable, Sendable {
  /// In bytes from the beginning of the device.
  public var offset: UInt64
  public var byteCount: Int

  public init(offset: UInt64, byteCount: Int) {
    self.offset = offset
    self.byteCount = byteCount
  }

  /// The sectors of `range`, cut at the end of the device; nil when its beginning lies beyond.
  init?(_ range: Range<UInt64>, deviceByteCount: UInt64, sectorByteCount: UInt64) {
    let start = range.lowerBound / sectorByteCount * sectorByteCount
    let whole = deviceByteCount / sectorByteCount * sectorByteCount
    guard range.lowerBound < whole else { return nil }
    let (padded, overflow) = range.upperBound.addingReportingOverflow(sectorByteCount - 1)
    let end = overflow ? whole : min(whole, padded / sectorByteCount * sectorByteCount)
    guard end > start, end - start <= UInt64(Self.byteCountMaximum) else { return nil }
    self.init(offset: start, byteCount: Int(end - start))
  }

  /// No region is larger.
  public static let byteCountMaximum = 256 * 1024
}

extension Span where Element == UInt8 {
  /// False also where the span has no such bytes.
  func has(_ expected: [UInt8], at offset: Int) -> Bool {
    guard offset >= 0, count >= expected.count, offset <= count - expected.count else {
      return false
    }
    for index in expected.indices where self[offset + index] != expected[index] { return false }
    return true
  }

  func has(_ text: String, at offset: Int) -> Bool { has(Array(text.utf8), at: offset) }

  /// The bytes of a field that lies within the span.
  func field(at offset: Int, byteCount: Int) -> [UInt8] {
    ByteString(copying: extracting(offset..<(offset + byteCount))).bytes
  }
}

/// CRC-32 as Ethernet has it. Source: UEFI 2.10, section 5.3.1, which names ISO 3309.
enum CRC32 {
  static let table: [UInt32] = {
    var table: [UInt32] = []
    for index in 0..<256 {
      var value = UInt32(index)
      for _ in 0..<8 { value = value & 1 == 0 ? value >> 1 : (value >> 1) ^ 0xedb8_8320 }
      table.append(value)
    }
    return table
  }()

  /// Over `bytes`, with those in `hole` taken as zeroes.
  static func checksum(_ bytes: Span<UInt8>, zeroing hole: Range<Int> = 0..<0) -> UInt32 {
    let table = table
    var sum = UInt32.max
    for index in 0..<bytes.count {
      let byte = hole.contains(index) ? 0 : bytes[index]
      sum = table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] ^ (sum >> 8)
    }
    return ~sum
  }
}

// SPDX-License-Identifier: Apache-2.0
// Identifiers and labels as blkid(8) and udev print them, because that is what people put into
// root=.

import WireFormat

enum VolumeText {
  private static let hexadecimal = Array("0123456789abcdef".utf8)

  static func hexadecimal(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var text: [UInt8] = []
    for byte in bytes { text += [hexadecimal[Int(byte >> 4)], hexadecimal[Int(byte & 15)]] }
    return text
  }

  /// 16 bytes in their order; nil when all are zero: there is no identifier.
  static func uuid(_ bytes: [UInt8]) -> ByteString? {
    guard bytes.count == 16, bytes.contains(where: { $0 != 0 }) else { return nil }
    var text: [UInt8] = []
    for (index, byte) in bytes.enumerated() {
      if index == 4 || index == 6 || index == 8 || index == 10 { text.append(0x2d) }
      text += hexadecimal([byte])
    }
    return ByteString(text)
  }

  /// The first three fields are little-endian. Source: UEFI 2.10, appendix A.
  static func guid(_ bytes: [UInt8]) -> ByteString? {
    guard bytes.count == 16 else { return nil }
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
    return uuid(order.map { bytes[$0] })
  }

  /// Up to the first NUL, without blanks at the end; nil when nothing is left.
  static func label(_ field: [UInt8]) -> ByteString? {
    var bytes = field[...]
    if let end = bytes.firstIndex(of: 0) { bytes = bytes[..<end] }
    while let last = bytes.last, last == 0x20 || (last >= 0x09 && last <= 0x0d) {
      bytes = bytes.dropLast()
    }
    return bytes.isEmpty ? nil : ByteString(bytes)
  }

  /// Little-endian UTF-16 up to its NUL, as UTF-8; half a pair becomes U+FFFD.
  static func utf16(_ field: [UInt8]) -> ByteString? {
    var units: [UInt16] = []
    for offset in stride(from: 0, to: field.count - 1, by: 2) {
      let unit = UInt16(field[offset]) | UInt16(field[offset + 1]) << 8
      if unit == 0 { break }
      units.append(unit)
    }
    var text: [UInt8] = []
    var index = 0
    while index < units.count {
      var scalar = UInt32(units[index])
      index += 1
      if scalar >> 11 == 0x1b {
        if scalar < 0xdc00, index < units.count, units[index] >> 10 == 0x37 {
          scalar = 0x10000 + (scalar & 0x3ff) << 10 + UInt32(units[index] & 0x3ff)
          index += 1
        } else {
          scalar = 0xfffd
        }
      }
      append(scalar, to: &text)
    }
    return label(text)
  }

  private static func append(_ scalar: UInt32, to text: inout [UInt8]) {
    func tail(_ shift: UInt32) -> UInt8 { 0x80 | UInt8(truncatingIfNeeded: scalar >> shift) & 0x3f }
    if scalar < 0x80 {
      text.append(UInt8(truncatingIfNeeded: scalar))
    } else if scalar < 0x800 {
      text += [0xc0 | UInt8(truncatingIfNeeded: scalar >> 6), tail(0)]
    } else if scalar < 0x10000 {
      text += [0xe0 | UInt8(truncatingIfNeeded: scalar >> 12), tail(6), tail(0)]
    } else {
      text += [0xf0 | UInt8(truncatingIfNeeded: scalar >> 18), tail(12), tail(6), tail(0)]
    }
  }
}

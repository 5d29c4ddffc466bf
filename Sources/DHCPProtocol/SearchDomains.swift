// SPDX-License-Identifier: Apache-2.0
// Option 119: domain names as DNS has them on the wire, with pointers into the option itself.
// Source: RFC 3397, section 2; RFC 1035, section 4.1.4.

import WireFormat

enum SearchDomains {
  static let countMaximum = 16
  static let nameByteCountMaximum = 253
  static let labelByteCountMaximum = 63

  /// Names with dots between and none at the end, at most `countMaximum`; nil when one of them is
  /// malformed. Bytes that would need an escape in a resolver's file make a name malformed.
  static func decode(_ bytes: [UInt8]) -> [ByteString]? {
    var names: [ByteString] = []
    var index = 0
    while index < bytes.count, names.count < countMaximum {
      guard let name = name(bytes, at: &index) else { return nil }
      if !name.isEmpty { names.append(name) }
    }
    return names
  }

  /// Reads a name and moves past it. A pointer points before the part that it ends, so that there
  /// is no loop.
  private static func name(_ bytes: [UInt8], at index: inout Int) -> ByteString? {
    var text: [UInt8] = []
    var at = index
    var limit = index
    var end: Int?
    while at < bytes.count {
      let length = Int(bytes[at])
      if length == 0 {
        index = end ?? at + 1
        return ByteString(text)
      }
      if length >= 0xc0 {
        guard at + 1 < bytes.count else { return nil }
        let target = (length & 0x3f) << 8 | Int(bytes[at + 1])
        guard target < limit else { return nil }
        end = end ?? at + 2
        at = target
        limit = target
        continue
      }
      guard length <= labelByteCountMaximum, length < bytes.count - at,
        text.count + length + 1 <= nameByteCountMaximum
      else { return nil }
      if !text.isEmpty { text.append(0x2e) }
      for byte in bytes[(at + 1)...(at + length)] {
        let isDigit = byte >= 0x30 && byte <= 0x39
        let isLetter = byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a
        guard isDigit || isLetter || byte == 0x2d || byte == 0x5f else { return nil }
        text.append(byte)
      }
      at += 1 + length
    }
    return nil
  }
}

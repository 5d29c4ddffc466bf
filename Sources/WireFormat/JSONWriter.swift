// SPDX-License-Identifier: Apache-2.0
// JSON, written and never read: plans and status for scripts. Works on bytes, because Embedded
// Swift has no Codable, and gives valid JSON for any bytes: what is not UTF-8 becomes U+FFFD, as it
// would in any reader. Source: RFC 8259; well-formed UTF-8 as in RFC 3629, section 4.

/// Writes one value, which may be an object or a list. Whoever calls opens and closes in pairs.
public struct JSONWriter: Sendable {
  /// What has been written; valid JSON once all that was opened is closed.
  public private(set) var bytes: [UInt8] = []
  /// Whether the next member or element stands behind another one.
  private var needsComma = false

  /// For one value of any kind.
  public init() {}

  public mutating func beginObject() { open(0x7b) }
  public mutating func endObject() { close(0x7d) }
  public mutating func beginArray() { open(0x5b) }
  public mutating func endArray() { close(0x5d) }

  /// The name of the member whose value is written next.
  public mutating func key(_ name: String) {
    string(ByteString(name))
    bytes.append(0x3a)
    needsComma = false
  }

  public mutating func null() { literal("null") }
  public mutating func boolean(_ value: Bool) { literal(value ? "true" : "false") }
  public mutating func number(_ value: Int64) { literal("\(value)") }
  public mutating func number(_ value: UInt64) { literal("\(value)") }
  public mutating func string(_ text: String) { string(ByteString(text)) }

  /// Escaped; a byte that is no part of well-formed UTF-8 becomes U+FFFD.
  public mutating func string(_ text: ByteString) {
    separate()
    bytes.append(0x22)
    let source = text.bytes
    var index = 0
    while index < source.count {
      let byte = source[index]
      if byte < 0x80 {
        appendEscaped(byte)
        index += 1
        continue
      }
      let length = Self.sequenceLength(source, at: index)
      if length == 0 {
        bytes += [0xef, 0xbf, 0xbd]
        index += 1
      } else {
        bytes += source[index..<(index + length)]
        index += length
      }
    }
    bytes.append(0x22)
    needsComma = true
  }

  // MARK: Members in one call

  /// A key and its value; null for nil.
  public mutating func member(_ name: String, _ value: ByteString?) {
    key(name)
    if let value { string(value) } else { null() }
  }

  /// A key and its value; null for nil.
  public mutating func member(_ name: String, _ value: UInt32?) {
    key(name)
    if let value { number(UInt64(value)) } else { null() }
  }

  /// A key and its value; null for nil.
  public mutating func member(_ name: String, _ value: Bool?) {
    key(name)
    if let value { boolean(value) } else { null() }
  }

  // MARK: Pieces

  private mutating func open(_ bracket: UInt8) {
    separate()
    bytes.append(bracket)
    needsComma = false
  }

  private mutating func close(_ bracket: UInt8) {
    bytes.append(bracket)
    needsComma = true
  }

  private mutating func literal(_ text: String) {
    separate()
    bytes += Array(text.utf8)
    needsComma = true
  }

  private mutating func separate() {
    if needsComma { bytes.append(0x2c) }
  }

  private mutating func appendEscaped(_ byte: UInt8) {
    switch byte {
    case 0x22, 0x5c: bytes += [0x5c, byte]
    case 0x0a: bytes += [0x5c, 0x6e]
    case 0x09: bytes += [0x5c, 0x74]
    case 0x0d: bytes += [0x5c, 0x72]
    case 0..<0x20, 0x7f:
      let digits = Array("0123456789abcdef".utf8)
      bytes += [0x5c, 0x75, 0x30, 0x30, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    default: bytes.append(byte)
    }
  }

  /// How many bytes the UTF-8 sequence at `index` has, 2 to 4; 0 when it is not well-formed.
  private static func sequenceLength(_ source: [UInt8], at index: Int) -> Int {
    let first = source[index]
    let length: Int
    var second: ClosedRange<UInt8> = 0x80...0xbf
    switch first {
    case 0xc2...0xdf: length = 2
    case 0xe0...0xef:
      length = 3
      if first == 0xe0 { second = 0xa0...0xbf }
      if first == 0xed { second = 0x80...0x9f }
    case 0xf0...0xf4:
      length = 4
      if first == 0xf0 { second = 0x90...0xbf }
      if first == 0xf4 { second = 0x80...0x8f }
    default: return 0
    }
    guard source.count - index >= length, second.contains(source[index + 1]) else { return 0 }
    for offset in 2..<max(2, length) where source[index + offset] & 0xc0 != 0x80 { return 0 }
    return length
  }
}

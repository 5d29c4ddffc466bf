// SPDX-License-Identifier: Apache-2.0
// Parts of one value, without copies. The indices of a part are offsets in the whole value, so a
// grammar that stops somewhere can always say at which character.

/// A part of a parameter's value. `startIndex` is its offset in that value.
typealias Text = ArraySlice<UInt8>

extension Text {
  init(_ text: String) { self = Array(text.utf8)[...] }

  func isEqual(to literal: String) -> Bool {
    count == literal.utf8.count && elementsEqual(literal.utf8)
  }
  func hasPrefix(_ literal: String) -> Bool { starts(with: literal.utf8) }

  /// The parts before and after the first `separator`, or nil when there is none.
  func cut(at separator: UInt8) -> (head: Text, tail: Text)? {
    guard let index = firstIndex(of: separator) else { return nil }
    return (self[..<index], self[(index + 1)...])
  }

  /// The parts before and after the last `separator`, or nil when there is none.
  func cutLast(at separator: UInt8) -> (head: Text, tail: Text)? {
    guard let index = lastIndex(of: separator) else { return nil }
    return (self[..<index], self[(index + 1)...])
  }

  /// Every field between separators, empty ones too, at most `limit`; the last takes the rest.
  func fields(separatedBy separator: UInt8, limit: Int = .max) -> [Text] {
    var fields: [Text] = []
    var rest = self
    while fields.count < limit - 1, let (head, tail) = rest.cut(at: separator) {
      fields.append(head)
      rest = tail
    }
    fields.append(rest)
    return fields
  }

  /// Cut at colons outside brackets, which stay: the fields of `ip=`.
  var colonFields: [Text] {
    var fields: [Text] = []
    var start = startIndex
    var isInBrackets = false
    for index in indices {
      switch self[index] {
      case .openBracket: isInBrackets = true
      case .closeBracket: isInBrackets = false
      case .colon where !isInBrackets:
        fields.append(self[start..<index])
        start = index + 1
      default: break
      }
    }
    fields.append(self[start...])
    return fields
  }

  /// How many bytes at the beginning are decimal digits.
  var leadingDigitCount: Int {
    var index = startIndex
    while index < endIndex, self[index].isDigit { index += 1 }
    return index - startIndex
  }

  var isAllDigits: Bool { !isEmpty && leadingDigitCount == count }

  /// The value of decimal digits and nothing else; nil for anything else or above `maximum`.
  func decimal(maximum: UInt64) -> UInt64? {
    guard isAllDigits else { return nil }
    var value: UInt64 = 0
    for byte in self {
      let (tenfold, overflow) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = tenfold.addingReportingOverflow(UInt64(byte &- 0x30))
      guard !overflow, !carry, sum <= maximum else { return nil }
      value = sum
    }
    return value
  }

  /// Where `://` begins, when everything before it could be the scheme of a URI.
  /// Source: RFC 3986, section 3.1.
  var schemeEnd: Index? {
    guard let colon = firstIndex(of: .colon), colon > startIndex,
      self[colon...].hasPrefix("://")
    else { return nil }
    for byte in self[..<colon] {
      guard byte.isLetter || byte.isDigit || byte == .plus || byte == .minus || byte == .dot else {
        return nil
      }
    }
    return colon
  }
}

/// The bytes that mean something in the grammars.
extension UInt8 {
  static var slash: UInt8 { 0x2f }
  static var colon: UInt8 { 0x3a }
  static var comma: UInt8 { 0x2c }
  static var dot: UInt8 { 0x2e }
  static var minus: UInt8 { 0x2d }
  static var plus: UInt8 { 0x2b }
  static var underscore: UInt8 { 0x5f }
  static var percent: UInt8 { 0x25 }
  static var equals: UInt8 { 0x3d }
  static var at: UInt8 { 0x40 }
  static var quote: UInt8 { 0x22 }
  static var apostrophe: UInt8 { 0x27 }
  static var backslash: UInt8 { 0x5c }
  static var openBracket: UInt8 { 0x5b }
  static var closeBracket: UInt8 { 0x5d }
  static var newline: UInt8 { 0x0a }
  static var space: UInt8 { 0x20 }

  var isDigit: Bool { self >= 0x30 && self <= 0x39 }
  var isLetter: Bool { (self | 0x20) >= 0x61 && (self | 0x20) <= 0x7a }

  /// The value of a hexadecimal digit.
  var hexadecimalDigit: UInt8? {
    if isDigit { return self - 0x30 }
    let small = self | 0x20
    return small >= 0x61 && small <= 0x66 ? small - 0x57 : nil
  }

  /// `isspace()` of the kernel, which counts Latin-1's no-break space. Source: Linux `lib/ctype.c`.
  var isKernelSpace: Bool { (self >= 0x09 && self <= 0x0d) || self == 0x20 || self == 0xa0 }
}

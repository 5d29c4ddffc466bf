// SPDX-License-Identifier: Apache-2.0
// The parts that all grammars share: a host, a bracketed address, a port.

import WireFormat

enum ServerGrammar {
  /// Source: RFC 1035, section 2.3.4: names have at most 255 octets on the wire.
  static let hostNameByteCountMaximum = 253
  static let labelByteCountMaximum = 63
  /// `IFNAMSIZ` without its NUL. Source: Linux `include/uapi/linux/if.h`.
  static let scopeByteCountMaximum = 15

  /// A host without a port and without brackets; nil when it is left to the lease (`""`, `dhcp`).
  static func leaseOrHost(_ text: Text) throws(SyntaxError) -> ServerAddress? {
    if text.isEmpty || text.isEqual(to: "dhcp") { return nil }
    if let address = ipv6(text) { return address }
    guard !text.isAllDigits else { throw SyntaxError(at: text, expected: .hostNotNumber) }
    return try host(text)
  }

  /// An IPv4 address or a host name. `1234` is a host name here.
  static func host(_ text: Text) throws(SyntaxError) -> ServerAddress {
    if let address = IPv4Address(text) { return .ipv4(address) }
    if isMeantAsIPv4(text) { throw SyntaxError(at: text, expected: .ipv4) }
    if let index = firstOffence(inHostName: text) {
      throw SyntaxError(at: text[index...], expected: text.isEmpty ? .server : .hostName)
    }
    return .hostName(ByteString(text))
  }

  /// Host names that a lease gives are checked the same way, and more: their last part is no number.
  static func strictHostName(_ text: Text) -> ByteString? {
    guard firstOffence(inHostName: text) == nil else { return nil }
    let last = text.cutLast(at: .dot)?.tail ?? text
    return last.isAllDigits ? nil : ByteString(text)
  }

  static func isHostName(_ text: Text) -> Bool { firstOffence(inHostName: text) == nil }

  /// Digits and dots only, with a dot: somebody mistyped an address.
  private static func isMeantAsIPv4(_ text: Text) -> Bool {
    var hasDot = false
    for byte in text {
      if byte == .dot { hasDot = true } else if !byte.isDigit { return false }
    }
    return hasDot
  }

  private static func firstOffence(inHostName text: Text) -> Int? {
    guard !text.isEmpty, text.count <= hostNameByteCountMaximum else { return text.startIndex }
    var labelStart = text.startIndex
    for index in text.indices {
      let byte = text[index]
      if byte == .dot {
        guard index > labelStart else { return index }
        labelStart = index + 1
      } else {
        guard byte.isLetter || byte.isDigit || byte == .minus || byte == .underscore else {
          return index
        }
        guard index - labelStart < labelByteCountMaximum else { return labelStart }
      }
    }
    return nil
  }

  /// An IPv6 address without brackets, perhaps with `%scope`.
  static func ipv6(_ text: Text) -> ServerAddress? {
    guard text.contains(.colon) else { return nil }
    guard let (address, scope) = text.cut(at: .percent) else {
      return IPv6Address(text).map { .ipv6($0, scope: ByteString()) }
    }
    guard !scope.isEmpty, scope.count <= scopeByteCountMaximum, isInterfaceName(scope),
      let value = IPv6Address(address)
    else { return nil }
    return .ipv6(value, scope: ByteString(scope))
  }

  /// What Linux lets an interface be called. Source: `dev_valid_name()` in Linux `net/core/dev.c`.
  static func isInterfaceName(_ text: Text) -> Bool {
    guard !text.isEmpty, text.count <= scopeByteCountMaximum, !text.isEqual(to: "."),
      !text.isEqual(to: "..")
    else { return false }
    for byte in text {
      if byte == .slash || byte == .colon || byte.isKernelSpace || byte == 0 { return false }
    }
    return true
  }

  /// `[` IPv6 `]` and what follows it.
  static func bracketed(_ text: Text) throws(SyntaxError) -> (server: ServerAddress, rest: Text) {
    guard let close = text.firstIndex(of: .closeBracket) else {
      throw SyntaxError(at: text, expected: .closingBracket)
    }
    let inside = text[(text.startIndex + 1)..<close]
    guard let address = ipv6(inside) else { throw SyntaxError(at: inside, expected: .ipv6) }
    return (address, text[(close + 1)...])
  }

  static func port(_ text: Text) throws(SyntaxError) -> UInt16 {
    guard let port = text.decimal(maximum: 65535), port > 0 else {
      throw SyntaxError(at: text, expected: .port)
    }
    return UInt16(truncatingIfNeeded: port)
  }

  static func number(
    _ text: Text, minimum: UInt64 = 0, maximum: UInt64
  ) throws(SyntaxError) -> UInt32 {
    guard let value = text.decimal(maximum: maximum), value >= minimum else {
      throw SyntaxError(at: text, expected: .count(minimum: minimum, maximum: maximum))
    }
    return UInt32(truncatingIfNeeded: value)
  }
}

extension ByteString {
  /// Whether it can be the name of a machine or a domain: letters, digits, `-` and `_` between dots.
  public var isHostName: Bool { ServerGrammar.isHostName(bytes[...]) }
}

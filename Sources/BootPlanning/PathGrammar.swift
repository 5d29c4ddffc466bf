// SPDX-License-Identifier: Apache-2.0
// `rootlink.path=` and `rootlink.replica=`: further ways to the server of the first device, and
// other servers that hold the same image.
//
//   [SOURCE@]SERVER[:PORT]      SOURCE an address of this machine; IPv6 addresses in brackets

import WireFormat

enum PathGrammar {
  /// The kernel's rnbd driver takes as many.
  static let pathCountMaximum = 6

  /// Nil port: that of the device's own server.
  static func path(
    _ value: Text
  ) throws(SyntaxError) -> (source: ServerAddress?, server: ServerAddress, port: UInt16?) {
    var source: ServerAddress?
    var rest = value
    if let (before, after) = value.cut(at: .at) {
      source = try address(before)
      rest = after
    }
    if rest.first == .openBracket {
      let (server, after) = try ServerGrammar.bracketed(rest)
      guard !after.isEmpty else { return (source, server, nil) }
      guard after.first == .colon else { throw SyntaxError(at: after, expected: .afterBracket) }
      return (source, server, try ServerGrammar.port(after.dropFirst()))
    }
    guard let (host, port) = rest.cut(at: .colon) else {
      return (source, try ServerGrammar.host(rest), nil)
    }
    guard !port.contains(.colon) else { throw SyntaxError(at: rest, expected: .bracketedIPv6) }
    return (source, try ServerGrammar.host(host), try ServerGrammar.port(port))
  }

  private static func address(_ text: Text) throws(SyntaxError) -> ServerAddress {
    if text.first == .openBracket {
      let (address, rest) = try ServerGrammar.bracketed(text)
      guard rest.isEmpty else { throw SyntaxError(at: rest, expected: .serverWithoutPort) }
      return address
    }
    if let address = IPv4Address(text) { return .ipv4(address) }
    throw SyntaxError(at: text, expected: text.contains(.colon) ? .bracketedIPv6 : .ipv4)
  }
}

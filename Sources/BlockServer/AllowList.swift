// SPDX-License-Identifier: Apache-2.0
// Who may see an export: networks in CIDR notation, and `unix` for whoever connects through a socket
// in the file system, whose permissions are the real guard there.

import WireFormat

/// `192.0.2.0/24`, `2001:db8::/32`, one address, or `unix`.
public enum ClientNetwork: Equatable, Sendable {
  /// 4 or 16 octets, whose bits behind the first `prefixLength` are 0.
  case network(octets: [UInt8], prefixLength: Int)
  /// Whoever connects through a socket in this machine's file system.
  case unix

  /// Why a text names no network.
  public enum ParseError: Error, Equatable, Sendable {
    /// The part in front of the slash is no numeric address; also one with an interface behind `%`.
    case address(ByteString)
    /// What follows the slash is no number up to `maximum`, or is said of an IPv4 address in IPv6's
    /// form.
    case prefixLength(ByteString, maximum: Int)
    /// The address has bits behind its prefix; `meant`: the network that it lies in.
    case hostBits(ByteString, meant: ByteString)

    /// What is wrong with the text, and how to write it.
    public var report: (reason: String, advice: String) {
      let forms = "write an address, NETWORK/BITS such as 192.0.2.0/24 or 2001:db8::/32, or unix"
      return switch self {
      case .address(let text): ("'\(text.printable)' is no network", forms)
      case .prefixLength(let text, let maximum):
        ("'\(text.printable)' does not end with a number of bits from 0 to \(maximum)", forms)
      case .hostBits(let text, let meant):
        (
          "'\(text.printable)' has bits set behind its prefix",
          "write \(meant.printable) for the network, or the address alone"
        )
      }
    }
  }

  /// Parses what the configuration or `allow=` has; a network is refused when its host bits are not
  /// 0.
  public init(_ text: ByteString) throws(ParseError) {
    if text == "unix" {
      self = .unix
      return
    }
    let parts = text.cut(at: UInt8(ascii: "/"))
    let octets: [UInt8]
    // An interface is no part of a network.
    guard !text.bytes.contains(UInt8(ascii: "%")) else { throw .address(text) }
    switch ClientAddress(host: parts?.head ?? text) {
    case .ipv4(let four): octets = four
    case .ipv6(let sixteen): octets = sixteen
    default: throw .address(text)
    }
    let maximum = octets.count * 8
    var length = maximum
    if let bits = parts?.tail {
      // A prefix of an IPv4 address that was written as an IPv6 one would count other bits.
      let isMapped = octets.count == 4 && text.bytes.contains(UInt8(ascii: ":"))
      guard !isMapped, let number = bits.decimal(maximum: UInt64(maximum)) else {
        throw .prefixLength(text, maximum: maximum)
      }
      length = Int(number)
    }
    let masked = octets.enumerated().map { $1 & Self.mask(of: $0, prefixLength: length) }
    guard masked == octets else {
      throw .hostBits(text, meant: ClientAddress.text(of: masked) + ByteString("/\(length)"))
    }
    self = .network(octets: octets, prefixLength: length)
  }

  /// The bits of octet `index` that belong to the prefix.
  private static func mask(of index: Int, prefixLength: Int) -> UInt8 {
    let bits = min(max(prefixLength - index * 8, 0), 8)
    return bits == 0 ? 0 : UInt8.max << UInt8(8 - bits)
  }

  func contains(_ client: ClientAddress) -> Bool {
    switch (self, client) {
    case (.unix, .local): return true
    case (.network(let octets, let length), .ipv4(let address)),
      (.network(let octets, let length), .ipv6(let address)):
      guard octets.count == address.count else { return false }
      for (index, octet) in octets.enumerated() {
        guard address[index] & Self.mask(of: index, prefixLength: length) == octet else {
          return false
        }
      }
      return true
    default: return false
    }
  }

  /// As it can be written again.
  public var text: ByteString {
    switch self {
    case .unix: "unix"
    case .network(let octets, let length):
      ClientAddress.text(of: octets)
        + (length == octets.count * 8 ? "" : ByteString("/\(length)"))
    }
  }
}

/// The clients that an export is for.
public struct AllowList: Equatable, Sendable {
  /// Nil: everybody. Empty: nobody.
  public var networks: [ClientNetwork]?

  /// No network is named: the list of an export for which nothing is written.
  public static let everybody = AllowList(networks: nil)

  /// See `networks` for nil and for an empty list.
  public init(networks: [ClientNetwork]?) { self.networks = networks }

  /// Whether the client lies in one of the networks. `unknown` lies in none, and is let in by
  /// `everybody` alone.
  public func allows(_ client: ClientAddress) -> Bool {
    guard let networks else { return true }
    return networks.contains { $0.contains(client) }
  }
}

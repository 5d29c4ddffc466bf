// SPDX-License-Identifier: Apache-2.0
// What an offer or an acknowledgement says, in the terms of who configures an interface with it.
//
// What a lease cannot be without must be right, or there is no lease: a type, a server, an
// address, a time. Everything else is left out when it is malformed, and `unusable` names it, so
// that one odd option of a server does not keep a machine from booting.

import BootPlanning
import WireFormat

/// A route of option 121, or the default route that option 3 means.
public struct DHCPRoute: Equatable, Sendable {
  /// Without bits behind the prefix.
  public var destination: IPv4Address
  /// 0 to 32.
  public var prefixLength: UInt8
  /// Nil: the destination is on the link itself.
  public var gateway: IPv4Address?

  public init(destination: IPv4Address, prefixLength: UInt8, gateway: IPv4Address?) {
    self.destination = destination
    self.prefixLength = prefixLength
    self.gateway = gateway
  }
}

/// What one offer or acknowledgement gives. Nil and empty: the server said nothing, or nothing that
/// can be used.
public struct DHCPLease: Equatable, Sendable {
  /// The lease never ends. Source: RFC 2131, section 3.3.
  public static let infiniteSeconds = UInt32.max
  /// The first so many of option 6 count; further ones are left out.
  public static let nameServerCountMaximum = 8
  /// An option 121 with more counts as malformed.
  public static let routeCountMaximum = 64
  /// As in a lease that another client left behind.
  public static let textByteCountMaximum = 4096 + 512

  /// `yiaddr`: neither 0.0.0.0 nor 255.255.255.255, and below 224.0.0.0.
  public var address: IPv4Address
  /// Of the network around `address`, 1 to 32: option 1, else what the class of the address says.
  public var prefixLength: UInt8
  /// Option 28, not compared with the prefix.
  public var broadcast: IPv4Address?
  /// In the server's order. From option 121 alone when there is one, else a default route through
  /// the first router. Source: RFC 3442, section "DHCP Client Behavior".
  public var routes: [DHCPRoute] = []
  /// Option 6, the preferred one first. Source: RFC 2132, section 3.8.
  public var nameServers: [IPv4Address] = []
  /// Option 15: one name, or several with spaces between.
  public var domainName: ByteString?
  /// Written out with dots. Source: RFC 3397.
  public var searchDomains: [ByteString] = []
  /// Option 12.
  public var hostName: ByteString?
  /// At least 68. Source: RFC 2132, section 5.1.
  public var mtuByteCount: UInt16?
  /// Option 17: 1 to `textByteCountMaximum` bytes without NUL, and otherwise not looked at.
  public var rootPath: ByteString?
  /// `siaddr`.
  public var nextServer: IPv4Address?
  /// Option 66, else `sname`.
  public var serverName: ByteString?
  /// Option 67, else `file`.
  public var bootFile: ByteString?
  /// Option 54, never 0.0.0.0: whose lease it is; the root may be served by another.
  public var serverIdentifier: IPv4Address
  /// Above 0; `infiniteSeconds` never ends.
  public var seconds: UInt32
  /// When to ask the server again, and when to ask any server, in seconds from the beginning:
  /// always `renewalSeconds` < `rebindingSeconds` < `seconds`, or all equal when these are few.
  /// Only left for others to read: nobody here renews.
  public var renewalSeconds: UInt32
  public var rebindingSeconds: UInt32
  /// Options that were there and malformed.
  public var unusable: [UInt8] = []

  /// The first gateway of a default route.
  public var gateway: IPv4Address? {
    for route in routes where route.prefixLength == 0 && route.gateway != nil {
      return route.gateway
    }
    return nil
  }

  /// Nil when `message` gives no lease.
  public init?(_ message: DHCPMessage) {
    guard message.yourAddress.namesAHost, !message.yourAddress.isMulticast,
      let server = message.option(.serverIdentifier).flatMap(Self.number), server != 0,
      let seconds = message.option(.leaseTime).flatMap(Self.number), seconds > 0
    else { return nil }
    address = message.yourAddress
    serverIdentifier = IPv4Address(rawValue: server)
    self.seconds = seconds
    (renewalSeconds, rebindingSeconds) = Self.times(of: message, lease: seconds)
    guard let length = Self.prefixLength(of: message) else { return nil }
    prefixLength = length
    readNetwork(message)
    readBoot(message)
  }

  private static func number(_ bytes: [UInt8]) -> UInt32? {
    bytes.count == 4 ? bytes.span.bigEndian(UInt32.self, at: 0) : nil
  }

  /// Halfway and seven eighths, unless the server says other times that are in order.
  /// Source: RFC 2131, section 4.4.5.
  private static func times(of message: DHCPMessage, lease: UInt32) -> (UInt32, UInt32) {
    guard lease != infiniteSeconds else { return (lease, lease) }
    let rebinding = message.option(.rebindingTime).flatMap(number)
    let renewal = message.option(.renewalTime).flatMap(number)
    let late = rebinding.flatMap { $0 < lease && $0 > 0 ? $0 : nil } ?? lease - lease / 8
    if let renewal, renewal > 0, renewal < late { return (renewal, late) }
    return (min(lease / 2, late), late)
  }

  /// Without a mask the class of the address decides, as the kernel has it; nil when the mask is
  /// none. Source: `inet_abc_len()` in Linux `net/ipv4/devinet.c`.
  private static func prefixLength(of message: DHCPMessage) -> UInt8? {
    if let bytes = message.option(.subnetMask) {
      guard let mask = number(bytes) else { return nil }
      let length = (~mask).leadingZeroBitCount
      guard length > 0, length == mask.nonzeroBitCount else { return nil }
      return UInt8(truncatingIfNeeded: length)
    }
    switch message.yourAddress.rawValue >> 28 {
    case 0..<8: return 8
    case 8..<12: return 16
    case 12..<14: return 24
    default: return nil
    }
  }

  private mutating func readNetwork(_ message: DHCPMessage) {
    if let bytes = message.option(.broadcastAddress) {
      broadcast = Self.number(bytes).map { IPv4Address(rawValue: $0) }
      if broadcast == nil { note(.broadcastAddress) }
    }
    if let bytes = message.option(.classlessRoutes), let routes = Self.routes(bytes) {
      self.routes = routes
    } else {
      if message.option(.classlessRoutes) != nil { note(.classlessRoutes) }
      readRouters(message)
    }
    if let bytes = message.option(.nameServers) {
      if let servers = Self.addresses(bytes) {
        nameServers = Array(servers.prefix(Self.nameServerCountMaximum))
      } else {
        note(.nameServers)
      }
    }
    if let bytes = message.option(.mtu) {
      let value = bytes.count == 2 ? bytes.span.bigEndian(UInt16.self, at: 0) : 0
      if value >= 68 { mtuByteCount = value } else { note(.mtu) }
    }
    domainName = names(message, .domainName)
    hostName = names(message, .hostName)
    if let bytes = message.option(.searchDomains) {
      if let names = SearchDomains.decode(bytes) {
        searchDomains = names
      } else {
        note(.searchDomains)
      }
    }
  }

  private mutating func readRouters(_ message: DHCPMessage) {
    guard let bytes = message.option(.routers) else { return }
    guard let routers = Self.addresses(bytes) else {
      note(.routers)
      return
    }
    for router in routers where router.namesAHost {
      routes = [DHCPRoute(destination: IPv4Address(rawValue: 0), prefixLength: 0, gateway: router)]
      return
    }
  }

  private mutating func readBoot(_ message: DHCPMessage) {
    rootPath = text(message, .rootPath)
    if message.nextServer.namesAHost { nextServer = message.nextServer }
    serverName = text(message, .serverName) ?? Self.nonEmpty(message.serverName)
    bootFile = text(message, .bootFile) ?? Self.nonEmpty(message.bootFile)
  }

  private static func nonEmpty(_ text: ByteString) -> ByteString? { text.isEmpty ? nil : text }

  private mutating func note(_ code: DHCPOption.Code) { unusable.append(code.rawValue) }

  /// Text up to NULs at the end, which some servers count in. Source: RFC 2132, section 2.
  private mutating func text(_ message: DHCPMessage, _ code: DHCPOption.Code) -> ByteString? {
    guard var bytes = message.option(code) else { return nil }
    while bytes.last == 0 { bytes.removeLast() }
    guard !bytes.isEmpty, bytes.count <= Self.textByteCountMaximum, !bytes.contains(0) else {
      note(code)
      return nil
    }
    return ByteString(bytes)
  }

  /// Names of machines or domains: they become the machine's own, and stand in files of others.
  /// Some servers give several domains, with spaces between.
  private mutating func names(_ message: DHCPMessage, _ code: DHCPOption.Code) -> ByteString? {
    guard let text = text(message, code) else { return nil }
    for name in text.fields(separatedBy: UInt8(ascii: " ")) where !name.isHostName {
      note(code)
      return nil
    }
    return text
  }

  /// One address at least, and nothing behind the last.
  private static func addresses(_ bytes: [UInt8]) -> [IPv4Address]? {
    guard !bytes.isEmpty, bytes.count.isMultiple(of: 4) else { return nil }
    var addresses: [IPv4Address] = []
    for offset in stride(from: 0, to: bytes.count, by: 4) {
      addresses.append(IPv4Address(rawValue: bytes.span.bigEndian(UInt32.self, at: offset)))
    }
    return addresses
  }

  /// A length, as many bytes of the destination as it needs, a router; again and again.
  /// Source: RFC 3442, section "Classless Route Option Format".
  static func routes(_ bytes: [UInt8]) -> [DHCPRoute]? {
    var routes: [DHCPRoute] = []
    var index = 0
    while index < bytes.count {
      let length = bytes[index]
      let byteCount = (Int(length) + 7) / 8
      guard length <= 32, bytes.count - index >= 1 + byteCount + 4,
        routes.count < routeCountMaximum
      else { return nil }
      var destination: UInt32 = 0
      for offset in 0..<byteCount {
        destination |= UInt32(bytes[index + 1 + offset]) << UInt32(24 - 8 * offset)
      }
      if length < 32 { destination &= ~(UInt32.max >> UInt32(length)) }
      let router = bytes.span.bigEndian(UInt32.self, at: index + 1 + byteCount)
      routes.append(
        DHCPRoute(
          destination: IPv4Address(rawValue: destination), prefixLength: length,
          gateway: router == 0 ? nil : IPv4Address(rawValue: router)))
      index += 1 + byteCount + 4
    }
    return routes.isEmpty ? nil : routes
  }
}

extension IPv4Address {
  /// Source: RFC 1112, section 4. Above them there are no addresses of hosts either.
  var isMulticast: Bool { rawValue >> 28 >= 14 }
}

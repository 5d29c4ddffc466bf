// SPDX-License-Identifier: Apache-2.0
// `ip=` for who configures the interface himself, which is PID 1 of our own; a plan needs less of
// it. Three forms, told apart by their fields:
//
//   method                                                                     the kernel's, dracut's
//   interface:method[:[mtu][:mac]]                                                          dracut's
//   client:server:gateway:netmask:host:interface:method[:dns0[:dns1[:ntp0]]]            the kernel's
//   client:peer:gateway:netmask:host:interface:method[:[mtu][:mac]]                        dracut's
//
// An address of IPv6 stands in brackets, and its netmask is the length of the prefix.
// Source: Linux `Documentation/admin-guide/nfs/nfsroot.rst`; dracut.cmdline(7).

import WireFormat

/// An address of either family, and how much of it is the network's.
public struct InterfaceAddress: Equatable, Sendable {
  /// `.ipv4` or `.ipv6`.
  public var address: ServerAddress
  /// Up to 32, or 128.
  public var prefixLength: UInt8

  public init(_ address: ServerAddress, prefixLength: UInt8) {
    self.address = address
    self.prefixLength = prefixLength
  }
}

/// What one `ip=` says. Nil and empty: it says nothing of that.
public struct InterfaceRequest: Equatable, Sendable {
  public enum Method: Equatable, Sendable {
    /// Not to be configured at all.
    case none
    /// The address that it gives; nobody is asked for another.
    case fixed(InterfaceAddress)
    case dhcp  // Of IPv4.
    /// DHCPv6, besides what router advertisements say.
    case dhcp6
    /// Router advertisements alone.
    case routerAdvertisement
    /// Router advertisements, then DHCPv6.
    case either6
    /// The address that the kernel makes by itself, and nothing beyond the link.
    case linkLocal6
  }

  public var method: Method
  /// Nil: whichever has a carrier.
  public var interface: ByteString?
  /// The second field of the kernel's form: who serves the root.
  public var server: IPv4Address?
  /// `.ipv4` or `.ipv6`, of the family of the address.
  public var gateway: ServerAddress?
  /// The fifth field of the kernel's form.
  public var hostName: ByteString?
  /// The eighth and ninth field, those that are not empty or 0.0.0.0.
  public var nameServers: [ServerAddress] = []
  /// The tenth field: one at most.
  public var timeServers: [IPv4Address] = []
  /// 68 to 65,536.
  public var mtuByteCount: UInt32?
  /// Six bytes, to be set.
  public var hardwareAddress: [UInt8]?

  public init(_ method: Method) { self.method = method }
}

/// Reads the value of one `ip=`.
enum InterfaceGrammar {
  /// Up to the name servers and the time server.
  static let fieldCountMaximum = 10
  static let mtuByteCountMinimum: UInt64 = 68  // RFC 791, section 3.2.
  static let mtuByteCountMaximum: UInt64 = 65536

  static func request(from value: Text) throws(SyntaxError) -> InterfaceRequest {
    let fields = value.colonFields
    let first = fields[0]
    if fields.count == 1 {
      if let method = try methodOnly(first) { return InterfaceRequest(method) }
    } else if ServerGrammar.isInterfaceName(first), !isAddress(first),
      method(fields[1]) != nil
    {
      return try dracutForm(fields, of: value)
    }
    return try kernelForm(fields, of: value)
  }

  private static func isAddress(_ field: Text) -> Bool {
    field.isEmpty || field.first == .openBracket
      || IPv4Address(field.cut(at: .slash)?.head ?? field) != nil
  }

  /// Nil for what is no method. `on`, `any`, `both`, `bootp` and an empty field ask for whatever
  /// there is: DHCP. RARP is gone from most kernels and was never ours.
  private static func method(_ field: Text) -> InterfaceRequest.Method? {
    let names: [(String, InterfaceRequest.Method)] = [
      ("off", .none), ("none", .none), ("static", .none), ("dhcp", .dhcp), ("on", .dhcp),
      ("any", .dhcp), ("both", .dhcp), ("bootp", .dhcp), ("single-dhcp", .dhcp),
      ("dhcp6", .dhcp6), ("auto6", .routerAdvertisement), ("either6", .either6),
      ("link6", .linkLocal6),
    ]
    for (name, method) in names where field.isEqual(to: name) { return method }
    return nil
  }

  /// `ip=dhcp`; nil when the field is an address.
  private static func methodOnly(_ field: Text) throws(SyntaxError) -> InterfaceRequest.Method? {
    if field.isEmpty { return .dhcp }
    if let method = method(field) { return method }
    if isAddress(field) { return nil }
    throw SyntaxError(at: field, expected: .addressMethod)
  }

  private static func dracutForm(
    _ fields: [Text], of value: Text
  ) throws(SyntaxError) -> InterfaceRequest {
    guard let method = method(fields[1]) else {
      throw SyntaxError(at: fields[1], expected: .addressMethod)
    }
    var request = InterfaceRequest(method)
    request.interface = ByteString(fields[0])
    try readLinkFields(Array(fields.dropFirst(2)), of: value, into: &request)
    return request
  }

  /// `mtu` and `mac`, either of which may be empty. A `mac` with colons has come apart at them, so
  /// it is all the rest of the value.
  private static func readLinkFields(
    _ fields: [Text], of value: Text, into request: inout InterfaceRequest
  ) throws(SyntaxError) {
    if let field = fields.first, !field.isEmpty {
      request.mtuByteCount = try ServerGrammar.number(
        field, minimum: mtuByteCountMinimum, maximum: mtuByteCountMaximum)
    }
    guard fields.count > 1 else { return }
    let rest = value[fields[1].startIndex...]
    guard !rest.isEmpty else { return }
    guard let address = HardwareAddress.ethernet(rest) else {
      throw SyntaxError(at: rest, expected: .macAddress)
    }
    request.hardwareAddress = address
  }

  private static func kernelForm(
    _ fields: [Text], of value: Text
  ) throws(SyntaxError) -> InterfaceRequest {
    func field(_ number: Int) -> Text? {
      number < fields.count && !fields[number].isEmpty ? fields[number] : nil
    }
    var request = InterfaceRequest(.dhcp)
    if let text = field(6) {
      guard let method = method(text) else {
        throw SyntaxError(at: text, expected: .addressMethod)
      }
      request.method = method
    }
    var isVersion6 = false
    if let text = field(0) {
      let address = try address(text, netmask: field(3))
      // The kernel asks nobody when it is told an address, whatever the method says.
      request.method = .fixed(address)
      if case .ipv6 = address.address { isVersion6 = true }
    }
    if let text = field(1), !isVersion6 {
      guard let server = IPv4Address(text) else { throw SyntaxError(at: text, expected: .ipv4) }
      if server.namesAHost { request.server = server }
    }
    if let text = field(2) {
      let gateway = try host(text)
      if case .ipv6 = gateway, !isVersion6 { throw SyntaxError(at: text, expected: .ipv4) }
      if case .ipv4 = gateway, isVersion6 { throw SyntaxError(at: text, expected: .ipv6) }
      if gateway != .ipv4(IPv4Address(rawValue: 0)) { request.gateway = gateway }
    }
    if let text = field(4) {
      guard let name = ServerGrammar.strictHostName(text) else {
        throw SyntaxError(at: text, expected: .hostName)
      }
      request.hostName = name
    }
    if let text = field(5) {
      guard ServerGrammar.isInterfaceName(text) else {
        throw SyntaxError(at: text, expected: .interfaceName)
      }
      request.interface = ByteString(text)
    }
    try readRest(Array(fields.dropFirst(7)), of: value, into: &request)
    return request
  }

  /// Behind the method: name servers and a time server, or MTU and hardware address.
  private static func readRest(
    _ fields: [Text], of value: Text, into request: inout InterfaceRequest
  ) throws(SyntaxError) {
    if let first = fields.first, first.isAllDigits || (first.isEmpty && fields.count > 3) {
      return try readLinkFields(fields, of: value, into: &request)
    }
    if fields.count == 2, fields[0].isEmpty, HardwareAddress.ethernet(fields[1]) != nil {
      return try readLinkFields(fields, of: value, into: &request)
    }
    guard fields.count <= fieldCountMaximum - 7 else {
      throw SyntaxError(at: fields[fieldCountMaximum - 7], expected: .endOfValue)
    }
    for text in fields.prefix(2) where !text.isEmpty {
      let server = try host(text)
      if server != .ipv4(IPv4Address(rawValue: 0)) { request.nameServers.append(server) }
    }
    if fields.count > 2, !fields[2].isEmpty {
      guard let server = IPv4Address(fields[2]) else {
        throw SyntaxError(at: fields[2], expected: .ipv4)
      }
      if server.namesAHost { request.timeServers = [server] }
    }
  }

  /// An address of either family, IPv6 in brackets or not where there is no colon to mistake.
  private static func host(_ text: Text) throws(SyntaxError) -> ServerAddress {
    if text.first == .openBracket {
      let (server, rest) = try ServerGrammar.bracketed(text)
      guard rest.isEmpty else { throw SyntaxError(at: rest, expected: .closingBracket) }
      return server
    }
    guard let address = IPv4Address(text) else { throw SyntaxError(at: text, expected: .ipv4) }
    return .ipv4(address)
  }

  /// The address with the length of its prefix: behind a slash, from the netmask, or what the
  /// kernel would guess from its class.
  private static func address(
    _ text: Text, netmask: Text?
  ) throws(SyntaxError) -> InterfaceAddress {
    let (head, tail) = text.cut(at: .slash) ?? (text, text[text.endIndex...])
    let address = try host(head)
    var isVersion6 = false
    if case .ipv6 = address { isVersion6 = true }
    if head.endIndex < text.endIndex {
      return InterfaceAddress(address, prefixLength: try prefixLength(tail, isVersion6))
    }
    if let netmask {
      return InterfaceAddress(address, prefixLength: try prefixLength(netmask, isVersion6))
    }
    guard case .ipv4(let number) = address else {
      return InterfaceAddress(address, prefixLength: 64)
    }
    switch number.rawValue >> 28 {
    case 0..<8: return InterfaceAddress(address, prefixLength: 8)
    case 8..<12: return InterfaceAddress(address, prefixLength: 16)
    case 12..<14: return InterfaceAddress(address, prefixLength: 24)
    default: throw SyntaxError(at: text, expected: .ipv4)
    }
  }

  private static func prefixLength(_ text: Text, _ isVersion6: Bool) throws(SyntaxError) -> UInt8 {
    if text.isAllDigits {
      let length = try ServerGrammar.number(text, minimum: 1, maximum: isVersion6 ? 128 : 32)
      return UInt8(truncatingIfNeeded: length)
    }
    guard !isVersion6, let mask = IPv4Address(text)?.rawValue else {
      throw SyntaxError(at: text, expected: .netmask)
    }
    let length = (~mask).leadingZeroBitCount
    guard length > 0, length == mask.nonzeroBitCount else {
      throw SyntaxError(at: text, expected: .netmask)
    }
    return UInt8(truncatingIfNeeded: length)
  }
}

/// Hardware addresses as people and boot loaders write them.
enum HardwareAddress {
  /// Six bytes with `-` or `:` between.
  static func ethernet(_ text: Text) -> [UInt8]? { bytes(text, counts: 6...6) }

  /// `BOOTIF=`: behind a byte for Ethernet that PXELINUX puts there.
  static func bootInterface(_ text: Text) -> [UInt8]? {
    guard let bytes = bytes(text, counts: 6...7) else { return nil }
    return bytes.count == 7 ? Array(bytes.dropFirst()) : bytes
  }

  private static func bytes(_ text: Text, counts: ClosedRange<Int>) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = text
    while true {
      guard rest.count >= 2, bytes.count < counts.upperBound,
        let high = rest[rest.startIndex].hexadecimalDigit,
        let low = rest[rest.startIndex + 1].hexadecimalDigit
      else { return nil }
      bytes.append(high << 4 | low)
      rest = rest.dropFirst(2)
      guard let separator = rest.first else { break }
      guard separator == .minus || separator == .colon else { return nil }
      rest = rest.dropFirst()
    }
    return counts.contains(bytes.count) ? bytes : nil
  }
}

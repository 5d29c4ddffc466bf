// SPDX-License-Identifier: Apache-2.0
// Addresses and routes over rtnetlink.
// Numbers: Linux `include/uapi/linux/if_addr.h`, `rtnetlink.h`.

public import WireFormat

/// An address of an interface: as the kernel describes it, and to be added.
public struct AddressDescription: Equatable, Sendable {
  static let headerByteCount = 8
  static let tentativeFlag: UInt32 = 0x40
  static let duplicateFlag: UInt32 = 0x08

  public var interfaceIndex: UInt32
  /// 4 or 16, in network order.
  public var octets: [UInt8]
  public var prefixLength: UInt8
  /// For IPv4, to be added.
  public var broadcast: [UInt8]?
  /// `IFA_F_*`: the attribute of 32 bits when it is there, else the 8 bits of the header. Not sent.
  public var flags: UInt32 = 0
  /// 0 is universe; 253 is valid on the link only.
  public var scope: UInt8 = 0

  /// IPv6: the kernel still asks whether somebody else has it.
  public var isTentative: Bool { flags & Self.tentativeFlag != 0 }
  /// IPv6: somebody else does.
  public var isDuplicate: Bool { flags & Self.duplicateFlag != 0 }
  /// It means something beyond the link; also of a site, which is what QEMU's network gives.
  public var isGlobal: Bool { scope < RouteRequest.linkScope }

  public init(interfaceIndex: UInt32, octets: [UInt8], prefixLength: UInt8) {
    self.interfaceIndex = interfaceIndex
    self.octets = octets
    self.prefixLength = prefixLength
  }

  /// Behind the netlink header. Throws for fewer than 8 bytes, as `NetlinkAttribute.decode` does,
  /// and for flags that are not 32 bits; `octets` may be empty.
  public init(decoding payload: ArraySlice<UInt8>) throws(WireError) {
    guard payload.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: payload.count)
    }
    let span = payload.span
    prefixLength = span[1]
    flags = UInt32(span[2])
    scope = span[3]
    interfaceIndex = span.native(UInt32.self, at: 4)
    let attributes = try NetlinkAttribute.decode(payload.dropFirst(Self.headerByteCount))
    // IPv6 has only the first of the two; with IPv4 the second is the interface's own.
    octets = Array((attributes.last(2) ?? attributes.last(1))?.value ?? [])
    if let wide = attributes.last(8) { flags = try wide.integer(UInt32.self) }
  }

  /// To be added, without a lifetime.
  public var payload: [UInt8] {
    var bytes = [octets.count == 4 ? RouteRequest.ipv4Family : RouteRequest.ipv6Family]
    bytes += [prefixLength, 0, scope]
    bytes.append(native: interfaceIndex)
    var attributes = NetlinkAttributeWriter()
    attributes.append(2, bytes: octets)
    attributes.append(1, bytes: octets)
    if let broadcast { attributes.append(4, bytes: broadcast) }
    return bytes + attributes.bytes
  }

  /// Asks for all addresses of both families.
  public static var dumpRequest: [UInt8] { [UInt8](repeating: 0, count: headerByteCount) }
}

/// A route in the main table, to be added.
public struct RouteRequest: Equatable, Sendable {
  static let ipv4Family: UInt8 = 2
  static let ipv6Family: UInt8 = 10
  static let mainTable: UInt8 = 254
  static let bootProtocol: UInt8 = 3
  static let linkScope: UInt8 = 253
  static let unicast: UInt8 = 1
  static let onLinkFlag: UInt32 = 4

  public var interfaceIndex: UInt32
  /// 4 or 16 octets.
  public var destination: [UInt8]
  public var prefixLength: UInt8
  /// Nil: on the link itself.
  public var gateway: [UInt8]?
  /// The gateway counts as a neighbour, whatever the other routes say.
  public var isGatewayOnLink = false

  public init(
    interfaceIndex: UInt32, destination: [UInt8], prefixLength: UInt8, gateway: [UInt8]?
  ) {
    self.interfaceIndex = interfaceIndex
    self.destination = destination
    self.prefixLength = prefixLength
    self.gateway = gateway
  }

  /// Behind the netlink header, for RTM_NEWROUTE.
  public var payload: [UInt8] {
    var bytes = [
      destination.count == 4 ? Self.ipv4Family : Self.ipv6Family, prefixLength, 0, 0,
      Self.mainTable, Self.bootProtocol, gateway == nil ? Self.linkScope : 0, Self.unicast,
    ]
    bytes.append(native: isGatewayOnLink ? Self.onLinkFlag : 0)
    var attributes = NetlinkAttributeWriter()
    if prefixLength > 0 { attributes.append(1, bytes: destination) }
    if let gateway { attributes.append(5, bytes: gateway) }
    attributes.append(4, interfaceIndex)
    return bytes + attributes.bytes
  }
}

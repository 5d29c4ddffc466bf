// SPDX-License-Identifier: Apache-2.0
// Network interfaces over rtnetlink: what the kernel says of one, and how one is made and changed.
// Numbers: Linux `include/uapi/linux/rtnetlink.h`, `if_link.h`, `if.h`, `if_arp.h`.

public import WireFormat

/// The types of rtnetlink's messages that are used here.
public enum RouteMessageType {
  public static let newLink: UInt16 = 16  // RTM_NEWLINK
  public static let getLink: UInt16 = 18  // RTM_GETLINK
  public static let newAddress: UInt16 = 20  // RTM_NEWADDR
  public static let getAddress: UInt16 = 22  // RTM_GETADDR
  public static let newRoute: UInt16 = 24  // RTM_NEWROUTE
  /// Of the multicast groups: changes of interfaces, of IPv4's and IPv6's addresses.
  public static let changeGroups: UInt32 = 0x1 | 0x10 | 0x100
}

extension NetlinkMessage.Flags {
  /// In a request for a new object.
  public static let replace = NetlinkMessage.Flags(rawValue: 0x100)
  /// In a request for a new object: one that is there already is EEXIST.
  public static let exclusive = NetlinkMessage.Flags(rawValue: 0x200)
  /// In a request for a new object: it is made when it is not there.
  public static let create = NetlinkMessage.Flags(rawValue: 0x400)
  /// In a question: all objects.
  public static let dump = NetlinkMessage.Flags(rawValue: 0x300)
}

/// An interface as the kernel describes it.
public struct LinkDescription: Equatable, Sendable {
  static let headerByteCount = 16
  static let upFlag: UInt32 = 0x1
  static let loopbackFlag: UInt32 = 0x8
  static let carrierFlag: UInt32 = 0x1_0000  // IFF_LOWER_UP

  /// The number by which requests name it, for as long as it exists.
  public var index: UInt32
  /// As in ARP; 1 is Ethernet.
  public var hardwareType: UInt16
  /// `IFF_*`.
  public var flags: UInt32
  /// Empty when the kernel did not say.
  public var name: ByteString
  /// Six bytes on Ethernet, other lengths elsewhere, empty without one.
  public var hardwareAddress: [UInt8]
  /// `vlan`, `bridge` and the like; empty for hardware.
  public var kind: ByteString

  public var isUp: Bool { flags & Self.upFlag != 0 }
  public var isLoopback: Bool { flags & Self.loopbackFlag != 0 }
  /// Only an interface that is up can say so.
  public var hasCarrier: Bool { isUp && flags & Self.carrierFlag != 0 }
  /// One that DHCP can be asked on, with an address of six bytes; not the loopback.
  public var isEthernet: Bool { hardwareType == 1 && hardwareAddress.count == 6 && !isLoopback }

  /// Behind the netlink header. Throws for fewer than 16 bytes, and as `NetlinkAttribute.decode`
  /// does.
  public init(decoding payload: ArraySlice<UInt8>) throws(WireError) {
    guard payload.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: payload.count)
    }
    let span = payload.span
    hardwareType = span.native(UInt16.self, at: 2)
    index = span.native(UInt32.self, at: 4)
    flags = span.native(UInt32.self, at: 8)
    let attributes = try NetlinkAttribute.decode(payload.dropFirst(Self.headerByteCount))
    name = attributes.last(3)?.text ?? ByteString()
    hardwareAddress = Array(attributes.last(1)?.value ?? [])
    kind = ByteString()
    if let information = attributes.last(18) {
      kind = try information.nested().last(1)?.text ?? ByteString()
    }
  }

  /// Asks for all interfaces.
  public static var dumpRequest: [UInt8] { [UInt8](repeating: 0, count: headerByteCount) }
}

/// A change of an interface, or a new one.
public enum LinkRequest: Equatable, Sendable {
  /// What is nil stays as it is. An address can only be set while the interface is down.
  case change(index: UInt32, isUp: Bool?, mtuByteCount: UInt32?, hardwareAddress: [UInt8]?)
  /// With `.create` and `.exclusive` among the flags.
  case makeVLAN(name: ByteString, parentIndex: UInt32, identifier: UInt16)

  /// Behind the netlink header, for RTM_NEWLINK.
  public var payload: [UInt8] {
    var header: [UInt8] = [0, 0, 0, 0]
    var attributes = NetlinkAttributeWriter()
    switch self {
    case .change(let index, let isUp, let mtuByteCount, let hardwareAddress):
      header.append(native: index)
      header.append(native: isUp == true ? LinkDescription.upFlag : 0)
      header.append(native: isUp != nil ? LinkDescription.upFlag : 0)
      if let mtuByteCount { attributes.append(4, mtuByteCount) }
      if let hardwareAddress { attributes.append(1, bytes: hardwareAddress) }
    case .makeVLAN(let name, let parentIndex, let identifier):
      header += [UInt8](repeating: 0, count: 12)
      attributes.append(3, text: name)
      attributes.append(5, parentIndex)
      var data = NetlinkAttributeWriter()
      data.append(1, identifier)
      var information = NetlinkAttributeWriter()
      information.append(1, text: "vlan")
      information.append(2, nest: data)
      attributes.append(18, nest: information)
    }
    return header + attributes.bytes
  }
}

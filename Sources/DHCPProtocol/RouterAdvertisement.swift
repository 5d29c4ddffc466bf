// SPDX-License-Identifier: Apache-2.0
// What a router says of its link: prefixes to make addresses from, the MTU, name servers, and
// whether DHCPv6 has more to say. The messages are ICMPv6, whose checksum the kernel has checked.
// Source: RFC 4861, sections 4.1, 4.2, 4.6; RFC 8106 for name servers.

import BootPlanning
import WireFormat

/// Asks the routers of a link to speak.
public enum RouterSolicitation {
  /// To ff02::2, hop limit 255, from the interface's address or none; `hardwareAddress` of six
  /// bytes only when there is an address.
  public static func encoded(hardwareAddress: [UInt8]?) -> [UInt8] {
    var bytes: [UInt8] = [133, 0, 0, 0, 0, 0, 0, 0]
    if let hardwareAddress, hardwareAddress.count == 6 { bytes += [1, 1] + hardwareAddress }
    return bytes
  }
}

public struct RouterAdvertisement: Equatable, Sendable {
  public struct Prefix: Equatable, Sendable {
    public var prefix: IPv6Address
    /// Up to 128.
    public var length: UInt8
    /// Addresses in it are reached without a router.
    public var isOnLink: Bool
    /// Addresses may be made from it.
    public var isForAddresses: Bool
    /// `UInt32.max` is for ever; preferred is never longer than valid.
    public var validSeconds: UInt32
    public var preferredSeconds: UInt32

    /// The address of the interface with `hardwareAddress`: the prefix and the modified EUI-64.
    /// Nil unless the prefix has 64 bits. Source: RFC 4862, section 5.5.3; RFC 4291, appendix A.
    public func address(ethernetAddress bytes: [UInt8]) -> IPv6Address? {
      guard length == 64, bytes.count == 6 else { return nil }
      let identifier = [bytes[0] ^ 2, bytes[1], bytes[2], 0xff, 0xfe, bytes[3], bytes[4], bytes[5]]
      return IPv6Address(
        high: prefix.high, low: identifier.span.bigEndian(UInt64.self, at: 0))
    }
  }

  public static let headerByteCount = 16
  public static let type: UInt8 = 134
  static let itemCountMaximum = 16
  /// Source: RFC 8200, section 5.
  static let mtuByteCountMinimum: UInt32 = 1280

  /// 0: not a default router. In seconds.
  public var routerLifetimeSeconds: UInt16
  /// Addresses come from DHCPv6 (flag M).
  public var hasManagedAddresses: Bool
  /// Name servers and the like come from DHCPv6 (flag O).
  public var hasOtherConfiguration: Bool
  public var prefixes: [Prefix] = []
  public var mtuByteCount: UInt32?
  /// Those whose lifetime is not 0.
  public var nameServers: [IPv6Address] = []
  public var searchDomains: [ByteString] = []

  /// An ICMPv6 message, which must have come with the hop limit 255 from a link-local address: the
  /// caller knows. An option that is malformed inside is left out; one that does not fit is not.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: bytes.count)
    }
    guard bytes[0] == Self.type, bytes[1] == 0 else {
      throw .value(
        field: "ICMPv6 type and code", actual: UInt64(bytes.bigEndian(UInt16.self, at: 0)))
    }
    hasManagedAddresses = bytes[5] & 0x80 != 0
    hasOtherConfiguration = bytes[5] & 0x40 != 0
    routerLifetimeSeconds = bytes.bigEndian(UInt16.self, at: 6)
    var offset = Self.headerByteCount
    while offset < bytes.count {
      guard bytes.count - offset >= 2 else {
        throw .byteCount(expected: 2, actual: bytes.count - offset)
      }
      let byteCount = Int(bytes[offset + 1]) * 8
      guard byteCount > 0 else { throw .value(field: "option length", actual: 0) }
      guard byteCount <= bytes.count - offset else {
        throw .byteCount(expected: byteCount, actual: bytes.count - offset)
      }
      read(bytes.extracting(offset..<(offset + byteCount)))
      offset += byteCount
    }
  }

  private mutating func read(_ option: Span<UInt8>) {
    switch option[0] {
    case 3 where option.count == 32: readPrefix(option)
    case 5 where option.count == 8:
      let mtu = option.bigEndian(UInt32.self, at: 4)
      if mtu >= Self.mtuByteCountMinimum { mtuByteCount = mtu }
    case 25 where option.count >= 24 && option.count % 16 == 8:
      guard option.bigEndian(UInt32.self, at: 4) > 0 else { return }
      for offset in stride(from: 8, to: option.count, by: 16)
      where nameServers.count < DHCPLease.nameServerCountMaximum {
        nameServers.append(IPv6Address(option, at: offset))
      }
    case 31 where option.count >= 16:
      guard option.bigEndian(UInt32.self, at: 4) > 0 else { return }
      let names = ByteString(copying: option.extracting(8..<option.count)).bytes
      for name in SearchDomains.decode(names) ?? []
      where searchDomains.count < SearchDomains.countMaximum {
        searchDomains.append(name)
      }
    default: break
    }
  }

  private mutating func readPrefix(_ option: Span<UInt8>) {
    let prefix = Prefix(
      prefix: IPv6Address(option, at: 16), length: option[2], isOnLink: option[3] & 0x80 != 0,
      isForAddresses: option[3] & 0x40 != 0, validSeconds: option.bigEndian(UInt32.self, at: 4),
      preferredSeconds: option.bigEndian(UInt32.self, at: 8))
    guard prefix.length <= 128, prefix.preferredSeconds <= prefix.validSeconds,
      !prefix.prefix.isLinkLocal, prefixes.count < Self.itemCountMaximum
    else { return }
    prefixes.append(prefix)
  }
}

extension IPv6Address {
  /// Sixteen bytes within the span.
  init(_ bytes: Span<UInt8>, at offset: Int) {
    self.init(
      high: bytes.bigEndian(UInt64.self, at: offset),
      low: bytes.bigEndian(UInt64.self, at: offset + 8))
  }
}

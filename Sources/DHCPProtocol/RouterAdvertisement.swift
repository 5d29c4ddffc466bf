// SPDX-License-Identifier: Apache-2.0
// What a router says of its link: name servers, and whether addresses come from DHCPv6. Prefixes,
// the MTU and the router itself are the kernel's to take. The messages are ICMPv6, whose checksum
// the kernel has checked. Source: RFC 4861, sections 4.1, 4.2, 4.6; RFC 8106 for name servers.

import BootPlanning
import WireFormat

/// Asks the routers of a link to speak.
public enum RouterSolicitation {
  /// To ff02::2, hop limit 255. There may be no address yet, so the option with the address of the
  /// link is not there.
  public static var encoded: [UInt8] { [133, 0, 0, 0, 0, 0, 0, 0] }
}

/// As much of an advertisement as the kernel does not see to.
public struct RouterAdvertisement: Equatable, Sendable {
  /// Up to the first option. Source: RFC 4861, section 4.2.
  public static let headerByteCount = 16
  /// Of ICMPv6. Source: RFC 4861, section 4.2.
  public static let type: UInt8 = 134

  /// Addresses come from DHCPv6 (flag M).
  public var hasManagedAddresses: Bool
  /// Those whose lifetime is not 0.
  public var nameServers: [IPv6Address] = []
  /// Those whose lifetime is not 0, 16 at most; none of an option with a malformed one.
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
}

extension IPv6Address {
  /// Sixteen bytes within the span.
  init(_ bytes: Span<UInt8>, at offset: Int) {
    self.init(
      high: bytes.bigEndian(UInt64.self, at: offset),
      low: bytes.bigEndian(UInt64.self, at: offset + 8))
  }
}

// SPDX-License-Identifier: Apache-2.0
// Filling a lease from text: what is not a usable value leaves the field as it was.

import WireFormat

extension Lease {
  /// Root-paths longer than this are no root-paths. Source: NBD `doc/proto.md` for the export name,
  /// and room for a server in front.
  static let textByteCountMaximum = 4096 + 512

  /// 0.0.0.0 stands for "none" everywhere.
  static func host(_ text: Text) -> IPv4Address? {
    guard let address = IPv4Address(text), address.namesAHost else { return nil }
    return address
  }

  mutating func setNextServer(_ text: Text, key: String) {
    guard let address = Self.host(text) else { return }
    nextServer = LeaseValue(address, key: ByteString(key), path: path)
  }

  mutating func setDHCPServer(_ text: Text, key: String) {
    guard let address = Self.host(text) else { return }
    dhcpServer = LeaseValue(address, key: ByteString(key), path: path)
  }

  mutating func setRootPath(_ text: Text, key: String) {
    guard let value = Self.usableText(text) else { return }
    rootPath = LeaseValue(value, key: ByteString(key), path: path)
  }

  mutating func setServerName(_ text: Text, key: String) {
    guard let value = Self.usableText(text) else { return }
    serverName = LeaseValue(value, key: ByteString(key), path: path)
  }

  private static func usableText(_ text: Text) -> ByteString? {
    guard !text.isEmpty, text.count <= textByteCountMaximum, !text.contains(0) else { return nil }
    return ByteString(text)
  }

  mutating func setAddress(_ text: Text) { address = Self.host(text) ?? address }
  mutating func setGateway(_ text: Text) {
    // Several routers: the first is the preferred one. Source: RFC 2132, section 3.5.
    let first = text.cut(at: .space)?.head ?? text
    gateway = Self.host(first.cut(at: .comma)?.head ?? first) ?? gateway
  }

  /// A netmask, or a prefix length.
  mutating func setNetmask(_ text: Text) {
    if let length = text.decimal(maximum: 32) {
      prefixLength = UInt8(truncatingIfNeeded: length)
    } else if let mask = IPv4Address(text)?.rawValue {
      let length = mask.leadingOneCount
      if length == mask.nonzeroBitCount { prefixLength = UInt8(truncatingIfNeeded: length) }
    }
  }

  mutating func addNameServers(_ text: Text) {
    for field in text.split(whereSeparator: Self.separatesItems) {
      guard nameServers.count < Self.nameServerCountMaximum else { return }
      if let address = Self.host(field) {
        nameServers.append(.ipv4(address))
      } else if let address = ServerGrammar.ipv6(field) {
        nameServers.append(address)
      }
    }
  }

  mutating func addSearchDomains(_ text: Text) {
    for field in text.split(whereSeparator: Self.separatesItems) {
      let name = field.last == .dot ? field.dropLast() : field
      guard searchDomains.count < Self.searchDomainCountMaximum else { return }
      if let domain = ServerGrammar.strictHostName(name), !searchDomains.contains(domain) {
        searchDomains.append(domain)
      }
    }
  }

  private static func separatesItems(_ byte: UInt8) -> Bool {
    byte == .space || byte == .comma || byte == 0x09
  }

  mutating func setHostName(_ text: Text) {
    hostName = ServerGrammar.strictHostName(text) ?? hostName
  }

  mutating func setMTU(_ text: Text) {
    guard let value = text.decimal(maximum: 65535), value >= 68 else { return }
    mtuByteCount = UInt32(truncatingIfNeeded: value)  // 68: RFC 791, section 3.2.
  }

  /// A duration; the file was written when it began.
  mutating func setLeaseSeconds(_ text: Text) {
    guard let value = text.decimal(maximum: UInt64(UInt32.max)), value > 0 else { return }
    leaseSeconds = UInt32(truncatingIfNeeded: value)
    guard value < UInt64(UInt32.max) else { return }  // For ever.
    let (end, overflow) = modificationTime.addingReportingOverflow(Int64(value))
    if !overflow, expiry == nil { expiry = end }
  }

  mutating func setExpiry(secondsSince1970 text: Text) {
    guard let value = text.decimal(maximum: UInt64(Int64.max)) else { return }
    expiry = Int64(value)
  }
}

extension UInt32 {
  fileprivate var leadingOneCount: Int { (~self).leadingZeroBitCount }
}

// SPDX-License-Identifier: Apache-2.0
// dhcpcd's lease: the last DHCP answer as it came, without IP and UDP headers. The one file here
// that holds everything the server said. Source: RFC 2131 section 2, RFC 2132, RFC 3396 (an option
// that comes twice is one), RFC 3397 (search list), RFC 3442 (classless routes).

import WireFormat

extension Lease {
  private static let optionsOffset = 240
  private static let magicCookie: [UInt8] = [99, 130, 83, 99]

  /// False when the bytes are no DHCP packet.
  mutating func readPacket(_ file: ByteString) -> Bool {
    let bytes = file.bytes
    guard bytes.count >= Self.optionsOffset, bytes[236..<240].elementsEqual(Self.magicCookie) else {
      return false
    }
    func address(_ offset: Int) -> ArraySlice<UInt8> { bytes[offset..<(offset + 4)] }
    var options = PacketOptions()
    options.read(bytes[Self.optionsOffset...])
    let overload = options.value(of: 52).first ?? 0
    if overload & 1 != 0 { options.read(bytes[108..<236]) }
    if overload & 2 != 0 { options.read(bytes[44..<108]) }

    setAddress(Self.dotted(address(16)))
    setNextServer(Self.dotted(address(20)), key: "siaddr")
    setRootPath(Self.withoutEnd(options.value(of: 17)), key: "option 17")
    setDHCPServer(Self.dotted(options.value(of: 54)), key: "option 54")
    setServerName(Self.withoutEnd(options.value(of: 66)), key: "option 66")
    if serverName == nil, overload & 2 == 0 {
      setServerName(Self.withoutEnd(bytes[44..<108]), key: "sname")
    }
    setNetmask(Self.dotted(options.value(of: 1)))
    setGateway(Self.dotted(options.value(of: 3).prefix(4)))
    var servers = options.value(of: 6)
    while servers.count >= 4 {
      addNameServers(Self.dotted(servers.prefix(4)))
      servers = servers.dropFirst(4)
    }
    setHostName(Self.withoutEnd(options.value(of: 12)))
    for domain in SearchList.read(options.value(of: 119)) { addSearchDomains(domain.bytes[...]) }
    if searchDomains.isEmpty { addSearchDomains(Self.withoutEnd(options.value(of: 15))) }
    if let mtu = Self.number(options.value(of: 26), byteCount: 2) {
      setMTU(Text("\(mtu)"))
    }
    if let seconds = Self.number(options.value(of: 51), byteCount: 4) {
      setLeaseSeconds(Text("\(seconds)"))
    }
    readRoutes(options.value(of: 121))
    return true
  }

  /// The default route of option 121 replaces option 3.
  private mutating func readRoutes(_ value: Text) {
    var rest = value
    while let width = rest.first, width <= 32 {
      let destinationByteCount = (Int(width) + 7) / 8
      rest = rest.dropFirst(1 + destinationByteCount)
      guard rest.count >= 4 else { return }
      if width == 0 { setGateway(Self.dotted(rest.prefix(4))) }
      rest = rest.dropFirst(4)
    }
  }

  private static func dotted(_ bytes: Text) -> Text {
    guard let value = number(bytes, byteCount: 4) else { return [] }
    return Text(IPv4Address(rawValue: value).text)
  }

  private static func number(_ bytes: Text, byteCount: Int) -> UInt32? {
    guard bytes.count == byteCount else { return nil }
    var value: UInt32 = 0
    for byte in bytes { value = value << 8 | UInt32(byte) }
    return value
  }

  /// Some servers count a terminating NUL into a text.
  private static func withoutEnd(_ text: Text) -> Text {
    text[..<(text.firstIndex(of: 0) ?? text.endIndex)]
  }
}

private struct PacketOptions {
  private var values: [(code: UInt8, value: [UInt8])] = []

  mutating func read(_ bytes: Text) {
    var rest = bytes
    while let code = rest.first, code != 255 {
      rest = rest.dropFirst()
      if code == 0 { continue }
      guard let count = rest.first, rest.count > Int(count) else { return }
      let value = rest.dropFirst().prefix(Int(count))
      rest = rest.dropFirst(1 + Int(count))
      append(code, value)
    }
  }

  private mutating func append(_ code: UInt8, _ value: Text) {
    for index in values.indices where values[index].code == code {
      values[index].value += value
      return
    }
    values.append((code, Array(value)))
  }

  func value(of code: UInt8) -> Text {
    for entry in values where entry.code == code { return entry.value[...] }
    return []
  }
}

/// Domain names with DNS compression.
private enum SearchList {
  /// Pointers go backwards only, so each name ends; labels add up to a name's length at most.
  static func read(_ value: Text) -> [ByteString] {
    let bytes = Array(value)
    var names: [ByteString] = []
    var index = 0
    while index < bytes.count, names.count < Lease.searchDomainCountMaximum {
      var name: [UInt8] = []
      var position = index
      var lowest = index
      var end: Int?
      while position < bytes.count, bytes[position] != 0 {
        let count = Int(bytes[position])
        if count & 0xc0 == 0xc0 {
          guard position + 1 < bytes.count else { return names }
          let target = (count & 0x3f) << 8 | Int(bytes[position + 1])
          guard target < lowest else { return names }
          if end == nil { end = position + 2 }
          lowest = target
          position = target
        } else {
          guard count < 64, position + 1 + count <= bytes.count,
            name.count + count < ServerGrammar.hostNameByteCountMaximum
          else { return names }
          if !name.isEmpty { name.append(.dot) }
          name += bytes[(position + 1)..<(position + 1 + count)]
          position += 1 + count
        }
      }
      guard position < bytes.count else { return names }
      names.append(ByteString(name))
      index = end ?? position + 1
    }
    return names
  }
}

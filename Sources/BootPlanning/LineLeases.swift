// SPDX-License-Identifier: Apache-2.0
// Leases that are lines without shell quoting: the kernel's /proc/net/pnp, NetworkManager's key
// file, and systemd-networkd's.

import WireFormat

extension Lease {
  static let lineCountMaximum = 1024

  /// `nameserver A`, `domain D`, `bootserver A`; the first line says whether DHCP was used.
  mutating func readKernelPnp(_ file: ByteString) {
    for line in Self.lines(of: file) {
      if line.isEqual(to: "#MANUAL") { isStatic = true }
      guard let (key, value) = line.cut(at: .space) else { continue }
      if key.isEqual(to: "bootserver") {
        setNextServer(value, key: "bootserver")
      } else if key.isEqual(to: "nameserver") {
        addNameServers(value)
      } else if key.isEqual(to: "domain") {
        addSearchDomains(value)
      }
    }
  }

  mutating func readNetworkd(_ file: ByteString) {
    var search: ByteString?
    var domain: ByteString?
    for line in Self.lines(of: file) {
      guard let (key, text) = line.cut(at: .equals) else { continue }
      if key.isEqual(to: "NEXT_SERVER") {
        setNextServer(text, key: "NEXT_SERVER")
      } else if key.isEqual(to: "ROOT_PATH") {
        setRootPath(text, key: "ROOT_PATH")
      } else if key.isEqual(to: "SERVER_ADDRESS") {
        setDHCPServer(text, key: "SERVER_ADDRESS")
      } else if key.isEqual(to: "ADDRESS") {
        setAddress(text)
      } else if key.isEqual(to: "NETMASK") {
        setNetmask(text)
      } else if key.isEqual(to: "ROUTER") {
        setGateway(text)
      } else if key.isEqual(to: "DNS") {
        addNameServers(text)
      } else if key.isEqual(to: "DOMAIN_SEARCH_LIST") {
        search = ByteString(text)
      } else if key.isEqual(to: "DOMAINNAME") {
        domain = ByteString(text)
      } else if key.isEqual(to: "HOSTNAME") {
        setHostName(text)
      } else if key.isEqual(to: "MTU") {
        setMTU(text)
      } else if key.isEqual(to: "LIFETIME") {
        setLeaseSeconds(text)
      }
    }
    addDomains(search: search, domain: domain)
  }

  /// A key file. `[device]` has what was chosen, `[dhcp4]` each option that came.
  mutating func readNetworkManager(_ file: ByteString) {
    var search: ByteString?
    var domain: ByteString?
    for line in Self.lines(of: file) {
      guard let (key, raw) = line.cut(at: .equals) else { continue }
      let value = Self.keyFileValue(raw)
      let text = value.bytes[...]
      if key.isEqual(to: "next-server") {
        setNextServer(text, key: "next-server")
      } else if key.isEqual(to: "root-path") {
        setRootPath(text, key: "root-path")
      } else if key.isEqual(to: "dhcp4.next_server") {
        if nextServer == nil { setNextServer(text, key: "dhcp4.next_server") }
      } else if key.isEqual(to: "dhcp4.root_path") {
        if rootPath == nil { setRootPath(text, key: "dhcp4.root_path") }
      } else if key.isEqual(to: "dhcp4.dhcp_server_identifier") {
        setDHCPServer(text, key: "dhcp4.dhcp_server_identifier")
      } else if key.isEqual(to: "dhcp4.tftp_server_name") {
        setServerName(text, key: "dhcp4.tftp_server_name")
      } else if key.isEqual(to: "dhcp4.ip_address") {
        setAddress(text)
      } else if key.isEqual(to: "dhcp4.subnet_mask") {
        setNetmask(text)
      } else if key.isEqual(to: "dhcp4.routers") {
        setGateway(text)
      } else if key.isEqual(to: "dhcp4.domain_name_servers") {
        addNameServers(text)
      } else if key.isEqual(to: "dhcp4.domain_search") {
        search = value
      } else if key.isEqual(to: "dhcp4.domain_name") {
        domain = value
      } else if key.isEqual(to: "dhcp4.host_name") {
        setHostName(text)
      } else if key.isEqual(to: "dhcp4.interface_mtu") {
        setMTU(text)
      } else if key.isEqual(to: "dhcp4.expiry") {
        setExpiry(secondsSince1970: text)
      } else if key.isEqual(to: "dhcp4.dhcp_lease_time") {
        setLeaseSeconds(text)
      }
    }
    addDomains(search: search, domain: domain)
  }

  /// Two layers: the key file's `\s \t \n \r \\`, and below it `\ooo` for bytes that are not UTF-8.
  private static func keyFileValue(_ raw: Text) -> ByteString {
    guard raw.contains(.backslash) else { return ByteString(raw) }
    var inner: [UInt8] = []
    var rest = raw
    while let byte = rest.first {
      rest = rest.dropFirst()
      guard byte == .backslash, let next = rest.first else {
        inner.append(byte)
        continue
      }
      rest = rest.dropFirst()
      switch next {
      case 0x73: inner.append(.space)
      case 0x74: inner.append(0x09)
      case 0x6e: inner.append(.newline)
      case 0x72: inner.append(0x0d)
      case .backslash: inner.append(.backslash)
      default: inner += [.backslash, next]
      }
    }
    var value: [UInt8] = []
    rest = inner[...]
    while let byte = rest.first {
      rest = rest.dropFirst()
      if byte == .backslash, let next = rest.first, next == .backslash || next.isDigit {
        value.append(CEscape.read(&rest))
      } else {
        value.append(byte)
      }
    }
    return ByteString(value)
  }

  private static func lines(of file: ByteString) -> [Text] {
    file.bytes[...].split(separator: .newline, maxSplits: lineCountMaximum).map { line in
      line.last == 0x0d ? line.dropLast() : line
    }
  }
}

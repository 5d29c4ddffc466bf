// SPDX-License-Identifier: Apache-2.0
// The files in which other programs look for a lease: klibc's `/run/net-IFACE.conf`, which
// initramfs scripts and cloud tools read, and systemd-networkd's below `/run/systemd/netif`.
// Source: `ipconfig` of klibc 2.0.12, as observed; `sd_dhcp_lease_save()` of systemd 252.

import BootPlanning
import WireFormat

extension InterfaceConfiguration {
  /// `uptimeSeconds`: when the lease came. Every key is there, as klibc has it.
  public func klibcText(uptimeSeconds: UInt64) -> ByteString {
    var text = ByteString()
    func add(_ key: String, _ value: ByteString) {
      text += ByteString(key) + "='" + Self.escaped(value) + "'\n"
    }
    func add(_ key: String, _ value: IPv4Address?) {
      add(key, ByteString(value?.text ?? "0.0.0.0"))
    }
    let mask = IPv4Address(rawValue: prefixLength == 0 ? 0 : ~0 << UInt32(32 - prefixLength))
    add("DEVICE", interface)
    add("PROTO", isLeased ? "dhcp" : "none")
    add("IPV4ADDR", address)
    add("IPV4BROADCAST", broadcast ?? address.map { $0.broadcast(prefixLength: prefixLength) })
    add("IPV4NETMASK", mask)
    if routes.count <= 1, gateway != nil || routes.isEmpty {
      add("IPV4GATEWAY", gateway)
    } else {
      for (index, route) in routes.enumerated() {
        add(
          "IPV4ROUTE\(index)SUBNET", ByteString("\(route.destination.text)/\(route.prefixLength)"))
        add("IPV4ROUTE\(index)GATEWAY", route.gateway)
      }
    }
    var servers: [IPv4Address] = []
    for server in nameServers { if case .ipv4(let address) = server { servers.append(address) } }
    add("IPV4DNS0", servers.first)
    add("IPV4DNS1", servers.dropFirst().first)
    add("HOSTNAME", hostName ?? "")
    add("DNSDOMAIN", domainName ?? "")
    add("NISDOMAIN", ByteString())
    add("ROOTSERVER", nextServer)
    add("ROOTPATH", rootPath ?? "")
    add("filename", bootFile ?? "")
    add("UPTIME", ByteString("\(uptimeSeconds)"))
    add("DHCPLEASETIME", ByteString("\(leaseSeconds ?? 0)"))
    var domains = ByteString()
    for domain in searchDomains { domains += (domains.isEmpty ? "" : " ") + domain + "." }
    add("DOMAINSEARCH", domains)
    return text
  }

  /// `'` and `!` leave the quotes. Source: klibc `usr/kinit/ipconfig/main.c`.
  private static func escaped(_ value: ByteString) -> ByteString {
    var bytes: [UInt8] = []
    for byte in value.bytes {
      if byte == 0x27 || byte == 0x21 {
        bytes += [0x27, 0x5c, byte, 0x27]
      } else {
        bytes.append(byte)
      }
    }
    return ByteString(bytes)
  }

  /// Nothing is quoted there, so that a value with a control character is left out.
  public var networkdText: ByteString {
    var text: ByteString = "# Written by rootlink.\n"
    func add(_ key: String, _ value: ByteString?) {
      guard let value, !value.isEmpty else { return }
      for byte in value.bytes where byte < 0x20 || byte == 0x7f { return }
      text += ByteString(key) + "=" + value + "\n"
    }
    func add(_ key: String, _ value: IPv4Address?) {
      add(key, (value?.text).map { ByteString($0) })
    }
    func add(_ key: String, _ value: UInt32?) { add(key, value.map { ByteString("\($0)") }) }
    add("ADDRESS", address)
    if address != nil {
      add(
        "NETMASK",
        IPv4Address(rawValue: prefixLength == 0 ? 0 : ~0 << UInt32(32 - prefixLength)))
    }
    add("ROUTER", gateway)
    add("SERVER_ADDRESS", serverIdentifier)
    add("NEXT_SERVER", nextServer)
    add("BROADCAST", broadcast)
    add("MTU", mtuByteCount)
    add("T1", renewalSeconds)
    add("T2", rebindingSeconds)
    add("LIFETIME", leaseSeconds)
    add("DNS", Self.list(nameServers))
    var times = ByteString()
    for server in timeServers { times += (times.isEmpty ? "" : " ") + ByteString(server.text) }
    add("NTP", times)
    add("DOMAINNAME", domainName)
    var domains = ByteString()
    for domain in searchDomains { domains += (domains.isEmpty ? "" : " ") + domain }
    add("DOMAIN_SEARCH_LIST", domains)
    add("HOSTNAME", hostName)
    add("ROOT_PATH", rootPath)
    if routes.count > 1 || (gateway == nil && !routes.isEmpty) {
      var list = ByteString()
      for route in routes {
        if !list.isEmpty { list += " " }
        list += ByteString("\(route.destination.text)/\(route.prefixLength),")
        list += ByteString((route.gateway ?? IPv4Address(rawValue: 0)).text)
      }
      add("CLASSLESS_ROUTES", list)
    }
    var identifier = ByteString()
    for byte in clientIdentifier {
      identifier += ByteString((byte < 16 ? "0" : "") + String(byte, radix: 16))
    }
    add("CLIENTID", identifier)
    return text
  }

  private static func list(_ servers: [ServerAddress]) -> ByteString {
    var list = ByteString()
    for server in servers {
      guard let text = server.text else { continue }
      list += (list.isEmpty ? "" : " ") + text
    }
    return list
  }
}

extension IPv4Address {
  /// To all of the network; this address itself when there is no network around it.
  func broadcast(prefixLength: UInt8) -> IPv4Address {
    prefixLength >= 31
      ? self : IPv4Address(rawValue: rawValue | (UInt32.max >> UInt32(prefixLength)))
  }
}

// SPDX-License-Identifier: Apache-2.0
// Leases that are shell assignments: klibc's `net-IF.conf`, the same file written by a script of
// busybox's udhcpc with the names of its environment, and dracut's `dhclient.IF.dhcpopts`.

import WireFormat

extension Lease {
  /// Keys in capitals are klibc's, small ones udhcpc's.
  mutating func readNetConf(_ file: ByteString) {
    var search: ByteString?
    var domain: ByteString?
    var defaultRoute = ByteString()
    for (key, value) in ShellAssignments(file).assignments {
      let text = value.bytes[...]
      if key.isEqual(to: "DEVICE") || key.isEqual(to: "interface") {
        if ServerGrammar.isInterfaceName(text) { interface = value }
      } else if key.isEqual(to: "DOMAINSEARCH") || key.isEqual(to: "search") {
        search = value
      } else if key.isEqual(to: "DNSDOMAIN") || key.isEqual(to: "domain") {
        domain = value
      } else if key.hasPrefix("IPV4ROUTE") {
        readRoute(key.dropFirst(9), text, default: &defaultRoute)
      } else {
        readKlibc(key, text)
        readUdhcpc(key, text)
      }
    }
    addDomains(search: search, domain: domain)
  }

  private mutating func readKlibc(_ key: Text, _ text: Text) {
    if key.isEqual(to: "PROTO") {
      isStatic = text.isEqual(to: "none")
    } else if key.isEqual(to: "IPV4ADDR") {
      setAddress(text)
    } else if key.isEqual(to: "IPV4NETMASK") {
      setNetmask(text)
    } else if key.isEqual(to: "IPV4GATEWAY") {
      setGateway(text)
    } else if key.isEqual(to: "IPV4DNS0") || key.isEqual(to: "IPV4DNS1") {
      addNameServers(text)
    } else if key.isEqual(to: "HOSTNAME") {
      setHostName(text)
    } else if key.isEqual(to: "ROOTSERVER") {
      setNextServer(text, key: "ROOTSERVER")
    } else if key.isEqual(to: "ROOTPATH") {
      setRootPath(text, key: "ROOTPATH")
    } else if key.isEqual(to: "DHCPLEASETIME") {
      setLeaseSeconds(text)
    }
  }

  /// `IPV4ROUTEnSUBNET`, `IPV4ROUTEnGATEWAY`: the default route's gateway is the gateway.
  private mutating func readRoute(_ key: Text, _ text: Text, default number: inout ByteString) {
    let digits = key.prefix(key.leadingDigitCount)
    let name = key.dropFirst(digits.count)
    if name.isEqual(to: "SUBNET"), text.isEqual(to: "0.0.0.0/0") {
      number = ByteString(digits)
    } else if name.isEqual(to: "GATEWAY"), !digits.isEmpty, ByteString(digits) == number {
      setGateway(text)
    }
  }

  private mutating func readUdhcpc(_ key: Text, _ text: Text) {
    if key.isEqual(to: "ip") {
      setAddress(text)
      producer = .udhcpc
    } else if key.isEqual(to: "subnet") || key.isEqual(to: "mask") {
      setNetmask(text)
    } else if key.isEqual(to: "router") {
      setGateway(text)
    } else if key.isEqual(to: "siaddr") {
      setNextServer(text, key: "siaddr")
    } else if key.isEqual(to: "serverid") {
      setDHCPServer(text, key: "serverid")
    } else if key.isEqual(to: "rootpath") {
      setRootPath(text, key: "rootpath")
    } else if key.isEqual(to: "tftp") {
      setServerName(text, key: "tftp")
    } else if key.isEqual(to: "sname") {
      if serverName == nil { setServerName(text, key: "sname") }
    } else if key.isEqual(to: "dns") {
      addNameServers(text)
    } else if key.isEqual(to: "hostname") {
      setHostName(text)
    } else if key.isEqual(to: "mtu") {
      setMTU(text)
    } else if key.isEqual(to: "lease") {
      setLeaseSeconds(text)
    }
  }

  /// The search list where there is one, else the domain.
  mutating func addDomains(search: ByteString?, domain: ByteString?) {
    if let search { addSearchDomains(search.bytes[...]) }
    if searchDomains.isEmpty, let domain { addSearchDomains(domain.bytes[...]) }
  }

  mutating func readDhcpopts(_ file: ByteString) {
    var search: ByteString?
    var domain: ByteString?
    for (name, value) in ShellAssignments(file).assignments {
      guard name.hasPrefix("new_") else { continue }
      let key = name.dropFirst(4)
      let text = value.bytes[...]
      if key.isEqual(to: "next_server") {
        setNextServer(text, key: "new_next_server")
      } else if key.isEqual(to: "root_path") {
        setRootPath(text, key: "new_root_path")
      } else if key.isEqual(to: "dhcp_server_identifier") {
        setDHCPServer(text, key: "new_dhcp_server_identifier")
      } else if key.isEqual(to: "tftp_server_name") {
        setServerName(text, key: "new_tftp_server_name")
      } else if key.isEqual(to: "server_name") {
        if serverName == nil { setServerName(text, key: "new_server_name") }
      } else if key.isEqual(to: "ip_address") {
        setAddress(text)
      } else if key.isEqual(to: "subnet_mask") {
        setNetmask(text)
      } else if key.isEqual(to: "routers") {
        setGateway(text)
      } else if key.isEqual(to: "domain_name_servers") {
        addNameServers(text)
      } else if key.isEqual(to: "domain_search") {
        search = value
      } else if key.isEqual(to: "domain_name") {
        domain = value
      } else if key.isEqual(to: "host_name") {
        setHostName(text)
      } else if key.isEqual(to: "interface_mtu") {
        setMTU(text)
      } else if key.isEqual(to: "expiry") {
        setExpiry(secondsSince1970: text)
      } else if key.isEqual(to: "dhcp_lease_time") {
        setLeaseSeconds(text)
      }
    }
    addDomains(search: search, domain: domain)
  }
}

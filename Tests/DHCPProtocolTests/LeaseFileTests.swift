// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

/// What is left in /run, read back by the planner as it reads what klibc and networkd leave there.
@Suite("A lease left in /run")
struct LeaseFileTests {
  static func address(_ text: String) throws -> IPv4Address {
    try #require(IPv4Address(Array(text.utf8)[...]))
  }

  static func configuration() throws -> InterfaceConfiguration {
    var configuration = InterfaceConfiguration("eth0", isLeased: true)
    configuration.address = try address("192.0.2.121")
    configuration.prefixLength = 24
    configuration.routes = [
      DHCPRoute(
        destination: IPv4Address(rawValue: 0), prefixLength: 0,
        gateway: try address("192.0.2.1"))
    ]
    configuration.nameServers = [.ipv4(try address("192.0.2.53"))]
    configuration.searchDomains = ["lab.example", "example"]
    configuration.hostName = "board7"
    configuration.rootPath = "srv:/a'b$c !d"
    configuration.nextServer = try address("192.0.2.2")
    configuration.serverIdentifier = try address("192.0.2.1")
    configuration.leaseSeconds = 3600
    configuration.clientIdentifier = [1, 0xf6, 0x5f]
    return configuration
  }

  /// Source: the file that klibc's ipconfig wrote for the same lease.
  @Test("has klibc's keys and quoting")
  func klibc() throws {
    let text = String(
      decoding: try Self.configuration().klibcText(uptimeSeconds: 2070).bytes, as: UTF8.self)
    #expect(
      text == #"""
        DEVICE='eth0'
        PROTO='dhcp'
        IPV4ADDR='192.0.2.121'
        IPV4BROADCAST='192.0.2.255'
        IPV4NETMASK='255.255.255.0'
        IPV4GATEWAY='192.0.2.1'
        IPV4DNS0='192.0.2.53'
        IPV4DNS1='0.0.0.0'
        HOSTNAME='board7'
        DNSDOMAIN=''
        NISDOMAIN=''
        ROOTSERVER='192.0.2.2'
        ROOTPATH='srv:/a'\''b$c '\!'d'
        filename=''
        UPTIME='2070'
        DHCPLEASETIME='3600'
        DOMAINSEARCH='lab.example. example.'

        """#)
  }

  @Test("has several routes one by one")
  func routes() throws {
    var configuration = try Self.configuration()
    configuration.routes.insert(
      DHCPRoute(
        destination: try Self.address("198.51.100.0"), prefixLength: 24,
        gateway: try Self.address("192.0.2.254")), at: 0)
    let text = String(
      decoding: configuration.klibcText(uptimeSeconds: 1).bytes, as: UTF8.self)
    #expect(text.contains("IPV4ROUTE0SUBNET='198.51.100.0/24'\nIPV4ROUTE0GATEWAY='192.0.2.254'\n"))
    #expect(text.contains("IPV4ROUTE1SUBNET='0.0.0.0/0'\nIPV4ROUTE1GATEWAY='192.0.2.1'\n"))
    #expect(!text.contains("IPV4GATEWAY"))
    let other = String(decoding: configuration.networkdText.bytes, as: UTF8.self)
    #expect(other.contains("CLASSLESS_ROUTES=198.51.100.0/24,192.0.2.254 0.0.0.0/0,192.0.2.1\n"))
  }

  @Test("says the same to the planner in both forms", arguments: [true, false])
  func readBack(isKlibc: Bool) throws {
    let configuration = try Self.configuration()
    var input = PlanningInput(commandLine: "nbdroot=dhcp,root")
    input.leaseFiles = [
      isKlibc
        ? LeaseFile(
          path: "/run/net-eth0.conf", bytes: configuration.klibcText(uptimeSeconds: 1),
          modificationTime: 0)
        : LeaseFile(
          path: "/run/systemd/netif/leases/2", bytes: configuration.networkdText,
          modificationTime: 0)
    ]
    input.interfaces = [
      InterfaceDescription(name: "eth0", index: 2, hardwareAddress: [2, 0, 0, 0, 0, 1])
    ]
    input.allowsMissingLease = true
    let lease = try #require(try BootPlanning.plan(for: input).lease)
    #expect(lease.address == configuration.address)
    #expect(lease.gateway == configuration.gateway)
    #expect(lease.nextServer?.value == configuration.nextServer)
    #expect(lease.rootPath?.value == configuration.rootPath)
    #expect(lease.nameServers == configuration.nameServers)
    #expect(lease.searchDomains == configuration.searchDomains)
    #expect(lease.hostName == "board7")
  }

  @Test("does not let a value of the server become a line of the file")
  func lineBreaks() throws {
    var configuration = try Self.configuration()
    configuration.rootPath = "x\nNEXT_SERVER=6.6.6.6"
    configuration.hostName = "a\u{7f}b"
    let text = String(decoding: configuration.networkdText.bytes, as: UTF8.self)
    #expect(!text.contains("6.6.6.6") && !text.contains("HOSTNAME"))
  }
}

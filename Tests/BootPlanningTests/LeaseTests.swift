// SPDX-License-Identifier: Apache-2.0
// What each producer leaves behind. The samples are of one DHCP server that gave every address-like
// answer another value, so that it shows which one was read.

import BootPlanning
import Testing
import WireFormat

@Suite("A lease")
struct LeaseTests {
  struct Sample: Sendable, CustomTestStringConvertible {
    let path: ByteString
    let text: ByteString
    let producer: Lease.Producer
    /// next-server, root-path, server name, DHCP server, address, prefix length, gateway.
    let expected: [String?]
    var nameServers = ["192.0.2.53", "192.0.2.54"]
    var search = ["lab.example", "example"]
    var hostName: String? = "board7"
    var mtu: UInt32?
    var testDescription: String { path.testText }
  }

  static let samples = [
    Sample(
      path: "/run/net-eth0.conf", text: Fixtures.klibc, producer: .klibc,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", nil, nil, "192.0.2.121", "24", "192.0.2.1",
      ]),
    Sample(
      path: "/proc/net/pnp", text: Fixtures.pnp, producer: .kernel,
      expected: ["192.0.2.2", nil, nil, nil, nil, nil, nil], search: ["lab.example"],
      hostName: nil),
    Sample(
      path: "/run/net-eth0.conf", text: Fixtures.udhcpc, producer: .udhcpc,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", "bootsrv.example", "192.0.2.1", "192.0.2.121", "24",
        "192.0.2.1",
      ], mtu: 1400),
    Sample(
      path: "/var/lib/dhcp/dhclient.leases", text: Fixtures.dhclient, producer: .dhclient,
      expected: [
        nil, "192.0.2.3:10809/foo", "bootsrv.example", "192.0.2.1", "192.0.2.121", "24",
        "192.0.2.1",
      ], mtu: 1400),
    Sample(
      path: "/tmp/dhclient.eth0.dhcpopts", text: Fixtures.dhcpopts, producer: .dracut,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", "bootsrv.example", "192.0.2.1", "192.0.2.128", "24",
        "192.0.2.1",
      ], search: [], hostName: nil, mtu: 1400),
    Sample(
      path: "/run/NetworkManager/devices/2", text: Fixtures.networkManager,
      producer: .networkManager,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", nil, "192.0.2.1", "192.0.2.121", "24", "192.0.2.1",
      ], mtu: 1400),
    Sample(
      path: "/run/systemd/netif/leases/2", text: Fixtures.networkd, producer: .networkd,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", nil, "192.0.2.1", "192.0.2.121", "24", "192.0.2.1",
      ], search: ["lab.example"], mtu: 1400),
    Sample(
      path: "/var/lib/dhcpcd/eth0.lease", text: Fixtures.dhcpcd, producer: .dhcpcd,
      expected: [
        "192.0.2.2", "192.0.2.3:10809/foo", "bootsrv.example", "192.0.2.1", "192.0.2.121", "24",
        "192.0.2.1",
      ], mtu: 1400),
  ]

  static func input(
    _ line: ByteString, _ files: [LeaseFile], _ environment: PlanningInput.Environment = .bare
  ) -> PlanningInput {
    var input = PlanningInput(commandLine: line)
    input.environment = environment
    input.leaseFiles = files
    input.interfaces = [
      InterfaceDescription(name: "lo", index: 1, hardwareAddress: []),
      InterfaceDescription(name: "eth0", index: 2, hardwareAddress: [2, 0, 0, 0, 0, 1]),
      InterfaceDescription(name: "eth1", index: 3, hardwareAddress: [2, 0, 0, 0, 0, 2]),
    ]
    return input
  }

  private func lease(_ path: ByteString, _ text: ByteString) throws -> Lease {
    let file = LeaseFile(path: path, bytes: text, modificationTime: 1000)
    let lease = try plan(for: Self.input("ip=::::x:eth0:dhcp", [file])).lease
    return try #require(lease)
  }

  @Test("is read from the file of every producer", arguments: samples)
  func sample(sample: Sample) throws {
    let lease = try lease(sample.path, sample.text)
    #expect(lease.producer == sample.producer)
    #expect(lease.interface == "eth0")
    #expect(
      [
        lease.nextServer?.value.text, lease.rootPath?.value.testText,
        lease.serverName?.value.testText, lease.dhcpServer?.value.text, lease.address?.text,
        lease.prefixLength.map { "\($0)" }, lease.gateway?.text,
      ] == sample.expected)
    #expect(lease.nameServers.map { $0.text?.testText } == sample.nameServers)
    #expect(lease.searchDomains.map(\.testText) == sample.search)
    #expect(lease.hostName?.testText == sample.hostName)
    #expect(lease.mtuByteCount == sample.mtu)
  }

  @Test("ends when its file says so")
  func expiry() throws {
    #expect(try lease("/run/net-eth0.conf", Fixtures.klibc).expiry == 4600)
    // 2026-11-21 09:10:37 UTC.
    #expect(try lease("/var/lib/dhcp/x.leases", Fixtures.dhclient).expiry == 1_795_252_237)
    #expect(try lease("/run/NetworkManager/devices/2", Fixtures.networkManager).expiry == 99999)
  }

  /// What a shell would make of the word, without running it.
  static let quotings: [(String, String)] = [
    (#"plain"#, "plain"),
    (#"'a b'"#, "a b"),
    (#"'srv:/a'\''b$c '\!'d'"#, "srv:/a'b$c !d"),
    (#"a\ b\'c\"d"#, #"a b'c"d"#),
    (#"$'a\nb\tc\'d\x41\101\e'"#, "a\nb\tc'dAA\u{1b}"),
    (#""a \"b\" \$c \d""#, #"a "b" $c \d"#),
    ("'two\nlines'", "two\nlines"),
    ("$(reboot)", "$(reboot)"),
    ("`reboot`", "`reboot`"),
    ("'$(reboot)';reboot", "$(reboot);reboot"),
    ("'a' reboot", "a"),
    ("'a'&&reboot", "a&&reboot"),
    ("${IFS}x", "${IFS}x"),
  ]

  @Test("is data, however it is quoted", arguments: quotings)
  func quoting(word: String, value: String) throws {
    let text = ByteString("DEVICE=eth0\nROOTPATH=\(word)\nROOTSERVER=192.0.2.2\n")
    let lease = try lease("/run/net-eth0.conf", text)
    #expect(lease.rootPath?.value.testText == value)
    #expect(lease.nextServer?.value.text == "192.0.2.2", "the next line is still there")
  }

  @Test("gives nothing from a quote that is never closed, or from behind it")
  func openQuote() throws {
    let text: ByteString = "DEVICE='eth0'\nROOTSERVER=192.0.2.2\nROOTPATH='x\nIPV4DNS0='1.2.3.4'\n"
    let lease = try lease("/run/net-eth0.conf", text)
    #expect(lease.nextServer?.value.text == "192.0.2.2")
    #expect(lease.nameServers.isEmpty)
  }

  @Test("reads both layers of NetworkManager's escapes")
  func keyFileEscapes() throws {
    let text: ByteString = #"root-path=a\sb\\303\\244\tc\\\\d\n"#
    let lease = try lease("/run/NetworkManager/devices/2", "[device]\n" + text + "\n")
    #expect(lease.rootPath?.value == "a bä\tc\\d\n")
  }

  static let hostile: [(String, String)] = [
    ("IPV4DNS0='0.0.0.0'", "no name server"),
    ("HOSTNAME='a b;reboot'", "no host name"),
    ("DNSDOMAIN='../../etc'", "no domain"),
    ("DEVICE='../eth9'", "the file's name counts"),
    ("ROOTSERVER='0.0.0.0'", "no server"),
    ("ROOTSERVER='255.255.255.255'", "no server"),
    ("DHCPLEASETIME='99999999999999999999'", "no expiry"),
  ]

  @Test("leaves out values that are none", arguments: hostile)
  func noValue(line: String, why: String) throws {
    let lease = try lease("/run/net-eth0.conf", ByteString("\(line)\nIPV4ADDR='192.0.2.7'\n"))
    var expected = Lease(
      producer: .klibc, interface: "eth0", path: "/run/net-eth0.conf", modificationTime: 1000)
    expected.address = IPv4Address([49, 57, 50, 46, 48, 46, 50, 46, 55])
    #expect(lease == expected, "\(why)")
  }

  @Test("is the last block of dhclient's file for the interface, unless that block is cut off")
  func dhclientBlocks() throws {
    func block(_ address: String, _ interface: String = "eth0") -> String {
      "lease {\n  interface \"\(interface)\";\n  fixed-address \(address);\n"
        + "  option root-path \"r;}\\\"\\101\";\n}\n"
    }
    let text =
      block("192.0.2.7") + block("192.0.2.8") + block("192.0.2.9", "eth1")
      + "lease6 { interface \"eth0\"; ia-na 1 { iaaddr x { } } }\nlease { fixed-address 192.0.2.10;"
    let lease = try lease("/var/lib/dhcp/x.leases", ByteString(text))
    #expect(lease.address?.text == "192.0.2.8")
    #expect(lease.rootPath?.value == "r;}\"A")
  }

  @Test("is nothing when dhcpcd's packet is cut off anywhere before its options")
  func packetTruncation() throws {
    let packet = Fixtures.dhcpcd.bytes
    for count in 0...packet.count {
      let file = LeaseFile(
        path: "/var/lib/dhcpcd/eth0.lease", bytes: ByteString(packet[..<count]),
        modificationTime: 0)
      let lease = try plan(for: Self.input("", [file])).lease
      #expect((lease == nil) == (count < 240))
    }
  }
}

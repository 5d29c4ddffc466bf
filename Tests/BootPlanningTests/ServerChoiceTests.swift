// SPDX-License-Identifier: Apache-2.0
// Which server is meant when the parameter leaves it to the network, and whose lease counts.

import BootPlanning
import Testing
import WireFormat

@Suite("A server that no parameter names")
struct ServerChoiceTests {
  private typealias Server = (server: String?, origin: ServerOrigin?)

  private func choice(_ input: PlanningInput) throws -> Server {
    let target = try #require(try plan(for: input).targets.first)
    return (target.paths.first?.server.text?.testText, target.serverOrigin)
  }

  private func file(
    _ path: ByteString, _ text: ByteString, modified: Int64 = 1000
  ) -> LeaseFile {
    LeaseFile(path: path, bytes: text, modificationTime: modified)
  }

  /// Each line is taken away in turn; the next one then counts.
  static let steps: [(String, String, String)] = [
    ("new_root_path=192.0.2.3:/x", "192.0.2.3", "root-path in new_root_path"),
    ("new_next_server=192.0.2.2", "192.0.2.2", "new_next_server"),
    ("new_tftp_server_name=192.0.2.4", "192.0.2.4", "new_tftp_server_name"),
    ("new_dhcp_server_identifier=192.0.2.1", "192.0.2.1", "new_dhcp_server_identifier"),
  ]

  @Test("is the first of root-path, next-server, option 66 and the DHCP server")
  func order() throws {
    for index in Self.steps.indices {
      let text = Self.steps[index...].map(\.0).joined(separator: "\n") + "\n"
      let path: ByteString = "/tmp/dhclient.eth0.dhcpopts"
      let input = LeaseTests.input("nbdroot=:10810/a", [file(path, ByteString(text))], .dracut)
      let chosen = try choice(input)
      #expect(chosen.server == Self.steps[index].1)
      #expect(
        chosen.origin
          == .lease(interface: "eth0", field: ByteString(Self.steps[index].2), path: path))
      let warnings = try plan(for: input).warnings
      #expect(warnings.isEmpty == (index < 3), "only the DHCP server is a guess")
    }
  }

  static let unusable: [String] = [
    "new_next_server=0.0.0.0", "new_next_server=255.255.255.255", "new_next_server=192.0.2.50",
    "new_next_server=x", "new_root_path=iscsi:192.0.2.7::::x", "new_root_path=/only/a/path",
    "new_tftp_server_name=bootsrv.example192.0.2.4", "new_tftp_server_name=bootsrv.example",
    "new_dhcp_server_identifier=192.0.2.50",
  ]

  @Test(
    "is not an address that stands for none, our own, or text glued together",
    arguments: unusable)
  func refusesUnusable(line: String) {
    let text = ByteString("new_ip_address=192.0.2.50\n\(line)\n")
    let input = LeaseTests.input(
      "nbdroot=:10810/a", [file("/tmp/dhclient.eth0.dhcpopts", text)], .dracut)
    #expect(outcome(of: input) == "error: server unknown")
  }

  @Test("may be a host name when there is somebody to ask for its address")
  func serverName() throws {
    let text: ByteString =
      "new_tftp_server_name=boot.example\nnew_domain_name_servers=192.0.2.53\n"
    let chosen = try choice(
      LeaseTests.input("nbdroot=/a", [file("/tmp/dhclient.eth0.dhcpopts", text)], .dracut))
    #expect(chosen.server == "boot.example")
  }

  @Test("is listed with all that was looked at when there is none")
  func account() {
    let text: ByteString = "DEVICE=eth0\nIPV4ADDR=192.0.2.50\nROOTPATH=/srv\n"
    let input = LeaseTests.input("nbdroot=/a", [file("/run/net-eth0.conf", text)])
    do {
      _ = try plan(for: input)
      Issue.record("planned")
    } catch {
      #expect(
        error.report.reason
          == "nbdroot= leaves the server to DHCP, which named none: looked in /run/net-eth0.conf; "
          + "root-path '/srv', no next-server, no second field of ip=, no option 66 or sname, "
          + "no DHCP server")
      #expect(!error.isRequestWrong)
    }
  }

  @Test("is pending before the network is up")
  func pending() throws {
    for line: ByteString in [
      "nbdroot=/a", "nbdroot=dhcp", "nbdroot=", "root=dhcp", "root=/dev/nbd0", "netroot=dhcp",
      "root=nbd::a", "ibnbd-root=device_path=a",
    ] {
      var input = PlanningInput(commandLine: line)
      input.allowsMissingLease = true
      let plan = try plan(for: input)
      #expect(plan.targets.count == 1 && plan.targets[0].isPending && plan.needsNetwork)
    }
    var input = PlanningInput(commandLine: "root=/dev/sda1")
    input.allowsMissingLease = true
    #expect(try plan(for: input).isEmpty)
  }

  // MARK: Whose lease

  @Test("comes from the lease of the boot interface")
  func bootInterface() throws {
    let files = [
      file("/run/net-eth0.conf", "DEVICE=eth0\nROOTSERVER=192.0.2.10\n", modified: 2000),
      file("/run/net-eth1.conf", "DEVICE=eth1\nROOTSERVER=192.0.2.11\n", modified: 1000),
    ]
    let first = try choice(LeaseTests.input("nbdroot=/a", files, .initramfsTools))
    #expect(first.server == "192.0.2.10", "the newest, when nothing says which")
    for word in ["ip=:::::eth1:dhcp", "BOOTIF=01-02-00-00-00-00-02", "bootdev=eth1", "ip=eth1"] {
      let chosen = try choice(
        LeaseTests.input(ByteString("nbdroot=/a \(word)"), files, .initramfsTools))
      #expect(chosen.server == "192.0.2.11", "\(word)")
    }
    let absent = try choice(LeaseTests.input("nbdroot=/a bootdev=eth7", files, .initramfsTools))
    #expect(absent.server == "192.0.2.10", "a boot interface without a lease decides nothing")
  }

  /// In the order in which they are believed, where nothing else decides.
  static let producers: [(ByteString, ByteString)] = [
    ("/run/NetworkManager/devices/2", "next-server=192.0.2.21\n"),
    ("/run/systemd/netif/leases/2", "NEXT_SERVER=192.0.2.22\n"),
    ("/run/net-eth0.conf", "ROOTSERVER=192.0.2.23\n"),
    ("/tmp/net-eth0.conf", "ROOTSERVER=192.0.2.24\n"),
    ("/tmp/dhclient.eth0.dhcpopts", "new_next_server=192.0.2.25\n"),
    ("/proc/net/pnp", "#PROTO: DHCP\nbootserver 192.0.2.26\n"),
  ]

  @Test("comes from the producers in their order")
  func producerOrder() throws {
    for index in Self.producers.indices {
      let files = Self.producers[index...].reversed().map { file($0.0, $0.1) }
      #expect(
        try choice(LeaseTests.input("nbdroot=/a", files)).server == "192.0.2.\(21 + index)")
    }
    let all = Self.producers.map { file($0.0, $0.1) }
    #expect(try choice(LeaseTests.input("nbdroot=/a", all, .dracut)).server == "192.0.2.25")
    #expect(try choice(LeaseTests.input("nbdroot=/a", all, .initramfsTools)).server == "192.0.2.23")
  }

  @Test("is completed by the other files of the same interface, and by no other's")
  func gaps() throws {
    let plan = try plan(
      for: LeaseTests.input(
        "nbdroot=/a",
        [
          file("/tmp/dhclient.eth0.dhcpopts", "new_next_server='192.0.2.2'\n"),
          file("/run/NetworkManager/devices/2", "dhcp4.domain_name_servers=192.0.2.53\n"),
          file("/run/NetworkManager/devices/3", "dhcp4.host_name=wrong\n"),
          file("/var/lib/dhcpcd/eth0.lease", Fixtures.dhcpcd),
        ], .dracut))
    #expect(plan.resolver.nameServers.map { $0.text?.testText } == ["192.0.2.53"])
    #expect(plan.lease?.hostName == nil)
    #expect(plan.lease?.rootPath == nil, "a file that outlives boots counts only alone")
    #expect(plan.interface == "eth0")
  }

  @Test("is not what the kernel made of an ip= in dracut's form, or of a peer")
  func kernelNonsense() {
    let pnp = file("/proc/net/pnp", "#MANUAL\nbootserver 62.0.0.0\n")
    #expect(
      outcome(of: LeaseTests.input("nbdroot=/a ip=eth0:dhcp", [pnp])) == "error: server unknown")
    #expect(
      outcome(of: LeaseTests.input("nbdroot=/a ip=192.0.2.4:62.0.0.0", [pnp], .dracut))
        == "error: server unknown")
    #expect(
      outcome(of: LeaseTests.input("nbdroot=a/a ip=eth0:dhcp", [pnp]))
        == #"a 10809 "a" nbd0; root /dev/nbd0"#)
  }

  @Test("comes from no file above the limits, and the plan says so")
  func limits() throws {
    let long = ByteString([UInt8](repeating: 0x23, count: LeaseFile.byteCountMaximum))
    let line: ByteString = "\nROOTSERVER=192.0.2.2\n"
    let tooLong = LeaseTests.input("nbdroot=h/a", [file("/run/net-eth0.conf", long + line)])
    let plan = try plan(for: tooLong)
    #expect(plan.lease == nil)
    #expect(
      plan.warnings
        == [.leaseFileTooLong(path: "/run/net-eth0.conf", maximum: LeaseFile.byteCountMaximum)])
    var many = LeaseTests.input("nbdroot=h/a", [])
    many.leaseFiles = (0..<65).map { file(ByteString("/run/net-e\($0).conf"), "IPV4ADDR=1.2.3.4") }
    #expect(
      try BootPlanning.plan(for: many).warnings == [.tooManyLeaseFiles(count: 65, maximum: 64)])
  }
}

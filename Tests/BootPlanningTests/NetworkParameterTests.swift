// SPDX-License-Identifier: Apache-2.0
// `ip=` and `BOOTIF=`, as far as a plan depends on them: who serves when the address is static, and
// which interface boots. The second field is a server to the kernel and klibc, a peer to dracut.

import BootPlanning
import Testing
import WireFormat

@Suite("ip= and BOOTIF=")
struct NetworkParameterTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let id: String
    let line: String
    /// The server of `nbdroot=/foo` without any lease; nil when it stays unknown.
    let bare: String?
    let dracut: String?
    let interface: String?
    /// Part of a derived session name.
    var host: String?
    var nameServers: [String] = []
    var testDescription: String { "\(id) \(line)" }
  }

  static let cases = [
    Case(id: "I01", line: "ip=dhcp", bare: nil, dracut: nil, interface: nil),
    Case(
      id: "I02",
      line: "ip=192.0.2.60:192.0.2.9:192.0.2.1:255.255.255.0:hh.dom:eth0:off:"
        + "192.0.2.53:192.0.2.54:192.0.2.123",
      bare: "192.0.2.9", dracut: nil, interface: "eth0", host: "hh",
      nameServers: ["192.0.2.53", "192.0.2.54"]),
    Case(
      id: "I03", line: "ip=192.0.2.50::192.0.2.1:255.255.255.0:h1:eth0:none", bare: nil,
      dracut: nil, interface: "eth0", host: "h1"),
    Case(
      id: "I04", line: "ip=::::h2:eth0:dhcp", bare: nil, dracut: nil, interface: "eth0",
      host: "h2"),
    Case(id: "I05", line: "ip=eth0:dhcp", bare: nil, dracut: nil, interface: "eth0"),
    Case(
      id: "I06", line: "ip=[2001:db8::5]::[2001:db8::1]:64:h:eth0:none", bare: nil, dracut: nil,
      interface: "eth0", host: "h"),
    Case(id: "I07 off", line: "ip=off", bare: nil, dracut: nil, interface: nil),
    Case(id: "I07 none", line: "ip=none", bare: nil, dracut: nil, interface: nil),
    Case(id: "I08", line: "", bare: nil, dracut: nil, interface: nil),
    Case(
      id: "I09", line: "BOOTIF=01-52-54-00-12-34-99 ip=dhcp", bare: nil, dracut: nil,
      interface: "eth1"),
    Case(
      id: "I10", line: "nfsaddrs=192.0.2.60:192.0.2.9::::eth0", bare: "192.0.2.9", dracut: nil,
      interface: "eth0"),
    Case(
      id: "I11", line: "ip=192.0.2.60::::h", bare: nil, dracut: nil, interface: nil, host: "h"),
    Case(id: "I12", line: "ip=eth0", bare: nil, dracut: nil, interface: "eth0"),
  ]

  private func input(_ line: String, _ environment: PlanningInput.Environment) -> PlanningInput {
    var input = PlanningInput(commandLine: ByteString(line))
    input.environment = environment
    input.interfaces = [
      InterfaceDescription(
        name: "eth0", index: 2, hardwareAddress: [0x52, 0x54, 0, 0x12, 0x34, 0x98]),
      InterfaceDescription(
        name: "eth1", index: 3, hardwareAddress: [0x52, 0x54, 0, 0x12, 0x34, 0x99]),
    ]
    return input
  }

  @Test("name a server only where the second field is one", arguments: cases)
  func server(row: Case) {
    for (environment, server) in [
      (PlanningInput.Environment.bare, row.bare), (.dracut, row.dracut),
    ] {
      let expected =
        server.map { "\($0) 10809 \"foo\" then \"/foo\" nbd0; root /dev/nbd0" }
        ?? "error: server unknown"
      #expect(outcome(of: input("nbdroot=/foo \(row.line)", environment)) == expected)
    }
  }

  @Test("name the interface, this machine and its name servers", arguments: cases)
  func interface(row: Case) throws {
    // nfsaddrs= is the kernel's alone.
    let line = "ibnbd-root=path=ip:10.0.0.1,device_path=a \(row.line)"
    let plan = try plan(for: input(line, .bare))
    #expect(plan.interface?.testText == row.interface)
    #expect(plan.resolver.nameServers.map { $0.text?.testText } == row.nameServers)
    if let host = row.host {
      #expect(plan.targets.first?.session?.testText == "clt_\(host)-srv_10.0.0.1")
    }
  }

  @Test("let a session be named after the interface when this machine has no name")
  func sessionFromHardwareAddress() throws {
    let plan = try plan(
      for: input("ibnbd-root=path=ip:10.0.0.1,device_path=a BOOTIF=52:54:00:12:34:99", .bare))
    #expect(plan.targets.first?.session == "clt_52:54:00:12:34:99-srv_10.0.0.1")
  }

  @Test("add name servers of dracut's nameserver=")
  func nameServers() throws {
    let plan = try plan(
      for: input("nbdroot=h/a nameserver=192.0.2.7 nameserver=[x] nameserver=2001:db8::7", .dracut))
    #expect(plan.resolver.nameServers.map { $0.text?.testText } == ["192.0.2.7", "2001:db8::7"])
  }

  @Test("are shadowed by what the parameter itself says")
  func parameterWins() {
    let line = "nbdroot=192.0.2.77/foo ip=192.0.2.60:192.0.2.9::255.255.255.0::eth0:off"
    #expect(outcome(of: input(line, .bare)) == #"192.0.2.77 10809 "foo" nbd0; root /dev/nbd0"#)
  }
}

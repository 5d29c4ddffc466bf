// SPDX-License-Identifier: Apache-2.0
// What PID 1 reads besides the plan. Sources: Linux `Documentation/admin-guide/nfs/nfsroot.rst`,
// `Documentation/admin-guide/kernel-parameters.txt`; dracut.cmdline(7).

import BootPlanning
import TestSupport
import Testing
import WireFormat

@Suite("The parameters of PID 1")
struct StartParametersTests {
  static func v4(_ text: String) -> IPv4Address { IPv4Address(Array(text.utf8)[...])! }
  static func v6(_ text: String) -> ServerAddress {
    .ipv6(IPv6Address(Array(text.utf8)[...])!, scope: "")
  }
  static func fixed(_ text: String, _ length: UInt8) -> InterfaceRequest.Method {
    .fixed(InterfaceAddress(.ipv4(v4(text)), prefixLength: length))
  }
  static func onEth0(
    _ method: InterfaceRequest.Method = .dhcp, _ change: (inout InterfaceRequest) -> Void = { _ in }
  ) -> InterfaceRequest {
    request(method) {
      $0.interface = "eth0"
      change(&$0)
    }
  }
  static func request(
    _ method: InterfaceRequest.Method, _ change: (inout InterfaceRequest) -> Void = { _ in }
  ) -> InterfaceRequest {
    var request = InterfaceRequest(method)
    change(&request)
    return request
  }

  /// What `ip=` means; nil: it is refused.
  static let rows: [(String, InterfaceRequest?)] = [
    ("dhcp", request(.dhcp)), ("on", request(.dhcp)), ("any", request(.dhcp)), ("", request(.dhcp)),
    ("off", request(.none)), ("none", request(.none)), ("dhcp6", request(.dhcp6)),
    ("auto6", request(.routerAdvertisement)), ("either6", request(.either6)),
    ("link6", request(.linkLocal6)), ("bootp", request(.dhcp)), ("rarp", nil), ("eth0", nil),
    (
      "192.0.2.60:192.0.2.9:192.0.2.1:255.255.255.0:hh:eth0:off:192.0.2.53:192.0.2.54:192.0.2.123",
      request(fixed("192.0.2.60", 24)) {
        $0.server = v4("192.0.2.9")
        $0.gateway = .ipv4(v4("192.0.2.1"))
        $0.hostName = "hh"
        $0.interface = "eth0"
        $0.nameServers = [.ipv4(v4("192.0.2.53")), .ipv4(v4("192.0.2.54"))]
        $0.timeServers = [v4("192.0.2.123")]
      }
    ),
    ("192.0.2.60", request(fixed("192.0.2.60", 24))),
    ("10.1.2.3", request(fixed("10.1.2.3", 8))),
    ("172.16.0.1", request(fixed("172.16.0.1", 16))),
    ("224.0.0.1", nil), ("192.0.2.60/26", request(fixed("192.0.2.60", 26))),
    ("192.0.2.60/0", nil), ("192.0.2.60/33", nil), ("192.0.2.60/", nil),
    ("192.0.2.60:::26", request(fixed("192.0.2.60", 26))),
    ("192.0.2.60:::255.0.255.0", nil), ("192.0.2.60:::255.255.255.256", nil),
    ("192.0.2.60:::0.0.0.0", nil),
    ("192.0.2.60:::255.255.255.255", request(fixed("192.0.2.60", 32))),
    ("192.0.2.60::::::dhcp", request(fixed("192.0.2.60", 24))),
    (":::::eth1:dhcp", request(.dhcp) { $0.interface = "eth1" }),
    ("::::h2:eth0", onEth0 { $0.hostName = "h2" }),
    (":::::eth0:off", request(.none) { $0.interface = "eth0" }),
    (":::::eth0:sometimes", nil), (":::::sixteen-letters!", nil), ("::::a..b:eth0", nil),
    ("::192.0.2.256", nil), (":192.0.2.9x", nil),
    (":::::::192.0.2.53:192.0.2.54:192.0.2.123:more", nil),
    (
      "[2001:db8::5]::[2001:db8::1]:64:h:eth0:none",
      request(.fixed(InterfaceAddress(v6("2001:db8::5"), prefixLength: 64))) {
        $0.gateway = v6("2001:db8::1")
        $0.hostName = "h"
        $0.interface = "eth0"
      }
    ),
    (
      "[2001:db8::5]/56",
      request(.fixed(InterfaceAddress(v6("2001:db8::5"), prefixLength: 56)))
    ),
    ("[2001:db8::5]:::129", nil), ("[2001:db8::5]:::255.255.255.0", nil),
    ("[2001:db8::5]::192.0.2.1", nil), ("[2001:db8::5", nil),
    ("192.0.2.60::[2001:db8::1]", nil),
    ("eth0:dhcp", request(.dhcp) { $0.interface = "eth0" }),
    ("eth0:auto6", request(.routerAdvertisement) { $0.interface = "eth0" }),
    ("eth0:dhcp:9000", onEth0 { $0.mtuByteCount = 9000 }),
    (
      "eth0:dhcp:1500:52:54:00:12:34:56",
      request(.dhcp) {
        $0.interface = "eth0"
        $0.mtuByteCount = 1500
        $0.hardwareAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
      }
    ),
    (
      "eth0:dhcp::52-54-00-12-34-56",
      request(.dhcp) {
        $0.interface = "eth0"
        $0.hardwareAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
      }
    ),
    ("eth0:dhcp:67", nil), ("eth0:dhcp:68", onEth0 { $0.mtuByteCount = 68 }),
    ("eth0:dhcp:65537", nil), ("eth0:dhcp::52-54-00-12-34", nil), ("eth0:dhcp::52:54:00", nil),
    (
      "192.0.2.60:::24::eth0:none:1400:52:54:00:12:34:56",
      request(fixed("192.0.2.60", 24)) {
        $0.interface = "eth0"
        $0.mtuByteCount = 1400
        $0.hardwareAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
      }
    ),
  ]

  @Test("say how each interface is configured", arguments: rows)
  func interfaces(value: String, request: InterfaceRequest?) throws {
    guard let request else {
      #expect(throws: PlanError.self) {
        try StartParameters(commandLine: ByteString("a ip=\(value)"))
      }
      return
    }
    #expect(try StartParameters(commandLine: ByteString("ip=\(value)")).interfaces == [request])
  }

  @Test("are refused with the place where they go wrong")
  func places() {
    let rows: [(String, Int)] = [
      ("ro ip=192.0.2.60:::255.0.255.0", 13), ("rw vlan=eth0", 0), ("rootlink.overlay=ram", 0),
      ("rootlink.panic=604801", 0), ("rootdelay=x", 0), ("nameserver=[::1", 0),
    ]
    for (line, offset) in rows {
      do throws(PlanError) {
        _ = try StartParameters(commandLine: ByteString(line))
        Issue.record("\(line) was taken")
      } catch {
        guard case .malformed(let name, _, let column?, let syntax) = error else {
          Issue.record("\(error)")
          continue
        }
        #expect(syntax.offset == offset, "\(line)")
        #expect(line.utf8.count >= column && error.isRequestWrong, "\(line) \(name.printable)")
        #expect(error.report.reason.utf8.count > 20)
      }
    }
  }

  @Test("say what the root is and what is started on it")
  func root() throws {
    let line: ByteString = """
      root=UUID=12-34 rootfstype=ext4,btrfs rootflags="a b" ro rw rootwait=30 rootdelay=5 \
      init=/bin/sh rootlink.overlay=tmpfs,size=512m rootlink.panic=10 rd.break=pre-mount \
      modprobe.blacklist=e1000-e,ahci modprobe.blacklist=e1000_e module_blacklist=x \
      BOOTIF=01-52-54-00-12-34-56 vlan=vlan0005:eth0 vlan=eth0.6:eth0 nameserver=192.0.2.53 \
      -- single "a b" c="d e" -- f
      """
    let start = try StartParameters(commandLine: line)
    #expect(start.root == "UUID=12-34" && start.rootFileSystems == ["ext4", "btrfs"])
    #expect(start.rootFlags == "a b" && start.isReadOnly == false)
    #expect(start.rootWait == .seconds(30) && start.rootDelaySeconds == 5)
    #expect(start.initProgram == "/bin/sh" && start.restartSeconds == 10)
    #expect(start.overlay == MemoryOverlay(size: .bytes(512 << 20)))
    #expect(start.wantsShell)
    #expect(try StartParameters(commandLine: "break").wantsShell)
    #expect(start.blacklistedModules == ["e1000_e", "ahci", "x"])
    #expect(start.bootHardwareAddress == [0x52, 0x54, 0, 0x12, 0x34, 0x56])
    #expect(
      start.vlans == [
        VLANRequest(name: "vlan0005", parent: "eth0", identifier: 5),
        VLANRequest(name: "eth0.6", parent: "eth0", identifier: 6),
      ])
    #expect(start.initArguments == ["single", "a b", "c=d e", "--", "f"])
    #expect(try StartParameters(commandLine: "") == StartParameters())
  }

  static let overlays: [(ByteString, MemoryOverlay.Size?)] = [
    ("tmpfs", .usual), ("tmpfs,size=1", .bytes(1)), ("tmpfs,size=2k", .bytes(2048)),
    ("tmpfs,size=3G", .bytes(3 << 30)), ("tmpfs,size=100%", .percent(100)),
    ("tmpfs,size=101%", nil), ("tmpfs,size=0%", nil), ("tmpfs,size=0", nil), ("tmpfs,size=", nil),
    ("tmpfs,", nil), ("tmpfs,mode=1", nil), ("ramfs", nil), ("", nil), ("tmpfs,size=k", nil),
    ("tmpfs,size=1048576g", .bytes(1 << 50)), ("tmpfs,size=1048577g", nil),
    ("tmpfs,size=1125899906842625", nil),
  ]
  @Test("say how large an overlay may become", arguments: overlays)
  func overlay(value: ByteString, size: MemoryOverlay.Size?) {
    let start = try? StartParameters(commandLine: "rootlink.overlay=" + value)
    #expect(start?.overlay?.size == size)
  }

  @Test(
    "name a VLAN of 1 to 4094 only",
    arguments: [
      ("vlan1:e", true), ("vlan4094:e", true), ("vlan0:e", false), ("vlan4095:e", false),
      ("vlan:e", false), ("5:e", false), ("vlan5:", false), ("vlan5", false), (":e", false),
    ])
  func vlans(value: String, isTaken: Bool) {
    #expect(((try? StartParameters(commandLine: ByteString("vlan=\(value)"))) != nil) == isTaken)
  }

  @Test(
    "pass over a BOOTIF= that is none",
    arguments: ["", "01-52-54", "x", "01-52-54-00-12-34-56-"])
  func bootInterface(value: String) throws {
    #expect(
      try StartParameters(commandLine: ByteString("BOOTIF=\(value)")).bootHardwareAddress == nil)
  }

  @Test("of mutated bytes never trap", arguments: 0..<10)
  func mutated(shard: Int) {
    var generator = SeededGenerator(printingAs: "start parameters")
    let lines =
      Self.rows.map { Array("ip=\($0.0)".utf8) }
      + Self.overlays.map { Array("rootlink.overlay=".utf8) + $0.0.bytes }
      + ["vlan=eth0.5:eth0 -- a \"b c\"", "BOOTIF=01-52-54-00-12-34-56 rootfstype=a,b rootwait=3"]
      .map { Array($0.utf8) }
    var mutator = ByteMutator(
      samples: lines, alphabet: RandomInputTests.alphabet, seed: generator.next())
    var taken = 0
    for _ in 0..<100_000 {
      do throws(PlanError) {
        _ = try StartParameters(commandLine: ByteString(mutator.next()))
        taken += 1
      } catch {
        if taken % 64 == 0 { _ = error.report }
      }
    }
    #expect(taken > 10_000)
  }
}

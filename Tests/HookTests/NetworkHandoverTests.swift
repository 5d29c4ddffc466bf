// SPDX-License-Identifier: Apache-2.0
import BootExecution
import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@Suite("The handover to the network manager of the root")
struct NetworkHandoverTests {
  static let ethernet = NetworkInterface(
    name: "enp0s2", hardwareAddress: [0x52, 0x54, 0, 0x12, 0x34, 0x56], prefixLength: 24)

  static func attachment(
    _ device: ByteString = "/dev/nbd0", over interface: NetworkInterface? = ethernet
  ) -> NetworkHandover.Attachment {
    NetworkHandover.Attachment(
      device: device, export: "root\"\n", transport: interface == nil ? "unix" : "tcp",
      serverAddress: "192.0.2.1", serverPort: 10809, localAddress: "192.0.2.60",
      interface: interface)
  }

  static func text(_ path: ByteString, of handover: NetworkHandover) -> String? {
    for file in handover.files where file.path == path {
      return String(decoding: file.text.bytes, as: UTF8.self)
    }
    return nil
  }

  /// Source: systemd.network(5), NetworkManager.conf(5), ifup(8), systemd.unit(5).
  static let expected: [(path: ByteString, lines: [String])] = [
    (
      "/run/systemd/network/00-rootlink-enp0s2.network",
      ["[Match]", "Name=enp0s2", "DHCP=no", "KeepConfiguration=yes", "LinkLocalAddressing=ipv6"]
    ),
    (
      "/run/NetworkManager/conf.d/00-rootlink-enp0s2.conf",
      ["match-device=mac:52:54:00:12:34:56", "managed=0"]
    ),
    ("/run/network/ifstate", ["enp0s2=enp0s2"]),
    ("/run/network/ifstate.enp0s2", ["enp0s2"]),
    ("/run/systemd/system/ifup@enp0s2.service.d/rootlink.conf", ["[Service]", "ExecStop="]),
    (
      "/run/systemd/system/networking.service.d/rootlink.conf",
      ["ExecStop=/sbin/ifdown -a --read-environment --exclude=lo --exclude=enp0s2"]
    ),
  ]

  @Test("leaves each manager what makes it keep the address", arguments: expected)
  func perManager(path: ByteString, lines: [String]) throws {
    let handover = NetworkHandover(attachments: [Self.attachment()])
    let written = try #require(Self.text(path, of: handover)).split(separator: "\n").map(
      String.init)
    for line in lines { #expect(written.contains(line), "\(line)") }
  }

  @Test("is a JSON record that a parser reads back, whatever bytes a name holds")
  func record() throws {
    let handover = NetworkHandover(
      attachments: [Self.attachment(), Self.attachment("/dev/nbd1", over: nil)],
      gateway: "192.0.2.254", nameServers: ["192.0.2.53"], searchDomains: ["lab.example"])
    let text = try #require(Self.text("/run/rootlink/attachment.json", of: handover))
    let record = try #require(
      try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    let attachments = try #require(record["attachments"] as? [[String: Any]])
    #expect(attachments.count == 2)
    #expect(attachments[0]["export"] as? String == "root\"\n")
    #expect(attachments[0]["port"] as? Int == 10809)
    #expect(attachments[0]["hardwareAddress"] as? String == "52:54:00:12:34:56")
    #expect(attachments[0]["prefixLength"] as? Int == 24)
    #expect(attachments[1]["interface"] == nil)
    #expect(record["gateway"] as? String == "192.0.2.254")
    #expect(record["nameServers"] as? [String] == ["192.0.2.53"])
  }

  @Test("takes no line, section or path from a lease or an interface name")
  func injection() throws {
    let handover = NetworkHandover(
      attachments: [Self.attachment()],
      nameServers: ["192.0.2.53", "1.1.1.1\n[Match]", "", "2001:db8::53"],
      searchDomains: ["lab.example", "x\nDHCP=yes", "a b"])
    let text = try #require(
      Self.text("/run/systemd/network/00-rootlink-enp0s2.network", of: handover))
    let lines = text.split(separator: "\n")
    #expect(lines.filter { $0.hasPrefix("DNS=") } == ["DNS=192.0.2.53", "DNS=2001:db8::53"])
    #expect(lines.filter { $0.hasPrefix("Domains=") } == ["Domains=lab.example"])
    #expect(!lines.contains("DHCP=yes"))

    for name: ByteString in ["..", "a/b", "a b", "eth0\n", "[x]", ""] {
      let odd = NetworkInterface(name: name, hardwareAddress: [], prefixLength: 24)
      let files = NetworkHandover(attachments: [Self.attachment(over: odd)]).files
      #expect(files.map(\.path) == ["/run/rootlink/attachment.json"], "\(name)")
    }
  }

  @Test("leaves the loopback interface and Unix sockets to nobody")
  func loopback() {
    let loopback = NetworkInterface(name: "lo", hardwareAddress: [], prefixLength: 8)
    for interface in [loopback, nil] {
      let files = NetworkHandover(attachments: [Self.attachment(over: interface)]).files
      #expect(files.map(\.path) == ["/run/rootlink/attachment.json"])
    }
  }

  @Test("names a unit of an interface with a dash as systemd does")
  func unitName() {
    let interface = NetworkInterface(name: "br-lan.2", hardwareAddress: [], prefixLength: 24)
    let handover = NetworkHandover(attachments: [Self.attachment(over: interface)])
    #expect(
      Self.text("/run/systemd/system/ifup@br\\x2dlan.2.service.d/rootlink.conf", of: handover)
        != nil)
  }

  @Test("written twice is written once, and keeps what ifupdown's state held")
  func writing() throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(
      "rootlink-handover-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: root) }
    let state = root.appendingPathComponent("run/network/ifstate")
    try FileManager.default.createDirectory(
      at: state.deletingLastPathComponent(), withIntermediateDirectories: true)
    try "lo=lo\n".write(to: state, atomically: true, encoding: .utf8)

    let handover = NetworkHandover(attachments: [
      Self.attachment(), Self.attachment("/dev/nbd1"),
    ])
    try handover.write(below: ByteString(root.path))
    try handover.write(below: ByteString(root.path))
    #expect(try String(contentsOf: state, encoding: .utf8) == "lo=lo\nenp0s2=enp0s2\n")
    for file in handover.files {
      let path = root.path + String(decoding: file.path.bytes, as: UTF8.self)
      #expect(FileManager.default.fileExists(atPath: path), "\(path)")
    }
  }

  @Test("says which file could not be written, and writes the others")
  func failure() throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(
      "rootlink-handover-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: root) }
    let run = root.appendingPathComponent("run")
    try FileManager.default.createDirectory(at: run, withIntermediateDirectories: true)
    try "a file where a directory belongs".write(
      to: run.appendingPathComponent("systemd"), atomically: true, encoding: .utf8)

    let handover = NetworkHandover(attachments: [Self.attachment()])
    let path = ByteString(root.path) + "/run/systemd/network/00-rootlink-enp0s2.network"
    #expect(throws: NetworkHandoverError.notWritten(path: path, SystemError(errno: 20))) {
      try handover.write(below: ByteString(root.path))
    }
    #expect(
      FileManager.default.fileExists(
        atPath: run.appendingPathComponent("rootlink/attachment.json").path))
  }
}

@Suite("The interface that holds an address")
struct NetworkInterfaceTests {
  @Test("is the loopback interface for 127.0.0.1, with the prefix that it has")
  func loopback() throws {
    let found = try NetworkInterface(
      holding: SocketAddress(ipv4: [127, 0, 0, 1], port: 10809))
    #expect(found.name == "lo")
    #expect(found.prefixLength == 8)
  }

  @Test("is none for an address of somebody else")
  func nobody() throws {
    #expect(throws: SystemError(errno: 19)) {
      _ = try NetworkInterface(holding: SocketAddress(ipv4: [192, 0, 2, 77], port: 1))
    }
    #expect(throws: SystemError(errno: 97)) {
      _ = try NetworkInterface(holding: SocketAddress(unixPath: "/run/nbd.sock"))
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// What is collected from a tree of files, and for whom the tree was made.

import BootExecution
import BootPlanning
import Foundation
import Testing
import WireFormat

@Suite("The reader of what a plan depends on")
struct PlanningInputReaderTests {
  /// Makes the files, runs `body` with the directory, and takes everything away again.
  private func withTree(
    _ files: [String: String], _ body: (ByteString) throws -> Void
  ) throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("rootlink-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    for (path, text) in files {
      let file = directory.appendingPathComponent(path)
      try FileManager.default.createDirectory(
        at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: file)
    }
    try body(ByteString(directory.path))
  }

  static let environments: [([String: String], PlanningInput.Environment)] = [
    (["proc/cmdline": ""], .bare),
    (["proc/cmdline": "", "scripts/functions": "", "conf/initramfs.conf": ""], .initramfsTools),
    (["proc/cmdline": "", "scripts/functions": ""], .bare),
    (["proc/cmdline": "", "usr/lib/dracut/hooks/cmdline/x": ""], .dracut),
    (["proc/cmdline": "", "var/lib/dracut/hooks/x": ""], .dracut),
    (["proc/cmdline": "", "dracut-state.sh": ""], .dracut),
    (["proc/cmdline": "", "usr/lib/dracut/modules.d/x": ""], .bare),
  ]

  @Test(
    "tells a dracut image, an image of initramfs-tools and everything else apart",
    arguments: environments)
  func environment(files: [String: String], environment: PlanningInput.Environment) throws {
    try withTree(files) { root in
      let input = try readPlanningInput(root: root)
      #expect(input.environment == environment)
    }
  }

  @Test("joins the command lines of dracut in its order, and takes one elsewhere")
  func commandLines() throws {
    var files = [
      "proc/cmdline": "kernel\n", "etc/cmdline": "etc\n", "etc/cmdline.d/20-b.conf": "b\n",
      "etc/cmdline.d/10-a.conf": "a\n", "etc/cmdline.d/ignored": "x\n",
      "run/initramfs/cmdline.d/y.conf": "run\n",
    ]
    try withTree(files) { root in
      let lines = try readPlanningInput(root: root).commandLines
      #expect(lines == ["kernel\n"])
    }
    files["dracut-state.sh"] = ""
    try withTree(files) { root in
      let lines = try readPlanningInput(root: root).commandLines
      #expect(lines == ["a\n", "b\n", "etc\n", "kernel\n", "run\n"])
      let given = try readPlanningInput(root: root, commandLineOverride: "given")
      #expect(given.commandLines == ["given"])
    }
  }

  @Test("fails without a command line, unless one is given")
  func noCommandLine() throws {
    try withTree(["x": ""]) { root in
      #expect((try? readPlanningInput(root: root)) == nil)
      let given = try readPlanningInput(root: root, commandLineOverride: "a")
      #expect(given.commandLines == ["a"])
    }
  }

  @Test("finds the leases of every producer and the interfaces")
  func leases() throws {
    let paths = [
      "/run/net-eth0.conf", "/tmp/net-eth0.conf", "/tmp/dhclient.eth0.dhcpopts",
      "/tmp/dhclient.eth0.lease", "/run/initramfs/net.eth0.dhcpopts",
      "/run/NetworkManager/devices/2", "/run/systemd/netif/leases/2", "/proc/net/pnp",
      "/var/lib/dhcp/dhclient.leases", "/var/lib/dhcpcd/eth0.lease",
    ]
    var files = [
      "proc/cmdline": "nbdroot=/a\n", "sys/class/net/eth0/ifindex": "2\n",
      "sys/class/net/eth0/address": "52:54:00:12:34:56\n", "sys/class/net/lo/ifindex": "1\n",
      "run/net-big.conf": String(repeating: "#", count: LeaseFile.byteCountMaximum + 1),
    ]
    for path in paths { files[String(path.dropFirst())] = "x" }
    files["run/net-eth0.conf"] = "DEVICE='eth0'\nROOTSERVER='192.0.2.2'\n"
    try withTree(files) { root in
      let input = try readPlanningInput(root: root + "/")
      let found = Set(input.leaseFiles.map { String(decoding: $0.path.bytes, as: UTF8.self) })
      #expect(found == Set(paths))
      #expect(input.oversizedLeasePaths == ["/run/net-big.conf"])
      #expect(
        input.interfaces == [
          InterfaceDescription(
            name: "eth0", index: 2, hardwareAddress: [0x52, 0x54, 0, 0x12, 0x34, 0x56]),
          InterfaceDescription(name: "lo", index: 1, hardwareAddress: []),
        ])
      let plan = try plan(for: input)
      #expect(plan.targets.first?.paths.first?.server.text == "192.0.2.2")
    }
  }
}

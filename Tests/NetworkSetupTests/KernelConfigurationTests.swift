// SPDX-License-Identifier: Apache-2.0
import BootExecution
import BootPlanning
import Foundation
import NetworkSetup
import TestSupport
import Testing
import WireFormat

/// A kernel with CONFIG_IP_PNP, as its files show it: Debian's has it off.
@Suite("What the kernel has configured")
struct KernelConfigurationTests {
  static let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n"
  static let routes =
    heading + "eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    + "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"

  /// As the kernel printed them after `ip=dhcp`.
  static let leased =
    "#PROTO: DHCP\ndomain lab.example\nnameserver 192.0.2.53\nbootserver 192.0.2.2\n"

  func tree(_ files: [String: String]) throws -> (TemporaryDirectory, ByteString) {
    let directory = try TemporaryDirectory()
    for (path, text) in files {
      let url = URL(fileURLWithPath: directory.path(path))
      try FileManager.default.createDirectory(
        at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: url)
    }
    return (directory, ByteString(directory.path))
  }

  @Test("is used: nobody asks for a second lease, and its server is the root's")
  func used() throws {
    let (directory, root) = try tree([
      "proc/net/pnp": Self.leased, "proc/net/route": Self.routes,
      "proc/cmdline": "ip=dhcp nbdroot=dhcp,root\n",
    ])
    defer { withExtendedLifetime(directory) {} }
    #expect(KernelConfiguration(root: root)?.interface == "eth1")
    let plan = try BootPlanning.plan(for: readPlanningInput(root: root))
    let server = try #require(IPv4Address(Array("192.0.2.2".utf8)[...]))
    #expect(plan.targets.first?.paths.first?.server == .ipv4(server))
  }

  @Test("is nothing without routes, without the feature, or when the routes are our own")
  func notUsed() throws {
    let rows: [[String: String]] = [
      ["proc/net/pnp": "#MANUAL\n", "proc/net/route": Self.heading],
      ["proc/net/route": Self.routes],
      [
        "proc/net/pnp": "#MANUAL\n", "proc/net/route": Self.routes,
        "run/net-eth1.conf": "DEVICE='eth1'\n",
      ],
      [
        "proc/net/pnp": "#MANUAL\n",
        "proc/net/route": Self.heading + "lo\t0000007F\t00000000\t0001\n",
      ], [:],
    ]
    for files in rows {
      let (directory, root) = try tree(files)
      #expect(KernelConfiguration(root: root) == nil, "\(files)")
      withExtendedLifetime(directory) {}
    }
  }
}

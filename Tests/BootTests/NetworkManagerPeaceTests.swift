// SPDX-License-Identifier: Apache-2.0
// The interface under the root keeps its address when the running system starts its own network
// manager, though the DHCP server has another address for that second client.

import Foundation
import Testing

@Suite("The address under the root stays", .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
struct NetworkManagerPeaceTests {
  static let managers: [(name: String, unit: String)] = [
    ("networkd", "systemd-networkd.service"),
    ("networkmanager", "NetworkManager.service"),
    ("ifupdown", "networking.service"),
  ]

  @Test("when the system starts its network manager", arguments: managers)
  func keepsItsAddress(name: String, unit: String) async throws {
    let guest = BootGuest(
      name: "peace-\(name)", parameters: "nbdroot=192.0.2.1/root net.ifnames=0",
      check: "systemd.wants=\(unit) bootcheck.unit=\(unit) bootcheck.settle=10", tap: true)
    let outcome = try await guest.boot { network, disk in
      if name == "ifupdown" { try await Self.configureIfupdown(disk) }
      return [try await network.startTapWithDHCP(), try await network.serve(disk)]
    }
    outcome.expectCleanBoot()
    outcome.expectConsole(contains: "boot-check: active: \(unit)")
    let addresses =
      outcome.console.split(separator: "\n")
      .last { $0.contains("boot-check: addresses: ") } ?? ""
    // The range for clients without an identifier, and no address of the other.
    #expect(addresses.contains(#/eth0 UP 192\.0\.2\.1[01][0-9]/24/#), "\(addresses)")
    #expect(!addresses.contains(#/192\.0\.2\.1[56][0-9]/#), "\(addresses)")
  }

  /// `auto eth0`, DHCP, as the Debian installer writes it.
  private static func configureIfupdown(_ disk: URL) async throws {
    let text = disk.appendingPathExtension("interfaces")
    try Data(
      "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n".utf8
    ).write(to: text)
    defer { try? FileManager.default.removeItem(at: text) }
    for request in ["rm /etc/network/interfaces", "write \(text.path) /etc/network/interfaces"] {
      _ = try await HostProcess.run(["debugfs", "-w", "-R", request, disk.path])
    }
  }
}

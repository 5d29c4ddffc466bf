// SPDX-License-Identifier: Apache-2.0
// The interface under the root keeps its address when the running system starts its own network
// manager, though the DHCP server has another address for that second client.

import Foundation
import Testing

@Suite("The address under the root stays", .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
struct NetworkManagerPeaceTests {
  struct Manager: Sendable {
    let name: String
    let unit: String
    var kernel = BootGuest.Kernel.linux61
    var disk = BootGuest.Disk.plain
    let parameters: String
  }

  static let managers: [Manager] = [
    Manager(
      name: "networkd", unit: "systemd-networkd.service", kernel: .linux612, disk: .partitioned,
      parameters: "nbdroot=192.0.2.1:10809/root root=/dev/nbd0p1"),
    Manager(
      name: "networkmanager", unit: "NetworkManager.service", parameters: "nbdroot=192.0.2.1/root"),
    // The server is the one of the lease.
    Manager(
      name: "ifupdown", unit: "networking.service", disk: .partitioned,
      parameters: "nbdroot=:root root=UUID=\(BootGuest.partitionUUID)"),
  ]

  @Test("when the system starts its network manager", arguments: managers)
  func keepsItsAddress(manager: Manager) async throws {
    let unit = manager.unit
    let root = manager.disk == .plain ? "/dev/nbd0" : "/dev/nbd0p1"
    let guest = BootGuest(
      name: "peace-\(manager.name)", kernel: manager.kernel, disk: manager.disk,
      parameters: "\(manager.parameters) net.ifnames=0",
      check:
        "systemd.wants=\(unit) bootcheck.unit=\(unit) bootcheck.settle=10 bootcheck.root=\(root)",
      tap: true)
    let outcome = try await guest.boot { network, disk in
      if manager.name == "ifupdown" { try await Self.configureIfupdown(guest, disk) }
      return [try await network.startTapWithDHCP(), try await network.serve(disk)]
    }
    outcome.expectCleanBoot()
    outcome.expectConsole(contains: "boot-check: active: \(unit)")
    outcome.expectKeeper()
    let addresses =
      outcome.console.split(separator: "\n")
      .last { $0.contains("boot-check: addresses: ") } ?? ""
    // The range for clients without an identifier, and no address of the other.
    #expect(addresses.contains(#/eth0 UP 192\.0\.2\.1[01][0-9]/24/#), "\(addresses)")
    #expect(!addresses.contains(#/192\.0\.2\.1[56][0-9]/#), "\(addresses)")
  }

  /// `auto eth0`, DHCP, as the Debian installer writes it.
  private static func configureIfupdown(_ guest: BootGuest, _ disk: URL) async throws {
    let text = disk.appendingPathExtension("interfaces")
    try Data(
      "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n".utf8
    ).write(to: text)
    defer { try? FileManager.default.removeItem(at: text) }
    try await guest.disk.change(
      disk, ["rm /etc/network/interfaces", "write \(text.path) /etc/network/interfaces"])
  }
}

// SPDX-License-Identifier: Apache-2.0
// The main job: a stock Debian 12 boots from `rootlinkd`, writes, reads back, and powers off without
// an I/O error.

import Testing

@Suite("A diskless Debian boots", .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
struct DisklessBootTests {
  /// Beside those that NetworkManagerPeaceTests and DebianLifeTests boot, which look for more:
  /// initramfs-tools, and dracut with networkd.
  static let guests: [BootGuest] = [
    BootGuest(
      name: "dracut-network-legacy-6.1", generator: .dracutLegacy,
      parameters: "root=nbd:10.0.2.2:root:ext4"),
    BootGuest(
      name: "dracut-network-manager-6.1", generator: .dracutNetworkManager,
      parameters: "root=nbd:10.0.2.2:root"),
  ]

  @Test(
    "to its end, from the export that its kernel line names",
    arguments: RunScope.cases(guests, short: 0))
  func bootsToTheEnd(guest: BootGuest) async throws {
    let outcome = try await guest.bootFromServer()
    outcome.expectCleanBoot()
    outcome.expectKeeper()
  }

  @Test(
    "with Debian's own hook in the image too, of which nothing runs, from a server that comes up late"
  )
  func bothHooksLateServer() async throws {
    let guest = BootGuest(
      name: "both-hooks-late-server", hook: .both, parameters: "nbdroot=10.0.2.2/root")
    let outcome = try await guest.boot(
      prepare: { _, _ in [] },
      meanwhile: { running in
        try await running.says { $0.contains("nothing listens there") }
        try await Task.sleep(for: .seconds(20))
        return [try await running.network.serve(running.disk)]
      })
    outcome.expectCleanBoot()
    outcome.expectConsole(contains: "rootlink: attaches the root device; nbd-client's boot script")
    outcome.expectConsole(contains: "/dev/nbd0 is attached")
    #expect(!outcome.console.contains("Setting up nbd-client"))
  }

  @Test(
    "through Debian's nbd-client and its hook: the server serves others' clients",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"))
  func debianClient() async throws {
    let guest = BootGuest(
      name: "nbd-client-hook", hook: .nbdClient,
      parameters: "ip=dhcp root=/dev/nbd0 nbdroot=10.0.2.2:10809/root")
    try await guest.bootFromServer().expectCleanBoot()
  }
}

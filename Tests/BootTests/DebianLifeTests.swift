// SPDX-License-Identifier: Apache-2.0
// A whole Debian through its life: its server goes away and comes back in the middle of its writes,
// its keeper is killed and replaced by systemd, and it powers off, with its server and without.

import Foundation
import Testing

@Suite("A Debian lives on its root", .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
struct DebianLifeTests {
  /// A guest that the host has let wait calls that a bug, too: a soft lockup.
  private static var kernelFault: Regex<Substring> {
    /Kernel panic|BUG: (?!soft lockup)|Oops/
  }

  private func expectLife(
    _ outcome: BootOutcome, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    // What the kernel says of connections that end is no failure here.
    let connectionLines =
      #/Dead connection|Receive control failed|Send .* failed|shutting down sock|Possible stuck/#
    let problems = outcome.problems.filter { !$0.contains(connectionLines) }
    if !problems.isEmpty {
      Issue.record(
        "\(outcome.name): \(problems.joined(separator: "; "))\n\(lastLines(of: outcome.console))",
        sourceLocation: sourceLocation)
    }
    #expect(!outcome.console.contains(Self.kernelFault), sourceLocation: sourceLocation)
  }

  /// Kills the server when the guest says so, and starts it again `seconds` later.
  private static func restart(
    _ server: HostProcess, when sentence: String, after seconds: Int, _ running: RunningGuest
  ) async throws -> HostProcess {
    try await running.says { $0.contains(sentence) }
    try await Task.sleep(for: .seconds(1))
    server.end()
    try await Task.sleep(for: .seconds(seconds))
    return try await running.network.serve(running.disk)
  }

  /// What an administrator installs who wants `systemctl start rootlink-keep@DEVICE`.
  static func installClient(
    _ program: URL = BootLab.client, _ layout: BootGuest.Disk = .plain, on disk: URL
  ) async throws {
    let unit = BootLab.repository.appending(path: "systemd/rootlink-keep@.service")
    try await layout.change(
      disk,
      [
        "write \(program.path) /usr/sbin/rootlink",
        "set_inode_field /usr/sbin/rootlink mode 0100755",
        "write \(unit.path) /etc/systemd/system/rootlink-keep@.service",
      ])
  }

  static let restarted: [BootGuest] = [
    BootGuest(
      name: "life-nbd", parameters: "nbdroot=10.0.2.2/root",
      check: "bootcheck.load=6 bootcheck.keep=nbd0"),
    BootGuest(
      name: "life-ublk", kernel: .linux612,
      parameters: "nbdroot=10.0.2.2/root rootlink.driver=ublk",
      check: "bootcheck.load=6 bootcheck.keep=ublkb0 bootcheck.root=/dev/ublkb0"),
  ]

  @Test(
    "while its server is killed in the middle of its writes, and its keeper, and the server again",
    arguments: RunScope.cases(restarted, short: 1))
  func restarts(guest: BootGuest) async throws {
    let servers = Started()
    let outcome = try await guest.boot(
      prepare: { network, disk in
        try await Self.installClient(BootLab.client, guest.disk, on: disk)
        await servers.add(try await network.serve(disk))
        return await servers.all
      },
      meanwhile: { running in
        for (sentence, seconds) in [("load first: begun", 0), ("load second: begun", 3)] {
          await servers.add(
            try await Self.restart(
              await servers.all.last!, when: sentence, after: seconds, running))
        }
        return await servers.all
      })
    expectLife(outcome)
    outcome.expectConsole(contains: "boot-check: load first: ended after 6 rounds")
    outcome.expectConsole(contains: "boot-check: load second: ended after 6 rounds")
    // Outside of the unit that started it, and of the file system below it: a copy in memory, or for
    // a ublk device, whose own process stands by, what is left of the initramfs.
    let keeper =
      #/boot-check: kept again: 0::/(init\.scope)? /(memfd:|usr/sbin/)rootlink \(deleted\)\n/#
    #expect(outcome.console.contains(keeper), "\(outcome.console)")
  }

  static let unmounted: [BootGuest] = [
    BootGuest(
      name: "life-dracut-nbd", kernel: .linux612, generator: .dracut, disk: .partitioned,
      parameters: "netroot=nbd:10.0.2.2:root root=UUID=\(BootGuest.partitionUUID)",
      check: "bootcheck.root=/dev/nbd0p1 bootcheck.restore"),
    BootGuest(
      name: "life-dracut-ublk", kernel: .linux612, generator: .dracut,
      parameters: "root=nbd:10.0.2.2:root rootlink.driver=ublk",
      check: "bootcheck.root=/dev/ublkb0 bootcheck.restore"),
  ]

  @Test(
    "and dracut's shutdown stage unmounts it, detaches it, and says goodbye to the server",
    arguments: RunScope.cases(unmounted, short: 1))
  func detaches(guest: BootGuest) async throws {
    let outcome = try await guest.boot { network, disk in
      try await Self.putBack(guest, on: disk)
      return [try await network.serve(disk)]
    }
    expectLife(outcome)
    outcome.expectConsole(contains: "Unmounted /oldroot.")
    #expect(outcome.console.contains(#/rootlink: (nbd0|ublkb0) is detached/#))
    #expect(outcome.servers[0].contains(#/left 'root': disconnected/#), "\(outcome.servers[0])")
  }

  /// The initramfs as dracut-shutdown.service would find it, without what a shutdown does not need.
  private static func putBack(_ guest: BootGuest, on disk: URL) async throws {
    let image = try await BootLab.results.path(
      "make-initramfs.sh", "--kernel", guest.kernel.rawValue, "--generator",
      guest.generator.rawValue, "--hook", guest.hook.rawValue)
    let tree = try await BootLab.results.path("unpack-initramfs.sh", image)
    try await guest.disk.change(
      disk, ["rm /boot/initramfs.tar", "write \(tree) /boot/initramfs.tar"])
  }

  static let abandoned: [BootGuest] = [
    BootGuest(name: "gone-nbd", parameters: "nbdroot=10.0.2.2/root", check: "bootcheck.gone"),
    BootGuest(
      name: "gone-ublk", kernel: .linux612,
      parameters: "nbdroot=10.0.2.2/root rootlink.driver=ublk",
      check: "bootcheck.gone bootcheck.root=/dev/ublkb0"),
    BootGuest(
      name: "gone-dracut-nbd", kernel: .linux612, generator: .dracut,
      parameters: "root=nbd:10.0.2.2:root", check: "bootcheck.gone"),
    BootGuest(
      name: "gone-dracut-ublk", kernel: .linux612, generator: .dracut,
      parameters: "root=nbd:10.0.2.2:root rootlink.driver=ublk",
      check: "bootcheck.gone bootcheck.root=/dev/ublkb0"),
  ]

  /// Source: rootlink(8), "SHUTDOWN": 30 s, and at most 90 s more.
  static let boundSeconds = 125.0

  @Test(
    "and powers off within the bound when its server is gone",
    arguments: RunScope.cases(abandoned, short: 0))
  func powersOffAlone(guest: BootGuest) async throws {
    var guest = guest
    guest.replaysJournal = true
    let servers = Started()
    let outcome = try await guest.boot(
      prepare: { network, disk in
        await servers.add(try await network.serve(disk))
        return await servers.all
      },
      meanwhile: { running in
        try await running.says { $0.contains("waiting for the server to go") }
        await servers.all.last!.end()
        return []
      })
    outcome.expectConsole(contains: "its server was away for 30 s; every request fails")
    outcome.expectConsole(contains: "reboot: Power down")
    #expect(outcome.marker == outcome.nonce)
    #expect(outcome.fileSystemIsClean)
    #expect(!outcome.console.contains(Self.kernelFault))
    let asked = try #require(Self.seconds(#/powering off after ([0-9.]+) s/#, outcome.console))
    let off = try #require(Self.seconds(#/\[ *([0-9.]+)\] reboot: Power down/#, outcome.console))
    print("\(guest.name): powered off \(off - asked) s after it was asked to")
    #expect(off - asked >= 29)
    #expect(off - asked <= Self.boundSeconds)
  }

  private static func seconds(_ pattern: Regex<(Substring, Substring)>, _ text: String) -> Double? {
    text.firstMatch(of: pattern).flatMap { Double($0.1) }
  }
}

/// Servers in the order in which they were started.
private actor Started {
  private(set) var all: [HostProcess] = []
  func add(_ server: HostProcess) { all.append(server) }
}

// SPDX-License-Identifier: Apache-2.0
// What a device lives through in the tiny guest: every signal, killall5, and the end of a system
// whose server is gone.

import Foundation
import TestSupport
import Testing

@Suite(
  "Who keeps a device", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct LifeTests {
  struct Setup: Sendable, CustomTestStringConvertible {
    var driver: String
    var kernel: TinyGuest.Kernel
    var connections = 1
    var device: String { driver == "nbd" ? "nbd0" : "ublkb0" }
    var process: String { driver == "nbd" ? "rootlink-keeper" : "rootlink-ublk" }
    var testDescription: String {
      "\(driver), Linux \(kernel.rawValue), connections: \(connections)"
    }
  }

  static let setups: [Setup] = [
    Setup(driver: "nbd", kernel: .stable), Setup(driver: "nbd", kernel: .backports, connections: 4),
    Setup(driver: "ublk", kernel: .backports),
  ]

  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// Shell functions of the scenarios: what is done to the process behind the device.
  private func functions(_ setup: Setup, _ server: FaultyServer) -> String {
    """
    export ROOTLINK_STRICT=1
    keeper() { grep -lx \(setup.process) /proc/[0-9]*/comm | cut -d / -f 3; }
    result attach rootlink attach \(server.uri)/root --device /dev/\(setup.device) \
      --connections \(setup.connections)
    kept=$(keeper)
    mount -t ext4 /dev/\(setup.device) /mnt
    load /mnt >/tmp/load.log &
    rounds 1

    """
  }

  @Test(
    "outlives every signal but one, systemd's SIGSTOP, and killall5",
    arguments: RunScope.cases(setups, short: 1))
  func signals(setup: Setup) throws {
    let image = try fileSystemImage("export.img")
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      functions(setup, server) + """
        result omitted grep -x $kept /run/sendsigs.omit.d/rootlink-\(setup.device)
        for signal in 1 2 3 10 12 13 14 15 16 17 20 21 22 23 24 25 26 27 28 29 34 64; do
          kill -$signal $kept
        done
        rounds 1
        # As systemd-shutdown and killall5 do it to everybody.
        kill -STOP $kept
        sleep 2
        kill -CONT $kept
        rounds 1
        sleep 1000 &
        bystander=$!
        # killall5 spares its own session, so it gets one.
        setsid killall5 -15 $(sed 's/^/-o /' /run/sendsigs.omit.d/*) -o $$
        setsid killall5 -9 $(sed 's/^/-o /' /run/sendsigs.omit.d/*) -o $$
        result bystander grep -q sleeping /proc/$bystander/status
        result same test "$(keeper)" = "$kept"
        rm -f /tmp/load.log
        load /mnt >/tmp/load.log &
        rounds 1
        fault kill-and-restart
        rounds 2
        touch /tmp/stop
        ended $!
        result load grep -v round /tmp/load.log
        result end tail -n 1 /tmp/load.log
        result unmount umount /mnt
        result detach rootlink detach \(setup.device)
        """, kernel: setup.kernel, faults: ["kill-and-restart"]
    ) { try server.suffer($0) }
    for (step, status) in [
      ("attach", 0), ("omitted", 0), ("same", 0), ("load", 1), ("end", 0),
      ("unmount", 0), ("detach", 0),
    ] as [(String, Int32)] {
      #expect(console.status(of: step) == status, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.status(of: "bystander") != 0, "killall5 killed nobody")
    try expectClean(console, image)
  }

  @Test(
    "waits 30 s when the system goes down without its server, then lets every request fail",
    arguments: RunScope.cases(setups, short: 1))
  func goesDown(setup: Setup) throws {
    let image = try fileSystemImage("export.img")
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      functions(setup, server) + """
        # Said while the server is there it changes nothing, and neither does a short absence.
        kill -PWR $kept
        sleep 2
        fault kill
        sleep 4
        fault restart
        rounds 2
        fault kill
        begun=$(cut -d . -f 1 /proc/uptime)
        touch /tmp/stop
        ended $!
        result unmount umount /mnt
        echo "took $(($(cut -d . -f 1 /proc/uptime) - begun)) s"
        dmesg | grep "rootlink: \(setup.device): the system"
        # As at boot the next one asks for the device in vain: it does not hang.
        result read dd if=/dev/\(setup.device) of=/dev/null bs=4096 count=1 iflag=direct
        """, kernel: setup.kernel, faults: ["kill", "restart", "kill"]
    ) { try server.suffer($0) }
    #expect(console.status(of: "attach") == 0)
    #expect(console.status(of: "unmount") != nil, "\(console.lastLines)")
    #expect(console.status(of: "read") == 1)
    let took = try #require(
      console.text.firstMatch(of: /took (\d+) s/).flatMap { Int($0.1) }, "\(console.lastLines)")
    // The clock begins a little after the kill.
    #expect((26...45).contains(took), "\(took) s")
    #expect(console.text.contains("its server was away for 30 s; every request fails"))
    #expect(!console.text.contains(/BUG:|Oops|Kernel panic/), "\(console.lastLines)")
    // A journal that was not written out is replayed once.
    _ = try run("e2fsck", ["-f", "-y", image])
    try expectClean(image)
  }

  @Test(
    "ends the machine when it has not ended 90 s after that, as systemd was asked to",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"), arguments: setups)
  func endsTheMachine(setup: Setup) throws {
    let image = try fileSystemImage("export.img")
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      functions(setup, server) + """
        # What systemd does at the beginning of a shutdown: it lets go of what it has held open.
        sleep 1000 3<>/run/rootlink/shutdown &
        sleep 1
        kill $!
        fault kill
        # Of the output on the console only this is looked for.
        echo "tiny guest: scenario ended"
        sleep 1000
        """, kernel: setup.kernel, faults: ["kill"]
    ) { try server.suffer($0) }
    #expect(
      console.text.contains(
        "the system has not ended since its requests began to fail; power"),
      "\(console.lastLines)")
    #expect(console.text.contains("reboot: Power down"), "\(console.lastLines)")
  }

  private func expectClean(_ console: GuestConsole, _ image: String) throws {
    #expect(!console.text.contains(/I\/O error|EXT4-fs error/), "\(console.lastLines)")
    #expect(console.output(of: "end").contains("ended after"))
    try expectClean(image)
  }

  private func expectClean(_ image: String) throws {
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  private func fileSystemImage(_ name: String) throws -> String {
    let image = try sparseFile(name, mebibytes: 64, in: directory)
    let made = try run("mkfs.ext4", ["-q", "-F", image])
    guard made.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "mkfs.ext4: \(made.standardError)")
    }
    return image
  }
}

// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import Testing

@testable import BootExecution

@Suite("A system that goes down while its server is away")
struct ShutdownPatienceTests {
  struct Look: Sendable {
    var seconds: UInt64
    var isServed = false
    var isGoingDown = true
    var isAbandoned = false
    var order = ShutdownPatience.Order.nothing
  }

  /// Source: rootlink(8), "SHUTDOWN": 30 s, then 90 s.
  static let courses: [(name: String, looks: [Look])] = [
    (
      "waits 30 s, refuses, and is ended 90 s later",
      [
        Look(seconds: 1, order: .warn), Look(seconds: 30), Look(seconds: 31, order: .refuse),
        Look(seconds: 32), Look(seconds: 120), Look(seconds: 121, order: .endMachine),
        Look(seconds: 131, order: .endMachine),
      ]
    ),
    (
      "is ended 10 s after that when nobody else would do it",
      [
        Look(seconds: 1, isAbandoned: true, order: .warn), Look(seconds: 30, isAbandoned: true),
        Look(seconds: 31, isAbandoned: true, order: .refuse), Look(seconds: 41),
        Look(seconds: 40, isAbandoned: true),
        Look(seconds: 41, isAbandoned: true, order: .endMachine),
      ]
    ),
    (
      "is left alone while the server is there",
      [Look(seconds: 1, isServed: true), Look(seconds: 1000, isServed: true)]
    ),
    (
      "waits for ever while it is not going down",
      [Look(seconds: 1, isGoingDown: false), Look(seconds: 100_000, isGoingDown: false)]
    ),
    (
      "counts from the moment when both hold",
      [
        Look(seconds: 1, isGoingDown: false), Look(seconds: 500, order: .warn),
        Look(seconds: 529), Look(seconds: 530, order: .refuse),
      ]
    ),
    (
      "counts anew when the server was back meanwhile",
      [
        Look(seconds: 1, order: .warn), Look(seconds: 30, isServed: true),
        Look(seconds: 40, order: .warn), Look(seconds: 69), Look(seconds: 70, order: .refuse),
      ]
    ),
    (
      "counts anew when the shutdown was called off",
      [
        Look(seconds: 1, order: .warn), Look(seconds: 30, isGoingDown: false),
        Look(seconds: 40, order: .warn), Look(seconds: 69),
      ]
    ),
    (
      "does not go back on its word when the server comes back after that",
      [
        Look(seconds: 0, order: .warn), Look(seconds: 30, order: .refuse),
        Look(seconds: 31, isServed: true, isGoingDown: false),
        Look(seconds: 120, isServed: true, isGoingDown: false, order: .endMachine),
      ]
    ),
  ]

  @Test("is given a bounded time", arguments: courses)
  func course(name: String, looks: [Look]) {
    var patience = ShutdownPatience()
    for look in looks {
      let now = MonotonicTime(nanoseconds: 0).advanced(byMilliseconds: look.seconds * 1000)
      let order = patience.order(
        isServed: look.isServed, isGoingDown: look.isGoingDown, isAbandoned: look.isAbandoned,
        at: now)
      #expect(order == look.order, "\(name), at \(look.seconds) s")
    }
  }

  @Test("is given as long as it was asked for, and for ever with 0")
  func asAskedFor() {
    func orders(_ limit: UInt64, at times: [UInt64]) -> [ShutdownPatience.Order] {
      var patience = ShutdownPatience(absenceSeconds: limit)
      return times.map {
        patience.order(
          isServed: false, isGoingDown: true,
          at: MonotonicTime(nanoseconds: 0).advanced(byMilliseconds: $0 * 1000))
      }
    }
    #expect(orders(5, at: [0, 4, 5]) == [.warn, .nothing, .refuse])
    #expect(orders(0, at: [0, 30, 10_000_000]) == [.nothing, .nothing, .nothing])
  }

  /// Sources: systemd `shutdown.c`, dracut `shutdown.sh`, sysvinit `init.c`.
  static let ends: [(words: String, isRestart: Bool, end: MachineEnd)] = [
    ("/lib/systemd/systemd-shutdown\0poweroff\0--log-level\0006\0", true, .powerOff),
    ("/lib/systemd/systemd-shutdown\0reboot\0--log-level\0006\0", false, .restart),
    ("/lib/systemd/systemd-shutdown\0kexec\0", false, .restart),
    ("/lib/systemd/systemd-shutdown\0halt\0", true, .halt),
    ("/bin/sh\0/shutdown\0reboot\0", false, .restart),
    ("init [0]\0\0\0", true, .powerOff), ("init [6]\0\0\0", false, .restart),
    ("init [2]\0", false, .powerOff),
    ("/sbin/init\0splash\0", true, .restart), ("/sbin/init\0splash\0", false, .powerOff),
    ("", false, .powerOff), ("", true, .restart), ("reboot", false, .restart),
    ("0]", false, .powerOff),
  ]

  @Test("ends as it was asked to", arguments: ends)
  func end(words: String, isRestart: Bool, end: MachineEnd) {
    let bytes = Array(words.utf8)
    #expect(MachineEnd(firstProcess: bytes.span, isRestart: isRestart) == end)
  }
}

// SPDX-License-Identifier: Apache-2.0
// A guest that swaps to the device, runs out of memory, and loses its server meanwhile. The kernel
// then needs the device in order to get memory, and our process must not need memory in order to
// get the device back.

import Foundation
import TestSupport
import Testing

@Suite(
  "A device that is swapped to", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct SwapTests {
  struct Setup: Sendable, CustomTestStringConvertible {
    var driver: String
    var kernel: TinyGuest.Kernel
    var connections: Int
    var device: String { driver == "nbd" ? "nbd0" : "ublkb0" }
    var task: String { driver == "nbd" ? "rootlink-keeper" : "rootlink-ublk" }
    var testDescription: String {
      "\(driver), Linux \(kernel.rawValue), connections: \(connections)"
    }
  }

  static let setups: [Setup] = [
    Setup(driver: "nbd", kernel: .stable, connections: 1),
    Setup(driver: "nbd", kernel: .backports, connections: 4),
    Setup(driver: "ublk", kernel: .backports, connections: 1),
  ]

  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  @Test(
    "gives back what was swapped out, with the server killed in the middle",
    arguments: RunScope.cases(setups.reversed(), short: 1))
  func pressure(setup: Setup) throws {
    let image = try sparseFile("export.img", mebibytes: 1024, in: directory)
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      """
      now() { cut -d' ' -f1 /proc/uptime; }
      count() { sed -n "s/^$1 //p" /proc/vmstat; }
      # 18 files of 12 MiB in memory, which has room for three quarters of them.
      fill() {
        for number in $(seq 1 18); do
          dd if=/dev/urandom of=/big/$number bs=64k count=192 2>/dev/null || return 1
          md5sum /big/$number >>/tmp/sums
          echo "load: round $number at $(now), swapped $(count pswpout)"
        done
      }
      check() {
        while read -r sum name; do
          [ "$(md5sum $name)" = "$sum  $name" ] && echo "load: round $name at $(now)" ||
            echo "load: MISMATCH in $name"
        done </tmp/sums
      }
      result attach env ROOTLINK_STRICT=1 rootlink attach \(server.uri)/root \
        --driver \(setup.driver) --connections \(setup.connections)
      result mkswap mkswap /dev/\(setup.device)
      result swapon swapon /dev/\(setup.device)
      mkdir /big
      mount -t tmpfs -o size=600m tmpfs /big
      result before grep -E "^(MemTotal|MemAvailable|SwapFree)" /proc/meminfo
      : >/tmp/load.log
      fill >>/tmp/load.log 2>&1 &
      rounds 14
      fault kill-and-restart
      rounds 1
      # By the host alone: this shell may be waiting for what is being swapped out of it.
      fault kill-and-restart-later
      ended $!
      echo "load: round, filled" >>/tmp/load.log
      result full grep -E "^(MemFree|MemAvailable|SwapFree)" /proc/meminfo
      check >>/tmp/load.log 2>&1 &
      rounds 4
      fault kill-and-restart
      ended $!
      result log cat /tmp/load.log
      result load grep -v round /tmp/load.log
      result checked grep -c "round /big" /tmp/load.log
      result counts grep -E "^(pswpin|pswpout|oom_kill) " /proc/vmstat
      result alive grep -lx \(setup.task) /proc/[0-9]*/comm
      umount /big
      result swapoff swapoff /dev/\(setup.device)
      result detach rootlink detach \(setup.device)
      result said dmesg
      dmesg | grep -iE "I/O error|Out of memory|blocked for more" || echo "no I/O error"
      """, kernel: setup.kernel, mebibytes: 256, seconds: 550,
      faults: ["kill-and-restart", "kill-and-restart-later", "kill-and-restart"]
    ) { try server.suffer($0) }
    print(console.output(of: "log"), console.output(of: "before"), console.output(of: "full"))
    print(console.output(of: "counts"))
    for step in ["attach", "mkswap", "swapon", "alive", "swapoff", "detach", "checked"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.status(of: "load") == 1, "\(console.output(of: "load"))")
    #expect(console.output(of: "checked").contains("18"))
    #expect(console.text.contains("\nno I/O error"), "\(console.output(of: "said"))")
    // Pages of 4 KiB.
    for name in ["pswpout", "pswpin"] {
      let pages = console.output(of: "counts").firstMatch(of: try Regex("\(name) ([0-9]+)"))
      let count = pages.flatMap { $0.output[1].substring.flatMap { Int($0) } } ?? 0
      #expect(count > 30 * 256, "at least 30 MiB, \(name): \(count) pages")
    }
    #expect(console.output(of: "counts").contains("oom_kill 0"))
  }
}

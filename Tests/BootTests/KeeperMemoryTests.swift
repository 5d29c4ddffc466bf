// SPDX-License-Identifier: Apache-2.0
// What a process that a root device depends on has in memory, and what it never waits for: each
// effect is read from /proc, while connections are lost and brought back.

import Foundation
import TestSupport
import Testing

@Suite(
  "The memory of a process that a device depends on", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct KeeperMemoryTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// `faults PID`: its page faults, small and large. `maps PID`: how much of each mapping is mapped,
  /// resident and locked, in kB. `urgency PID`: rt_priority and policy; `0 0` is an ordinary task's.
  static let functions = """
    export ROOTLINK_STRICT=1
    faults() { sed 's/.*) //' /proc/$1/stat | cut -d ' ' -f 8,10; }
    maps() {
      awk '/^[0-9a-f]+-[0-9a-f]+ /{name=$2 " " $6} /^Size:/{size=$2} /^Rss:/{rss=$2}
        /^VmFlags:/{print name " | " size " " rss " " (/ lo( |$)/ ? rss : 0)}' /proc/$1/smaps
    }
    urgency() { sed 's/.*) //' /proc/$1/stat | cut -d ' ' -f 38,39; }
    task() { grep -lx $1 /proc/[0-9]*/comm | cut -d / -f 3; }
    live() { until rootlink status $1 | grep -qE ": live, |1 connected"; do sleep 0.1; done; }
    # restart DEVICE: its server, and waits until the connection is back.
    connected() { dmesg | grep -cE "connected to .* again after|is there after"; }
    restart() {
      count=$(connected)
      fault kill-and-restart
      until [ "$(connected)" -gt "$count" ]; do sleep 0.1; done
      live $1
    }

    """

  @Test(
    "is locked, does without page faults, and lies on no disk, through a reconnection",
    arguments: ["nbd", "ublk"])
  func memory(driver: String) throws {
    let image = try sparseFile("export.img", mebibytes: 64, in: directory)
    let made = try run("mkfs.ext4", ["-q", "-F", image])
    try #require(made.exitStatus == 0, "\(made.standardError)")
    let server = try FaultyServer(image, in: directory)
    let device = driver == "nbd" ? "nbd0" : "ublkb0"
    let task = driver == "nbd" ? "rootlink-keeper" : "rootlink-ublk"
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach \(server.uri)/root --driver \(driver)
        mount -t ext4 /dev/\(device) /mnt
        process=$(task \(task))
        result first maps $process
        result strict grep Seccomp: /proc/$process/status
        result waiting urgency $process
        restart \(device)
        result files ls -l /proc/$process/fd
        result before faults $process
        restart \(device)
        ls -R /mnt >/dev/null
        restart \(device)
        result after faults $process
        # Again, with a program that lies on the device itself.
        cp /sbin/rootlink /mnt/rootlink
        kill -9 $(task rootlink-standb) $process
        result keep /mnt/rootlink attach --keep /dev/\(device)
        live \(device)
        sync
        echo 3 >/proc/sys/vm/drop_caches
        process=$(task \(task))
        result second maps $process
        result place readlink /proc/$process/exe
        result before-2 faults $process
        restart \(device)
        ls -R /mnt >/dev/null
        result after-2 faults $process
        result unmount umount /mnt
        result detach rootlink detach \(device)
        dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
        """, kernel: .backports, faults: Array(repeating: "kill-and-restart", count: 4)
    ) { try server.suffer($0) }
    for step in ["attach", "keep", "files", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    // A filter ends the process at the first open(2), here and in the other tests of a guest.
    #expect(console.output(of: "strict").hasSuffix("2"), "\(console.output(of: "strict"))")
    // The driver of Linux carries its data itself; of a keeper it only wants that it finds memory.
    let waiting = console.output(of: "waiting")
    #expect(waiting == (driver == "nbd" ? "1 2" : "0 0"), "while it waits")
    expectLocked(console.output(of: "first"))
    expectLocked(console.output(of: "second"))
    // Sockets, the log, the device, the ring: no file that lies on a disk.
    for line in console.output(of: "files").split(separator: "\n") where line.contains("->") {
      let target = line.split(separator: "> ").last ?? ""
      #expect(
        [
          "/dev/null", "/dev/kmsg", "/dev/ublkc0", "anon_inode:[io_uring]",
          "/sys/devices/virtual/block/nbd0/stat",
        ].contains(target)
          || ["socket:", "/proc/1/", "/run/rootlink/"].contains(where: target.hasPrefix), "\(line)")
    }
    #expect(console.output(of: "before") == console.output(of: "after"))
    #expect(console.output(of: "before-2") == console.output(of: "after-2"))
    #expect(
      console.output(of: "place").contains("memfd:rootlink"), "\(console.output(of: "place"))")
    print("\(driver): page faults \(console.output(of: "after"))\n\(console.output(of: "second"))")
  }

  /// Every mapping whole, but for guards and for what is the kernel's own memory.
  private func expectLocked(_ maps: String) {
    var programCount = 0
    for line in maps.split(separator: "\n") {
      let parts = line.components(separatedBy: " | ")
      let numbers = (parts.last ?? "").split(separator: " ").compactMap { Int($0) }
      guard parts.count == 2, numbers.count == 3 else { continue }
      if ["[vvar]", "[vdso]", "[vsyscall]", "[vvar_vclock]"].contains(where: parts[0].hasSuffix) {
        continue
      }
      if parts[0].hasPrefix("---p") || parts[0].contains("-s ") { continue }
      if parts[0].hasPrefix("r-x") { programCount += 1 }
      #expect(numbers[0] == numbers[1], "not all of it is in memory: \(line)")
      #expect(numbers[2] == numbers[1], "not all of it is locked: \(line)")
    }
    #expect(programCount == 1, "\(maps)")
  }
}

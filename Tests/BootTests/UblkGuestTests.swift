// SPDX-License-Identifier: Apache-2.0
// A ublk device in a guest: our process carries its data, over connections that come and go.
//
// ROOTLINK_STRICT is set in every guest: the first allocation or file opened by the process that
// carries the data would end it, and the device with it.

import Foundation
import TestSupport
import Testing

@Suite(
  "A ublk device in a guest", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct UblkGuestTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// Shell functions of the scenarios. `busy SECONDS` writes, syncs, drops the caches, reads
  /// and compares until the time is up; it prints how long the longest round took, in 1/100 s.
  static let functions = """
    export ROOTLINK_STRICT=1
    now() { cut -d' ' -f1 /proc/uptime | tr -d .; }
    busy() {
      end=$(($(now) + $1 * 100))
      longest=0
      rounds=0
      while [ "$(now)" -lt $end ]; do
        begun=$(now)
        dd if=/dev/urandom of=/tmp/written bs=64k count=8 2>/dev/null
        cp /tmp/written /mnt/file && sync || return 1
        echo 3 >/proc/sys/vm/drop_caches
        cmp /tmp/written /mnt/file || return 1
        took=$(($(now) - begun))
        [ $took -gt $longest ] && longest=$took
        rounds=$((rounds + 1))
      done
      echo "load: $rounds rounds, longest $longest"
    }
    carrier() { rootlink status --json | sed -n 's/.*"pid":\\([0-9]*\\).*/\\1/p'; }

    """

  static func image(in directory: TemporaryDirectory) throws -> String {
    try partitionedImage(in: directory)
  }

  func expect(_ console: GuestConsole, _ steps: [String], except failing: [String: Int32] = [:]) {
    for step in steps {
      #expect(
        console.status(of: step) == failing[step, default: 0],
        "step \(step) printed:\n\(console.output(of: step))\n")
    }
    #expect(!console.text.contains("I/O error"), "\(console.lastLines)")
    #expect(!console.text.contains("Aborting journal"), "\(console.lastLines)")
  }

  @Test("is attached, used in every way that a disk is, and detached")
  func everyRequest() throws {
    let image = try Self.image(in: directory)
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach \(server.uri)/root --device /dev/ublkb0 --once
        result partitions ls /dev/ublkb0p1 /dev/ublkb0p2
        result compare compare /dev/ublkb0p2
        result again rootlink attach \(server.uri)/root --device /dev/ublkb0 --once
        result limits cat /sys/block/ublkb0/queue/logical_block_size /sys/block/ublkb0/queue/fua \
          /sys/block/ublkb0/queue/discard_max_bytes /sys/block/ublkb0/queue/write_zeroes_max_bytes
        result mount mount -t ext4 /dev/ublkb0p1 /mnt
        result load busy 3
        result busy rootlink detach ublkb0
        result unmount umount /mnt
        dd if=/dev/urandom of=/dev/ublkb0p2 bs=1M count=1 conv=fsync 2>/dev/null
        result zero /sbin/blkdiscard -z -l 1048576 /dev/ublkb0p2
        head -c 1048576 /dev/zero >/tmp/zeroes
        echo 3 >/proc/sys/vm/drop_caches
        head -c 1048576 /dev/ublkb0p2 >/tmp/read
        result zeroes cmp /tmp/zeroes /tmp/read
        result punch /sbin/blkdiscard -o 4096 -l 65536 /dev/ublkb0p2
        process=$(carrier)
        result guards grep -E 'VmRSS|VmLck|VmSwap|SigIgn|^Name' /proc/$process/status
        result score cat /proc/$process/oom_score_adj
        result flags cut -d' ' -f9 /proc/$process/stat
        result session cut -d' ' -f6 /proc/$process/stat
        result name head -c 1 /proc/$process/cmdline
        result files ls -l /proc/$process/fd
        echo "process $process"
        result status rootlink status
        result twice rootlink attach --keep /dev/ublkb0
        result detach rootlink detach /dev/ublkb0
        result gone ls /dev/ublkb0 /run/rootlink/ublkb0 /proc/$process
        result after rootlink status
        """, kernel: .backports)
    expect(
      console,
      [
        "attach", "partitions", "compare", "again", "limits", "mount", "load", "busy", "unmount",
        "zero", "punch", "zeroes", "guards", "score", "flags", "session", "name", "files",
        "status", "twice", "detach", "gone", "after",
      ], except: ["busy": 1, "gone": 1])
    #expect(console.output(of: "twice").contains("/dev/ublkb0 is carried by process"))
    #expect(console.output(of: "limits") == "512\n1\n1073741824\n67108864")
    #expect(console.output(of: "again").contains("/dev/ublkb0 is attached already"))
    #expect(console.output(of: "busy").contains("/dev/ublkb0 is busy"))
    #expect(console.output(of: "after") == "no device is attached")
    #expect(console.output(of: "gone").filter { $0 == "\n" }.count == 2)  // None of the three.

    let guards = console.output(of: "guards")
    let resident = try #require(guards.firstMatch(of: /VmRSS:\s+(\d+) kB/).flatMap { Int($0.1) })
    let locked = try #require(guards.firstMatch(of: /VmLck:\s+(\d+) kB/).flatMap { Int($0.1) })
    // 256 KiB a connection are data buffers; the rest must stay below 2 MiB.
    #expect(resident < 2048 + 256, "\(guards)")
    #expect(locked > resident * 9 / 10, "\(guards)")
    print("resident memory of the process that carries a ublk device: \(resident) KiB")
    #expect(console.output(of: "score") == "-1000")
    let flags = try #require(UInt64(console.output(of: "flags")))
    #expect(flags & 0x18_0000 == 0x18_0000)
    #expect(console.text.contains("process \(console.output(of: "session"))\n"))
    #expect(console.text.contains("@result name 0"))
    // Sockets, the device, the ring, the log, the signs of a shutdown: no file that lies on a disk.
    for line in console.output(of: "files").split(separator: "\n") where line.contains("->") {
      let target = line.split(separator: "> ").last ?? ""
      #expect(
        ["/dev/null", "/dev/ublkc0", "anon_inode:[io_uring]", "/dev/kmsg"].contains(target)
          || ["socket:", "/run/", "/proc/"].contains { target.hasPrefix($0) }, "\(line)")
    }
  }

  @Test("goes on when its process is killed, by itself while somebody stands by")
  func processKilled() throws {
    let image = try Self.image(in: directory)
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        standby() { rootlink status --json | sed -n 's/.*"standby":\\([0-9]*\\).*/\\1/p'; }
        dead() { while [ -d /proc/$1 ]; do sleep 0.1; done; }
        export ROOTLINK_STRICT=1
        result attach rootlink attach \(server.uri)/root --device /dev/ublkb0 --once
        first=$(standby)
        result memory grep VmRSS /proc/$first/status
        result score cat /proc/$first/oom_score_adj
        result name grep -c ^@ /proc/$first/cmdline
        # Nobody else helps, twice: the second one is a child of who stands by.
        for step in killed childkilled; do
          process=$(carrier)
          kill -9 $process
          result $step compare /dev/ublkb0p2
          test "$(carrier)" != $process || echo "somebody else carries on: no"
        done
        result same test "$(standby)" = $first
        kill -9 $first
        dead $first
        result alone sh -c "! rootlink status | grep 'stands by'"
        result stand rootlink attach --keep ublkb0
        result second test -n "$(standby)"
        both="$(standby) $(carrier)"
        kill -9 $both
        for process in $both; do dead $process; done
        result nobody sh -c "rootlink status | grep 'nobody carries its data'"
        result keep rootlink attach --keep ublkb0
        result kept compare /dev/ublkb0p2
        last=$(standby)
        result detach rootlink detach ublkb0
        result gone test ! -d /proc/$last
        result forced rootlink attach \(server.uri)/root --device /dev/ublkb0 --once
        last=$(standby)
        result force rootlink detach ublkb0 --force
        result left ls /proc/$last /run/rootlink/ublkb0.standby
        """, kernel: .backports)
    expect(
      console,
      [
        "attach", "memory", "score", "name", "killed", "childkilled", "same", "alone", "stand",
        "second", "nobody", "keep", "kept", "detach", "gone", "forced", "force", "left",
      ], except: ["left": 1])
    #expect(!console.text.contains("somebody else carries on: no"))
    #expect(console.output(of: "score") == "-1000")
    #expect(console.output(of: "name") == "1")
    let memory = console.output(of: "memory")
    let resident = try #require(memory.firstMatch(of: /VmRSS:\s+(\d+) kB/).flatMap { Int($0.1) })
    #expect(resident < 2048, "\(memory)")
    print("resident memory of the process that stands by for a ublk device: \(resident) KiB")
  }

  @Test("is used by itself where the kernel has no nbd driver, under the names that were planned")
  func withoutNBD() throws {
    let server = try FaultyServer(Self.image(in: directory), in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        rm /lib/modules/*/kernel/drivers/block/nbd.ko
        result attach rootlink attach --cmdline "nbdroot=\(server.uri)/root" --once
        result link readlink /dev/nbd0
        result partition readlink /dev/nbd0p1
        result mount mount -t ext4 /dev/nbd0p1 /mnt
        result load busy 1
        result unmount umount /mnt
        result detach rootlink detach ublkb0
        """, kernel: .backports)
    expect(console, ["attach", "link", "partition", "mount", "load", "unmount", "detach"])
    #expect(console.output(of: "link") == "ublkb0")
    #expect(console.output(of: "partition") == "ublkb0p1")
    #expect(console.output(of: "attach").contains("/dev/ublkb0 is attached"))
  }

  @Test("gives requests up after the dead time, or when it is detached by force")
  func givingUp() throws {
    let server = try FaultyServer(Self.image(in: directory), in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach --once \
          --cmdline "nbdroot=\(server.uri)/root rootlink.driver=ublk rootlink.deadtime=3"
        result alive dd if=/dev/ublkb0p2 of=/dev/null bs=64k count=1 iflag=direct
        fault kill
        begun=$(now)
        result dead dd if=/dev/ublkb0p2 of=/dev/null bs=64k count=1 iflag=direct skip=1
        echo "waited $(($(now) - begun))"
        fault restart
        sleep 2
        result again dd if=/dev/ublkb0p2 of=/dev/null bs=64k count=1 iflag=direct skip=2
        result detach rootlink detach ublkb0
        result forever rootlink attach \(server.uri)/root --device /dev/ublkb3 --once
        fault kill
        dd if=/dev/ublkb3p2 of=/dev/null bs=64k count=1 iflag=direct &
        job=$!
        sleep 1
        result force rootlink detach ublkb3 --force
        result forced wait $job
        result after rootlink status
        """, kernel: .backports, faults: ["kill", "restart", "kill"]
    ) { try server.suffer($0) }
    for (step, status) in [
      ("attach", 0), ("alive", 0), ("dead", 1), ("again", 0), ("detach", 0), ("forever", 0),
      ("force", 0), ("forced", 1), ("after", 0),
    ] as [(String, Int32)] {
      #expect(console.status(of: step) == status, "\(step): \(console.output(of: step))")
    }
    let waited = try #require(console.text.firstMatch(of: /waited (\d+)/).flatMap { Int($0.1) })
    #expect((250...600).contains(waited), "\(waited) hundredths of a second")
    #expect(console.output(of: "after") == "no device is attached")
  }
}

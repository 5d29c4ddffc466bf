// SPDX-License-Identifier: Apache-2.0
// The kernel's nbd driver in a guest, attached and detached by our program, with other people's
// servers and clients around it.

import Foundation
import TestSupport
import Testing

@Suite(
  "A device in a guest", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct TinyGuestTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// Every step must have ended with 0, but those named with another status.
  func expect(
    _ console: GuestConsole, steps: [String], except failing: [String: Int32] = [:],
    _ location: SourceLocation = #_sourceLocation
  ) {
    for step in steps {
      #expect(
        console.status(of: step) == failing[step, default: 0],
        "step \(step) printed:\n\(console.output(of: step))\n", sourceLocation: location)
    }
  }

  @Test(
    "is attached from every server, shows its partitions, and is detached",
    arguments: RunScope.cases(TinyGuest.Kernel.allCases, short: 1))
  func servers(kernel: TinyGuest.Kernel) throws {
    let partitioned = try HostServer.qemuNBD(partitionedImage(in: directory), export: "disk")
    let plain = try HostServer.nbdServer(
      sparseFile("plain.img", mebibytes: 16, in: directory), export: "plain", in: directory)
    let ours = try HostServer.rootlinkd(
      sparseFile("ours.img", mebibytes: 16, in: directory), export: "ours", in: directory)
    let large = try HostServer.nbdkit(
      "--filter=blocksize-policy", "memory", "16M", "blocksize-minimum=4096",
      "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error")
    let console = try TinyGuest.run(
      """
      result qemu rootlink attach \(partitioned.uri)/disk --device /dev/nbd0
      result partitions ls /dev/nbd0p1 /dev/nbd0p2
      result mount mount -t ext4 /dev/nbd0p1 /mnt
      dd if=/dev/urandom of=/tmp/file bs=1M count=2 2>/dev/null
      cp /tmp/file /mnt/file
      result unmount umount /mnt
      echo 3 >/proc/sys/vm/drop_caches
      mount -t ext4 /dev/nbd0p1 /mnt
      result file cmp /tmp/file /mnt/file
      umount /mnt
      result nbdserver rootlink attach \(plain.uri)/plain --device /dev/nbd1
      result nbdservercompare compare /dev/nbd1
      result ours rootlink attach \(ours.uri)/ours --device /dev/nbd2
      result ourscompare compare /dev/nbd2
      result nbdkit rootlink attach \(large.uri)/ --device /dev/nbd40
      result limits cat /sys/block/nbd40/queue/logical_block_size /sys/block/nbd40/queue/max_sectors_kb
      result nbdkitcompare compare /dev/nbd40
      result status rootlink status
      for device in nbd0 nbd1 nbd2 nbd40; do result detach-$device rootlink detach /dev/$device; done
      result after rootlink status
      result left ls /sys/block/nbd0/nbd0p1
      """, kernel: kernel)
    expect(
      console,
      steps: [
        "qemu", "partitions", "mount", "unmount", "file", "nbdserver", "nbdservercompare", "ours",
        "ourscompare", "nbdkit", "limits", "nbdkitcompare", "status", "detach-nbd0",
        "detach-nbd1", "detach-nbd2", "detach-nbd40", "after", "left",
      ], except: ["left": 1])
    #expect(console.output(of: "limits") == "4096\n64")
    let status = console.output(of: "status")
    #expect(status.contains("/dev/nbd0: 67108864 bytes in blocks of 512, read-write"))
    #expect(status.contains("server: 10.0.2.2:\(partitioned.port), export 'disk'"))
    #expect(status.contains("partitions: nbd0p1 nbd0p2"))
    #expect(console.output(of: "after") == "no device is attached")
    #expect(!console.text.contains("I/O error"), "\(console.lastLines)")
  }

  @Test("that is in use is neither attached nor detached, and the line says by whom")
  func inUse() throws {
    let server = try HostServer.qemuNBD(partitionedImage(in: directory), export: "disk")
    let other = try HostServer.nbdkit("memory", "8M")
    let console = try TinyGuest.run(
      """
      rootlink attach \(server.uri)/disk --device /dev/nbd0
      result other rootlink attach \(other.uri)/ --device /dev/nbd0 --once
      mount -t ext4 /dev/nbd0p1 /mnt
      result mounted rootlink detach /dev/nbd0
      result json rootlink status nbd0 --json
      umount /mnt
      mkswap /dev/nbd0p2 >/dev/null
      swapon /dev/nbd0p2
      result swap rootlink detach nbd0
      swapoff /dev/nbd0p2
      modprobe loop
      losetup /dev/loop0 /dev/nbd0p1
      result loop rootlink detach nbd0
      losetup -d /dev/loop0
      sleep 1000 </dev/nbd0 &
      sleep 1
      result open rootlink detach nbd0
      kill $!
      ended $!
      result unknown rootlink detach nbd7
      result name rootlink detach /dev/sda
      mount -t ext4 /dev/nbd0p1 /mnt
      result force rootlink detach nbd0 --force
      umount /mnt
      sleep 1
      result after rootlink status
      result again rootlink attach \(server.uri)/disk --device /dev/nbd0
      """, kernel: .backports)
    expect(
      console,
      steps: [
        "other", "mounted", "json", "swap", "loop", "open", "unknown", "name", "after", "again",
      ],
      except: [
        "other": 1, "mounted": 1, "swap": 1, "loop": 1, "open": 1, "unknown": 1, "name": 2,
      ])
    for (step, sentence) in [
      ("other", "/dev/nbd0 is in use: attached through netlink to 10.0.2.2:\(server.port)/disk"),
      ("mounted", "/dev/nbd0 is busy: mounted on /mnt"),
      ("json", #""users":[{"kind":"mount","device":"/dev/nbd0p1","on":"/mnt"}]"#),
      ("swap", "/dev/nbd0 is busy: swap on /dev/nbd0p2"),
      ("loop", "backing /dev/loop0"),
      ("open", "(sleep)"),
      ("unknown", "/dev/nbd7 is not attached"),
      ("name", "'/dev/sda' is not the name of an nbd or ublk device"),
      ("force", "is disconnected, but the kernel still keeps it: mounted on /mnt"),
      ("after", "no device is attached"),
    ] {
      let output = console.output(of: step)
      #expect(output.contains(sentence), "step \(step) printed:\n\(output)\n")
    }
  }

  @Test(
    "is attached through ioctl by a process that shutdown spares",
    arguments: RunScope.cases(TinyGuest.Kernel.allCases, short: 1))
  func ioctl(kernel: TinyGuest.Kernel) throws {
    let server = try HostServer.qemuNBD(partitionedImage(in: directory), export: "disk")
    let console = try TinyGuest.run(
      """
      result attach rootlink attach \(server.uri)/disk --device /dev/nbd1 --interface ioctl
      result partitions ls /dev/nbd1p1 /dev/nbd1p2
      holder=$(cat /sys/block/nbd1/pid)
      result name head -c 1 /proc/$holder/cmdline
      result files ls -l /proc/$holder/fd
      result session cut -d' ' -f 6 /proc/$holder/stat
      echo holder $holder
      result compare compare /dev/nbd1p2
      result status rootlink status
      result high rootlink attach \(server.uri)/disk --device /dev/nbd40 --interface ioctl --once
      result detach rootlink detach nbd1
      result gone ls -d /proc/$holder
      """, kernel: kernel)
    expect(
      console,
      steps: [
        "attach", "partitions", "name", "files", "session", "compare", "status", "high", "detach",
        "gone",
      ], except: ["high": 1, "gone": 1])
    #expect(console.output(of: "name").isEmpty)  // No line end: the result stands behind it.
    #expect(console.text.contains("@result name 0"))
    #expect(!console.output(of: "files").contains("ttyS0"))
    #expect(console.text.contains("holder \(console.output(of: "session"))\n"))
    #expect(console.output(of: "status").contains("attached through ioctl by process"))
    #expect(console.output(of: "high").contains("only the netlink interface makes devices"))
  }

  @Test(
    "that nbd-client attached is shown and detached",
    arguments: RunScope.cases(TinyGuest.Kernel.allCases.reversed(), short: 1))
  func foreign(kernel: TinyGuest.Kernel) throws {
    let server = try HostServer.rootlinkd(
      sparseFile("ours.img", mebibytes: 16, in: directory), export: "ours", in: directory)
    let console = try TinyGuest.run(
      """
      modprobe nbd
      result netlink nbd-client -N ours 10.0.2.2 \(server.port) /dev/nbd3
      result netlinkcompare compare /dev/nbd3
      result netlinkstatus rootlink status
      result netlinkdetach rootlink detach nbd3
      result ioctl nbd-client -nonetlink -N ours 10.0.2.2 \(server.port) /dev/nbd4
      sleep 1
      result ioctlcompare compare /dev/nbd4
      result ioctlstatus rootlink status
      result inuse rootlink attach \(server.uri)/ours --device /dev/nbd4 --once
      result ioctldetach rootlink detach nbd4
      result after rootlink status
      """, kernel: kernel)
    expect(
      console,
      steps: [
        "netlink", "netlinkcompare", "netlinkstatus", "netlinkdetach", "ioctl", "ioctlcompare",
        "ioctlstatus", "inuse", "ioctldetach", "after",
      ], except: ["inuse": 1])
    #expect(console.output(of: "netlinkstatus").contains("/dev/nbd3: 16777216 bytes"))
    #expect(console.output(of: "ioctlstatus").contains("(nbd-client)"))
    #expect(console.output(of: "inuse").contains("(nbd-client)"))
    #expect(console.output(of: "after") == "no device is attached")
  }
}

/// The harness itself: a step that failed, that never ended or that is not there is no success.
@Suite("The console of a tiny guest")
struct GuestConsoleTests {
  static let console = GuestConsole(
    "SeaBIOS\r\nbegin one\r\nhello\r\n[    1.0] kernel\r\nresult one 0\r\n"
      + "begin two\r\nno line end[ 2.0] result two 139\r\nbegin three\r\nhangs\r\n"
      + "result five [ 3.0] kernel\r\n0\r\nre[ 3.1] kernel\r\nsult six 0\r\nresult five 0\r\n"
      + "result six 7\r\n")

  @Test("tells how each step ended and what it printed")
  func steps() {
    #expect(Self.console.status(of: "one") == 0)
    #expect(Self.console.output(of: "one") == "hello\n[    1.0] kernel")
    #expect(Self.console.status(of: "two") == 139)
    #expect(Self.console.status(of: "three") == nil)
    #expect(Self.console.output(of: "three").hasPrefix("hangs"))
    #expect(Self.console.status(of: "thre") == nil)
    #expect(Self.console.status(of: "five") == 0)
    #expect(Self.console.status(of: "six") == 7)
    #expect(Self.console.output(of: "four").isEmpty)
  }
}

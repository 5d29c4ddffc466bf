// SPDX-License-Identifier: Apache-2.0
// `root=` and the words around it: what is mounted, on which device, and how long that is awaited.

import BootPlanning
import Testing
import WireFormat

@Suite("root= and its companions")
struct RootTests {
  /// Each with the same `nbdroot=` beside it, where the row does not say otherwise.
  static let rows = [
    Row(
      "M01", "root=/dev/nbd0 nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "M02", "root=/dev/nbd0p2 nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0p2"#),
    Row(
      "M03", "root=/dev/nbd12p3 nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd12; root /dev/nbd12p3"#),
    Row(
      "M04 UUID", "root=UUID=ab-cd nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root UUID=ab-cd"#),
    Row(
      "M04 LABEL", "root=LABEL=x nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root LABEL=x"#),
    Row(
      "M04 PARTUUID", "root=PARTUUID=1 nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root PARTUUID=1"#),
    Row(
      "M04 PARTLABEL", "root=PARTLABEL=r nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root PARTLABEL=r"#),
    Row(
      "M05", "root=/dev/mapper/x nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/mapper/x"#),
    Row(
      "M06", "root=/dev/ublkb0 nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" ublkb0; root /dev/ublkb0"#),
    Row(
      "M07 nbd", "root=/dev/nbd nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" any; root /dev/root link"#),
    Row(
      "M07 root", "root=/dev/root nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" any; root /dev/root link"#),
    Row(
      "M08 dhcp", "root=dhcp", rootPath: "nbd://192.0.2.3/x",
      #"192.0.2.3 10809 "x" nbd0; root /dev/nbd0"#),
    Row(
      "M08 dhcp6", "root=dhcp6", rootPath: "nbd://192.0.2.3/x",
      #"192.0.2.3 10809 "x" nbd0; root /dev/nbd0"#),
    Row("M08 NFS", "root=dhcp", rootPath: "192.0.2.3:/srv/nfs", "nothing"),
    Row("M08 none", "root=dhcp", "nothing"),
    Row("M09", "root=/dev/nfs nfsroot=192.0.2.1:/x", "nothing"),
    Row(
      "M10", "rootfstype=ext4,squashfs rootflags=noatime nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ext4,squashfs noatime"#),
    Row(
      "M10 dracut's fields", "rootfstype=xfs rootflags=a root=nbd:192.0.2.1:foo:ext4:b",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ext4 b"#),
    Row("M11 ro", "ro nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ro"#),
    Row("M11 rw", "ro rw nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 rw"#),
    Row("M12", "rootwait nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row("M13", "rootwait=20 nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "M14", "rootdelay=60 nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "M15", "init=/bin/sh rdinit=/init nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "M16", "panic=5 break=top boot=local nbdroot=192.0.2.1/foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "M17", "nbd.max_part=15 nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#
    ),
    Row("M18", "nbdroot=192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
  ]

  @Test("say what is mounted from which device", arguments: rows)
  func table(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }

  static let waits: [(String, DeviceWait)] = [
    ("rootwait", .forEver), ("rootwait=20", .seconds(20)), ("rootdelay=60", .seconds(60)),
    ("rootdelay=5", .seconds(30)), ("", .usual),
  ]

  @Test("say how long the device is awaited (M12 to M14)", arguments: waits)
  func wait(word: String, expected: DeviceWait) throws {
    let plan = try plan(for: Row("", "\(word) nbdroot=192.0.2.1/foo", "").input())
    #expect(plan.deviceWait == expected)
  }

  @Test("leave init= to the program when it is PID 1 (M15)")
  func initProgram() throws {
    let plan = try plan(for: Row("", "init=/bin/sh nbdroot=192.0.2.1/foo", "").input())
    #expect(plan.initProgram == "/bin/sh")
  }

  @Test("need the network whenever a server is on it (M18)")
  func network() throws {
    #expect(try plan(for: Row("", "nbdroot=192.0.2.1/foo", "").input()).needsNetwork)
    #expect(try !plan(for: Row("", "nbdroot=nbd+unix:///a?socket=/s", "").input()).needsNetwork)
    #expect(try !plan(for: Row("", "root=/dev/sda1", "").input()).needsNetwork)
  }

  static let own: [(String, String)] = [
    ("rootlink.connections=4", #"192.0.2.1 10809 "a" nbd0 connections=4; root /dev/nbd0"#),
    ("rootlink.connections=0", "error at 1: a number from 1 to 64"),
    ("rootlink.deadtime=0", #"192.0.2.1 10809 "a" nbd0 deadtime=0; root /dev/nbd0"#),
    ("rootlink.deadtime=x", "error at 1: a number from 0 to 604800"),
    ("rootlink.shutdowntime=5", #"192.0.2.1 10809 "a" nbd0 shutdowntime=5; root /dev/nbd0"#),
    ("rootlink.rdma=rxe:eth0", #"192.0.2.1 10809 "a" nbd0; root /dev/nbd0; rdma rxe:eth0"#),
    ("rootlink.rdma=siw:enp1s0f0", #"192.0.2.1 10809 "a" nbd0; root /dev/nbd0; rdma siw:enp1s0f0"#),
    ("rootlink.rdma=rxe", "error at 1: rxe:INTERFACE or siw:INTERFACE"),
    ("rootlink.rdma=mlx5:eth0", "error at 1: rxe:INTERFACE or siw:INTERFACE"),
    ("rootlink.rdma=rxe:", "error at 5: the name of a network interface"),
    ("rootlink.rdma=rxe:a/b", "error at 5: the name of a network interface"),
    ("rootlink.rdma=rxe:sixteen-letters1", "error at 5: the name of a network interface"),
    ("rootlink.shutdowntime=", "error at 1: a number from 0 to 604800"),
    (
      "rootlink.silence=1 rootlink.answer=3600",
      #"192.0.2.1 10809 "a" nbd0 silence=1 answer=3600; root /dev/nbd0"#
    ),
    ("rootlink.silence=0", "error at 1: a number from 1 to 3600"),
    ("rootlink.answer=3601", "error at 1: a number from 1 to 3600"),
    (
      "rootlink.path=192.0.2.9@192.0.2.2 rootlink.path=[2001:db8::9]@[2001:db8::2]:11",
      #"192.0.2.1 10809 192.0.2.9>192.0.2.2 10809 2001:db8::9>2001:db8::2 11 "a" nbd0; "#
        + "root /dev/nbd0"
    ),
    (
      "rootlink.replica=spare:11 rootlink.replica=192.0.2.3",
      #"192.0.2.1 10809 or spare 11 or 192.0.2.3 10809 "a" nbd0; root /dev/nbd0"#
    ),
    ("rootlink.path=eth0@192.0.2.2", "error at 1: an IPv4 address of four numbers from 0 to 255"),
    ("rootlink.path=192.0.2.9@", "error at 11: an address or a host name"),
    ("rootlink.path=2001:db8::2", "error at 1: brackets around an IPv6 address"),
    ("rootlink.path=[2001:db8::2]x", "error at 14: ':', '/' or nothing after ']'"),
    ("rootlink.replica=192.0.2.2:0", "error at 11: a port from 1 to 65535"),
    (
      (1...7).map { "rootlink.path=192.0.2.\($0)" }.joined(separator: " "),
      "error at 1: at most 6 paths"
    ),
    ("rootlink.timeout=604801", "error at 1: a number from 0 to 604800"),
    ("rootlink.timeout=0", #"192.0.2.1 10809 "a" nbd0; root /dev/nbd0"#),
    ("nbddev=sda", "error at 1: a device such as nbd0 or nbd0p1"),
    ("nbddev=nbd4", #"192.0.2.1 10809 "a" nbd4; root /dev/nbd4"#),
    ("nbdport=0", "error at 1: a port from 1 to 65535"),
  ]

  @Test("have words of our own beside them", arguments: own)
  func ownWords(word: String, meaning: String) {
    #expect(outcome(of: Row("", "nbdroot=192.0.2.1/a \(word)", "").input()) == meaning)
  }

  @Test("give 180 seconds for attaching, unless rootlink.timeout= says otherwise")
  func timeout() throws {
    #expect(try plan(for: Row("", "nbdroot=h/a", "").input()).attachTimeoutSeconds == 180)
    let none = try plan(for: Row("", "nbdroot=h/a rootlink.timeout=0", "").input())
    #expect(none.attachTimeoutSeconds == 0)
  }

  @Test("ask for nothing where nothing is ours")
  func nothing() throws {
    for line in ["", "quiet splash", "root=/dev/sda1 ro", "root=UUID=1", "root=live:CDLABEL=x"] {
      #expect(try plan(for: Row("", line, "").input()).isEmpty, "\(line)")
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// dracut's `root=` and `netroot=`, and the words of other boot scripts.

import BootPlanning
import Testing
import WireFormat

@Suite("dracut's words")
struct DracutTests {
  static let rows = [
    Row("R01", "root=nbd:192.0.2.1:foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row("R02", "root=nbd:192.0.2.1:2000", #"192.0.2.1 2000 "" nbd0; root /dev/nbd0"#),
    Row("R03", "root=nbd:192.0.2.1:10810/foo", #"192.0.2.1 10810 "foo" nbd0; root /dev/nbd0"#),
    Row("R04", "root=nbd:192.0.2.1:0", #"192.0.2.1 10809 "0" nbd0; root /dev/nbd0"#),
    Row("R05", "root=nbd:192.0.2.1:foo:ext4", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ext4"#),
    Row(
      "R06", "root=nbd:192.0.2.1:foo:ext4:noatime,rw",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ext4 noatime rw"#),
    Row(
      "R07", "root=nbd:192.0.2.1:foo::errors=panic",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 errors=panic"#),
    Row(
      "R08", "root=nbd:192.0.2.1:foo:ext4 rw",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 ext4 rw"#),
    Row(
      "R09", "root=nbd:192.0.2.1:foo:ext4:noatime:bs=4096,timeout=30",
      #"192.0.2.1 10809 "foo" nbd0 bs=4096 timeout=30; root /dev/nbd0 ext4 noatime"#),
    Row(
      "R10", "root=nbd:192.0.2.1:foo:::-C4",
      #"192.0.2.1 10809 "foo" nbd0 connections=4; root /dev/nbd0"#),
    Row(
      "R11", "root=nbd:192.0.2.1:disk0:::-b512 root=/dev/nbd0p2",
      #"192.0.2.1 10809 "disk0" nbd0 bs=512; root /dev/nbd0p2"#),
    Row(
      "R12", "root=nbd:[2001:db8::1]:foo:ext4",
      #"2001:db8::1 10809 "foo" nbd0; root /dev/nbd0 ext4"#),
    Row("R13", "root=nbd:[fe80::1%eth0]:foo", #"fe80::1%eth0 10809 "foo" nbd0; root /dev/nbd0"#),
    Row("R14", "root=nbd:server.example:foo", #"server.example 10809 "foo" nbd0; root /dev/nbd0"#),
    Row("R15", "root=nbd::foo", #"192.0.2.9 10809 "foo" nbd0; root /dev/nbd0"#),
    Row("R16", "root=nbd:192.0.2.1:", #"192.0.2.1 10809 "" nbd0; root /dev/nbd0"#),
    Row("R17", "root=nbd:192.0.2.1", #"192.0.2.1 10809 "" nbd0; root /dev/nbd0"#),
    Row(
      "R18", "root=/dev/nbd0p1 netroot=nbd:192.0.2.1:foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0p1"#),
    Row(
      "R19", "root=/dev/nbd0 netroot=nbd:192.0.2.1:foo",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "R20", "root=LABEL=x netroot=nbd:192.0.2.1:foo:ext4:noatime",
      #"192.0.2.1 10809 "foo" nbd0; root LABEL=x"#),
    Row(
      "R21", "root=UUID=1 netroot=nbd:192.0.2.1:a netroot=nbd:192.0.2.2:b",
      #"192.0.2.1 10809 "a" nbd0 + 192.0.2.2 10809 "b" nbd1; root UUID=1"#),
    Row(
      "R22", "root=nbd:192.0.2.1:a netroot=nbd:192.0.2.2:b",
      #"192.0.2.1 10809 "a" nbd0; root /dev/nbd0; warn netrootIgnored"#),
    Row(
      "R23", "root=live:/dev/nbd0 netroot=nbd:192.0.2.1:foo",
      #"192.0.2.1 10809 "foo" nbd0; root -"#),
    Row(
      "R24", "root=dhcp ip=dhcp", rootPath: "nbd:192.0.2.3:foo:ext4",
      #"192.0.2.3 10809 "foo" nbd0; root /dev/nbd0 ext4"#),
    Row(
      "R25", "root=/dev/root netroot=dhcp ip=dhcp", rootPath: "nbd:192.0.2.3:foo:ext4",
      #"192.0.2.3 10809 "foo" any; root /dev/root ext4 link"#),
    Row("R26", "root=nbd://192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "R27", "nbdroot=192.0.2.1,foo,nbd0 root=/dev/nbd0",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "R28", "root=nbd:192.0.2.1:foo:bar:baz:-x:y",
      #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0 bar baz; warn unknownNBDOption"#),
  ]

  @Test("mean what dracut documents", arguments: rows)
  func table(row: Row) {
    #expect(outcome(of: row.input(.dracut)) == row.meaning)
  }

  static let aliases = [
    Row("W01", "nbd_host=192.0.2.1 nbd_name=foo", #"192.0.2.1 10809 "foo" nbd0; root /dev/nbd0"#),
    Row(
      "W02", "nbd_host=192.0.2.1 nbd_name=foo nbd_port=10810",
      #"192.0.2.1 10810 "foo" nbd0; root /dev/nbd0"#),
    Row("W03", "nbd_host=192.0.2.1", "error: nbd_name missing"),
    Row(
      "W04", "nbd0=192.0.2.1:10810:foo nbd1=192.0.2.1:10810:bar",
      #"192.0.2.1 10810 "foo" nbd0 + 192.0.2.1 10810 "bar" nbd1; root /dev/nbd0"#),
    Row(
      "W05", "boot=NBD=192.0.2.1:10809:le-boot disk=NBD=192.0.2.1:10809:le-storage",
      #"192.0.2.1 10809 "le-boot" nbd0 + 192.0.2.1 10809 "le-storage" nbd1; root /dev/nbd0"#),
    Row(
      "W06", "root=overlay:nbd=192.0.2.1:foo",
      #"192.0.2.1 10809 "foo" nbd0 ro; root /dev/nbd0 ro overlay"#),
    Row(
      "Arch's image", "ip=dhcp archiso_nbd_srv=${pxeserver} archiso_nbd_name=archiso",
      #"192.0.2.9 10809 "archiso" nbd0; root /dev/nbd0"#),
    Row("OpenELEC", "nbdserver=192.0.2.1 nbdport=2000", #"192.0.2.1 2000 "" nbd0; root /dev/nbd0"#),
    Row(
      "a number and nbdroot=", "nbdroot=192.0.2.1/a nbd3=192.0.2.2:10810:b",
      #"192.0.2.1 10809 "a" nbd0 + 192.0.2.2 10810 "b" nbd3; root /dev/nbd0"#),
    Row(
      "a number twice", "nbdroot=192.0.2.1,a,nbd2 nbd2=192.0.2.2:10810:b",
      #"192.0.2.1 10809 "a" nbd2; root /dev/nbd2; warn deviceAlreadyTaken"#),
  ]

  @Test("have aliases in other boot scripts", arguments: aliases)
  func aliasTable(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }

  static let options: [(String, String)] = [
    ("-C,4", "connections=4"), ("-connections,4", "connections=4"),
    ("-connections=4", "connections=4"), ("-b4096", "bs=4096"), ("-block-size=1024", "bs=1024"),
    ("-t30", "timeout=30"), ("-timeout,30", "timeout=30"), ("-persist,-R", "ro"),
    ("bs=4096,-C2,timeout=9", "bs=4096 timeout=9 connections=2"),
  ]

  @Test("take nbd-client's options in every spelling", arguments: options)
  func optionSpellings(option: String, meaning: String) {
    let words = meaning == "ro" ? "nbd0 ro" : "nbd0 \(meaning)"
    #expect(
      outcome(of: Row("", "root=nbd:192.0.2.1:a:::\(option)", "").input(.dracut))
        == "192.0.2.1 10809 \"a\" \(words); root /dev/nbd0")
  }

  static let refused: [(String, String)] = [
    ("root=nbd:192.0.2.1:70000", "error at 15: a port from 1 to 65535"),
    ("root=nbd:1234:a", "error at 5: a host, which cannot be a bare number here"),
    ("root=nbd:[::1:a", "error at 5: an IPv6 address that ends with ']'"),
    ("root=nbd:192.0.2.1:a:::bs=1000", "error at 22: a power of two from 512 to 65536"),
    ("root=nbd:192.0.2.1:a:::-C0", "error at 21: a number from 1 to 64"),
    ("root=nbd:192.0.2.1:a:::-C", "error at 21: a number from 1 to 64"),
    ("root=nbd:192.0.2.300:a", "error at 5: an IPv4 address of four numbers from 0 to 255"),
    ("nbd_name=x", "error: nbd_host missing"),
    ("nbd0=192.0.2.1:port:x", "error at 11: a port from 1 to 65535"),
  ]

  @Test("are refused at the character where they go wrong", arguments: refused)
  func errors(line: String, meaning: String) {
    #expect(outcome(of: Row("", line, "").input(.dracut)) == meaning)
  }
}

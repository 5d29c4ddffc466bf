// SPDX-License-Identifier: Apache-2.0
// `ibnbd-root=`: the driver's own keys, made one word.

import BootPlanning
import Testing
import WireFormat

@Suite("ibnbd-root=")
struct RNBDTests {
  static let rows = [
    Row(
      "B01", "ibnbd-root=sessname=blya,path=ip:10.50.100.66,device_path=/dev/ram0",
      "10.50.100.66 1234 session blya device /dev/ram0 ublkb0; root /dev/ublkb0"),
    Row(
      "B02", "ibnbd-root=sessname=blya,path=ip:10.50.100.66,device_path=ram0,access_mode=ro",
      "10.50.100.66 1234 session blya device ram0 ublkb0 ro; root /dev/ublkb0"),
    Row(
      "B02a",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda rootlink.policy=round-robin",
      "10.0.0.1 1234 session s device sda round-robin ublkb0; root /dev/ublkb0"),
    Row(
      "B02b",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda rootlink.policy=min-latency",
      "10.0.0.1 1234 session s device sda min-latency ublkb0; root /dev/ublkb0"),
    Row(
      "B02c", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda rootlink.policy=best",
      "error at 1: round-robin, min-inflight or min-latency"),
    Row(
      "B02d",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=a"
        + " ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=b"
        + " ibnbd-root=sessname=s,path=ip:10.0.0.2,device_path=c",
      "10.0.0.1 1234 session s device a ublkb0 + 10.0.0.1 1234 session s device b ublkb1"
        + " + 10.0.0.2 1234 session s_2 device c ublkb2"
        + "; root /dev/ublkb0"),
    Row(
      "B03", "ibnbd-root=sessname=s,path=ip:10.0.0.66@ip:10.0.1.66,device_path=sda",
      "10.0.0.66>10.0.1.66 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B04", "ibnbd-root=sessname=s,path=ip:10.0.0.66,ip:10.0.1.66,device_path=sda",
      "10.0.0.66>10.0.1.66 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B05", "ibnbd-root=sessname=s,path=ip:10.0.0.66,path=ip:10.0.1.66,device_path=sda",
      "10.0.0.66 1234 10.0.1.66 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B06",
      "ibnbd-root=sessname=s,path=gid:fe80:0000:0000:0000:0002:c903:0010:c0f5,device_path=sda",
      "gid:fe80::2:c903:10:c0f5 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B07", "ibnbd-root=sessname=s,path=gid:fe80::2@gid:fe80::1,device_path=sda",
      "gid:fe80::2>gid:fe80::1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B08", "ibnbd-root=sessname=s,path=ip:2001:db8::1,device_path=sda",
      "2001:db8::1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B09", "ibnbd-root=sessname=s,path=ip:[2001:db8::1],device_path=sda",
      "2001:db8::1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B10", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,port=1235",
      "10.0.0.1 1235 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B11", "ibnbd-root=port=1235,sessname=s,path=ip:10.0.0.1,device_path=sda",
      "10.0.0.1 1235 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B12", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,dest_port=1235",
      "10.0.0.1 1235 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B13",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,access_mode=migration,io_mode=fileio",
      "10.0.0.1 1234 session s device sda fileio ublkb0 migration; root /dev/ublkb0"),
    Row(
      "B14", "ibnbd-root=path=ip:10.0.0.1,device_path=sda ip=::::board7:eth0:dhcp",
      "10.0.0.1 1234 session clt_board7-srv_10.0.0.1 device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B15", "ibnbd-root=device_path=sda ip=::::board7:eth0:dhcp",
      "192.0.2.9 1234 session clt_board7-srv_192.0.2.9 device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B16", "ibnbd-root=sessname=s,path=dhcp,device_path=sda",
      "192.0.2.9 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B17", "ibnbd-root=\"sessname=s path=ip:10.0.0.1 device_path=sda\"",
      "10.0.0.1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B18", "ibnbd_root=sessname=s,path=ip:10.0.0.1,device_path=sda",
      "10.0.0.1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B19", "ibnbd-root=sessname=a%20b,path=ip:10.0.0.1,device_path=dir/x%2Cy",
      "10.0.0.1 1234 session a b device dir/x,y ublkb0; root /dev/ublkb0"),
    Row(
      "B20", "ibnbd-root=sessname=s,path=ip:10.0.0.1",
      "error at 28: device_path=, which must be given"),
    Row(
      "B21", "ibnbd-root=sessname=s,path=10.0.0.1,device_path=sda",
      "error at 17: ip:ADDRESS, gid:GID or dhcp"),
    Row(
      "B22", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,access_mode=rx",
      "error at 57: ro, rw or migration"),
    Row(
      "B23", "ibnbd-root=sessname=s,path=ip:1.1.1.1,ip:1.1.1.2,ip:1.1.1.3,device_path=sda",
      "error at 39: at most two addresses in a path"),
    Row(
      "B24",
      "ibnbd-root=sessname=s,path=ip:1.1.1.1,path=ip:1.1.1.2,path=ip:1.1.1.3,path=ip:1.1.1.4,"
        + "path=ip:1.1.1.5,path=ip:1.1.1.6,path=ip:1.1.1.7,device_path=sda",
      "error at 108: at most 6 paths"),
    Row(
      "B25", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,io_mode=",
      "error at 53: a value after '='"),
    Row(
      "B26",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,dev=ublkb0 root=/dev/ublkb0",
      "10.0.0.1 1234 session s device sda ublkb0; root /dev/ublkb0"),
    Row(
      "B27", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda nbdroot=192.0.2.1/foo",
      #"10.0.0.1 1234 session s device sda ublkb0 else 192.0.2.1 10809 "foo" nbd0; "#
        + "root /dev/ublkb0 else /dev/nbd0"),
    Row(
      "B28", "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=sda,colour=red",
      "error at 45: one of sessname, path, device_path, access_mode, io_mode, port, queues, dev"),
  ]

  @Test("is the driver's line in one word", arguments: rows)
  func table(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }

  static let more = [
    Row(
      "two devices",
      "ibnbd-root=sessname=s,path=ip:10.0.0.1,device_path=a "
        + "rnbd-root=sessname=t,path=ip:10.0.0.2,device_path=b,queues=4",
      "10.0.0.1 1234 session s device a ublkb0 + 10.0.0.2 1234 session t device b queues 4 ublkb1; "
        + "root /dev/ublkb0"),
    Row(
      "key twice", "ibnbd-root=device_path=a,device_path=b",
      "error at 15: a key that was not given before"),
    Row("empty", "ibnbd-root=", "error at 1: device_path=, which must be given"),
    Row("comma at the end", "ibnbd-root=device_path=a,", "error at 15: key=value"),
    Row("two commas", "ibnbd-root=path=dhcp,,device_path=a", "error at 11: key=value"),
    Row(
      "comma and space", "ibnbd-root=\"path=ip:10.0.0.1 , device_path=a,sessname=s\"",
      "10.0.0.1 1234 session s device a ublkb0; root /dev/ublkb0"),
    Row("address without path", "ibnbd-root=device_path=a,ip:1.1.1.1", "error at 15: key=value"),
    Row("NUL", "ibnbd-root=device_path=a%00", "error at 14: no NUL byte"),
    Row(
      "mixed families", "ibnbd-root=path=ip:1.1.1.1@gid:fe80::1,device_path=a",
      "error at 17: a source of the same kind as the destination"),
    Row("port", "ibnbd-root=device_path=a,port=0", "error at 20: a port from 1 to 65535"),
    Row(
      "a session of 255 bytes",
      "ibnbd-root=path=ip:1.1.1.1,device_path=a,sessname=" + String(repeating: "s", count: 255),
      "1.1.1.1 1234 session " + String(repeating: "s", count: 255)
        + " device a ublkb0; root /dev/ublkb0"),
    Row(
      "a session of 256 bytes",
      "ibnbd-root=path=ip:1.1.1.1,device_path=a,sessname=" + String(repeating: "s", count: 256),
      "error at 40: 1 to 255 bytes"),
  ]

  @Test("is refused at the character where it goes wrong", arguments: more)
  func edges(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }
}

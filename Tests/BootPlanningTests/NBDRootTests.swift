// SPDX-License-Identifier: Apache-2.0
// `nbdroot=` in the grammars of the kernel patch, its correction and Debian's script, and one rule
// for each place where they collide.

import BootPlanning
import TestSupport
import Testing
import WireFormat

@Suite("nbdroot=")
struct NBDRootTests {
  /// The lease of all rows has the boot server 192.0.2.9.
  static let rows = [
    Row(
      "N001", "nbdroot=192.0.2.1:10810/foo root=/dev/nbd0",
      "192.0.2.1 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N100", "nbdroot=192.0.2.1/foo rootlink.driver=ublk",
      "192.0.2.1 10809 \"foo\" ublkb0; root /dev/ublkb0"),
    Row(
      "N101", "nbdroot=192.0.2.1/foo root=/dev/ublkb0p1",
      "192.0.2.1 10809 \"foo\" ublkb0; root /dev/ublkb0p1"),
    Row(
      "N102", "nbdroot=192.0.2.1/foo rootlink.driver=nbd root=/dev/nbd0",
      "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N002", "nbdroot=192.0.2.1:10810/foo/bar root=/dev/nbd0",
      "192.0.2.1 10810 \"foo/bar\" nbd0; root /dev/nbd0"),
    Row(
      "N003", "nbdroot=192.0.2.1:10810//abs root=/dev/nbd0",
      "192.0.2.1 10810 \"/abs\" nbd0; root /dev/nbd0"),
    Row(
      "N004", "nbdroot=192.0.2.1:10810/ root=/dev/nbd0", "192.0.2.1 10810 \"\" nbd0; root /dev/nbd0"
    ),
    Row(
      "N005", "nbdroot=192.0.2.1:10810 root=/dev/nbd0", "192.0.2.1 10810 \"\" nbd0; root /dev/nbd0"),
    Row("N006", "nbdroot=192.0.2.1 root=/dev/nbd0", "192.0.2.1 10809 \"\" nbd0; root /dev/nbd0"),
    Row("N007", "nbdroot=192.0.2.1/ root=/dev/nbd0", "192.0.2.1 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N008", "nbdroot=192.0.2.1/foo root=/dev/nbd0", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"
    ),
    Row(
      "N009", "nbdroot=192.0.2.1:/foo root=/dev/nbd0",
      "192.0.2.1 10809 \"/foo\" then \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N010", "nbdroot=192.0.2.1:/opt/ltsp/i386 root=/dev/nbd0",
      "192.0.2.1 10809 \"/opt/ltsp/i386\" then \"opt/ltsp/i386\" nbd0; root /dev/nbd0"),
    Row(
      "N011", "nbdroot=192.0.2.1:foo root=/dev/nbd0", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"
    ),
    Row(
      "N012", "nbdroot=server:image root=/dev/nbd0p2",
      "server 10809 \"image\" nbd0; root /dev/nbd0p2"),
    Row(
      "N013", "nbdroot=:10810/foo root=/dev/nbd0", "192.0.2.9 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row("N014", "nbdroot=:10810 root=/dev/nbd0", "192.0.2.9 10810 \"\" nbd0; root /dev/nbd0"),
    Row("N015", "nbdroot=:image root=/dev/nbd0", "192.0.2.9 10809 \"image\" nbd0; root /dev/nbd0"),
    Row(
      "N016", "nbdroot=:/foo root=/dev/nbd0",
      "192.0.2.9 10809 \"/foo\" then \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N017", "nbdroot=/foo root=/dev/nbd0",
      "192.0.2.9 10809 \"foo\" then \"/foo\" nbd0; root /dev/nbd0"),
    Row("N018", "nbdroot=/ root=/dev/nbd0", "192.0.2.9 10809 \"\" then \"/\" nbd0; root /dev/nbd0"),
    Row("N019", "nbdroot= root=/dev/nbd0", "192.0.2.9 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N020", "nbdroot=1234 root=/dev/nbd0",
      "192.0.2.9 1234 \"\" nbd0; root /dev/nbd0; warn numberIsPort"),
    Row(
      "N021", "nbdroot=1234/ root=/dev/nbd0",
      "192.0.2.9 1234 \"\" nbd0; root /dev/nbd0; warn numberIsPort"),
    Row(
      "N022", "nbdroot=1234/foo root=/dev/nbd0",
      "192.0.2.9 1234 \"foo\" nbd0; root /dev/nbd0; warn numberIsPort"),
    Row(
      "N023", "nbdroot=10809/foo root=/dev/nbd0",
      "192.0.2.9 10809 \"foo\" nbd0; root /dev/nbd0; warn numberIsPort"),
    Row("N024", "nbdroot=70000/foo root=/dev/nbd0", "error at 1: a port from 1 to 65535"),
    Row("N025", "nbdroot=0/foo root=/dev/nbd0", "error at 1: a port from 1 to 65535"),
    Row("N026", "nbdroot=1234,foo,nbd0", "error at 1: a host, which cannot be a bare number here"),
    Row(
      "N027", "nbdroot=192.0.2.1:70000/foo root=/dev/nbd0", "error at 11: a port from 1 to 65535"),
    Row(
      "N028", "nbdroot=192.0.2.1:0x10/foo root=/dev/nbd0",
      "192.0.2.1 10809 \"0x10/foo\" nbd0; root /dev/nbd0"),
    Row(
      "N029", "nbdroot=[2001:db8::1]:10810/foo root=/dev/nbd0",
      "2001:db8::1 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N030", "nbdroot=[2001:db8::1]:10810 root=/dev/nbd0",
      "2001:db8::1 10810 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N031", "nbdroot=[2001:db8::1]/foo root=/dev/nbd0",
      "2001:db8::1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N032", "nbdroot=[2001:db8::1]:/foo root=/dev/nbd0",
      "2001:db8::1 10809 \"/foo\" then \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N033", "nbdroot=[2001:db8::1]:foo root=/dev/nbd0",
      "2001:db8::1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N034", "nbdroot=[2001:db8::1] root=/dev/nbd0", "2001:db8::1 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N035", "nbdroot=[fe80::1%eth0]:10810/foo root=/dev/nbd0",
      "fe80::1%eth0 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N036", "nbdroot=2001:db8::1 root=/dev/nbd0", "2001:db8::1 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N037", "nbdroot=2001:db8::1/foo root=/dev/nbd0",
      "2001:db8::1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N038", "nbdroot=::1 root=/dev/nbd0", "::1 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N039", "nbdroot=2001:db8::1:10809/foo root=/dev/nbd0",
      "2001:db8::1:10809 10809 \"foo\" nbd0; root /dev/nbd0; warn addressWithPortNeedsBrackets"),
    Row("N040", "nbdroot=2001:db8::1,foo,nbd0", "2001:db8::1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N041", "nbdroot=192.0.2.1,foo,nbd0", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N042", "nbdroot=192.0.2.1,foo,/dev/nbd0", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N043", "nbdroot=192.0.2.1,foo,nbd0p1", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0p1"),
    Row(
      "N044", "nbdroot=192.0.2.1,foo,nbd0 root=/dev/nbd1",
      "192.0.2.1 10809 \"foo\" nbd1; root /dev/nbd1"),
    Row(
      "N045", "nbdroot=192.0.2.1,foo,nbd0 root=/dev/nbd1p2",
      "192.0.2.1 10809 \"foo\" nbd1; root /dev/nbd1p2"),
    Row(
      "N046", "nbdroot=192.0.2.1,foo,nbd0 root=UUID=c0ffee",
      "192.0.2.1 10809 \"foo\" nbd0; root UUID=c0ffee"),
    Row(
      "N047", "nbdroot=192.0.2.1,foo root=/dev/nbd0", "192.0.2.1 10809 \"foo\" nbd0; root /dev/nbd0"
    ),
    Row(
      "N048", "nbdroot=192.168.1.23,siduction-iso root=/dev/nbd0",
      "192.168.1.23 10809 \"siduction-iso\" nbd0; root /dev/nbd0"),
    Row(
      "N049", "nbdroot=192.0.2.1,2000,nbd0",
      "192.0.2.1 10809 \"2000\" nbd0; root /dev/nbd0; warn numberIsExportName"),
    Row(
      "N050", "nbdroot=192.0.2.1,2000 root=/dev/nbd0",
      "192.0.2.1 10809 \"2000\" nbd0; root /dev/nbd0; warn numberIsExportName"),
    Row("N051", "nbdroot=192.0.2.1,,nbd0", "192.0.2.1 10809 \"\" nbd0; root /dev/nbd0"),
    Row("N052", "nbdroot=,foo,nbd0", "192.0.2.9 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N053", "nbdroot=dhcp,foo,nbd0", "192.0.2.9 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row("N054", "nbdroot=dhcp,foo root=/dev/nbd0", "192.0.2.9 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N055", "nbdroot=dhcp:10810/foo root=/dev/nbd0",
      "192.0.2.9 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row("N056", "nbdroot=dhcp/foo root=/dev/nbd0", "192.0.2.9 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N057", "nbdroot=dhcp:/foo root=/dev/nbd0",
      "192.0.2.9 10809 \"/foo\" then \"foo\" nbd0; root /dev/nbd0"),
    Row("N058", "nbdroot=192.0.2.1,a,b,nbd0", "192.0.2.1 10809 \"a,b\" nbd0; root /dev/nbd0"),
    Row("N059", "nbdroot=192.0.2.1,a,b", "error at 13: a device such as nbd0 or nbd0p1"),
    Row(
      "N060", "nbdroot=192.0.2.1:10810/a,b root=/dev/nbd0",
      "192.0.2.1 10810 \"a,b\" nbd0; root /dev/nbd0"),
    Row(
      "N061", "nbdroot=192.0.2.1,iqn.2001-04.com.example:disk,nbd0",
      "192.0.2.1 10809 \"iqn.2001-04.com.example:disk\" nbd0; root /dev/nbd0"),
    Row(
      "N062", "nbdroot=server.example:10810/foo root=/dev/nbd0",
      "server.example 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N063", "nbdroot=server.example root=/dev/nbd0",
      "server.example 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N064", "nbdroot=192.0.2.1:10810/a%20b root=/dev/nbd0",
      "192.0.2.1 10810 \"a%20b\" nbd0; root /dev/nbd0"),
    Row(
      "N065", "nbdroot=192.0.2.1,a,nbd0 nbdroot=192.0.2.2,b,nbd1",
      "192.0.2.2 10809 \"b\" nbd1; root /dev/nbd1"),
    Row(
      "N066", "nbddev=/dev/nbd3 nbdroot=192.0.2.1:10810/foo",
      "192.0.2.1 10810 \"foo\" nbd3; root /dev/nbd3"),
    Row(
      "N067", "nbddev=/dev/nbd3 root=/dev/nbd1 nbdroot=192.0.2.1:10810/foo",
      "192.0.2.1 10810 \"foo\" nbd1; root /dev/nbd1"),
    Row(
      "N068", "root=/dev/nbd1 nbddev=/dev/nbd3 nbdroot=192.0.2.1:10810/foo",
      "192.0.2.1 10810 \"foo\" nbd1; root /dev/nbd1"),
    Row(
      "N069", "nbdroot=192.0.2.1:10810/foo root=UUID=c0ffee",
      "192.0.2.1 10810 \"foo\" nbd0; root UUID=c0ffee"),
    Row(
      "N070", "nbdroot=192.0.2.15 nbdport=2000 ip=dhcp", "192.0.2.15 2000 \"\" nbd0; root /dev/nbd0"
    ),
    Row("N071", "root=/dev/nbd0", "nothing"),
    Row(
      "N072", "root=/dev/nbd0", rootPath: "192.0.2.3:10809/foo",
      "192.0.2.3 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N073", "nbdroot=dhcp root=/dev/nbd0", rootPath: "192.0.2.3,foo,nbd2",
      "192.0.2.3 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N074", "nbdroot=dhcp", rootPath: "192.0.2.3,foo,nbd2",
      "192.0.2.3 10809 \"foo\" nbd2; root /dev/nbd2"),
    Row(
      "N075", "nbdroot=dhcp", rootPath: "192.0.2.3:10810/foo",
      "192.0.2.3 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N076", "nbdroot=dhcp root=/dev/nbd0", rootPath: "nbdroot=192.0.2.3,foo,nbd0",
      "192.0.2.3 10809 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N077", "nbdroot=dhcp root=/dev/nbd0", rootPath: "192.0.2.3",
      "192.0.2.3 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N078", "nbdroot=dhcp,bar,nbd0", rootPath: "192.0.2.3",
      "192.0.2.3 10809 \"bar\" nbd0; root /dev/nbd0"),
    Row(
      "N079", "nbdroot=dhcp root=/dev/nbd0", rootPath: "/srv/nbd/foo",
      "192.0.2.9 10809 \"/srv/nbd/foo\" then \"srv/nbd/foo\" nbd0; root /dev/nbd0"),
    Row(
      "N080", "nbdroot=dhcp root=/dev/nbd0", rootPath: "192.0.2.3:/srv/nbd",
      "192.0.2.3 10809 \"/srv/nbd\" then \"srv/nbd\" nbd0; root /dev/nbd0"),
    Row(
      "N081", "nbdroot=dhcp root=/dev/nbd0", rootPath: "nbd:192.0.2.3:foo:ext4:noatime",
      "192.0.2.3 10809 \"foo\" nbd0; root /dev/nbd0 ext4 noatime"),
    Row(
      "N082", "nbdroot=dhcp root=/dev/nbd0", rootPath: "nbd://192.0.2.3:10810/foo",
      "192.0.2.3 10810 \"foo\" nbd0; root /dev/nbd0"),
    Row(
      "N083", "nbdroot=dhcp root=/dev/nbd0", rootPath: "iscsi:192.0.2.3::::iqn.x",
      "error: the root-path belongs to another protocol"),
    Row("N084", "nbdroot=dhcp root=/dev/nbd0", "192.0.2.9 10809 \"\" nbd0; root /dev/nbd0"),
    Row(
      "N085", "nbdroot=:10810/foo root=/dev/nbd0", rootPath: "192.0.2.3:/other",
      "192.0.2.3 10810 \"foo\" nbd0; root /dev/nbd0"),
  ]

  @Test("means one thing where the grammars collide", arguments: rows)
  func table(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }
}

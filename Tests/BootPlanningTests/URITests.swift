// SPDX-License-Identifier: Apache-2.0
// NBD URIs, wherever one may stand.

import BootPlanning
import Testing
import WireFormat

@Suite("An NBD URI")
struct URITests {
  /// The URI is the whole value; the lease of all rows has the boot server 192.0.2.9.
  static let rows = [
    Row("U01", "nbd://192.0.2.1", #"192.0.2.1 10809 "" nbd0"#),
    Row("U02", "nbd://192.0.2.1/", #"192.0.2.1 10809 "" nbd0"#),
    Row("U03", "nbd://192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0"#),
    Row("U04", "nbd://192.0.2.1:10810/foo", #"192.0.2.1 10810 "foo" nbd0"#),
    Row("U05", "nbd://192.0.2.1:/foo", #"192.0.2.1 10809 "foo" nbd0"#),
    Row("U06", "nbd://192.0.2.1//foo", #"192.0.2.1 10809 "/foo" nbd0"#),
    Row("U07", "nbd://192.0.2.1/a/b", #"192.0.2.1 10809 "a/b" nbd0"#),
    Row("U08", "nbd://192.0.2.1/hello%20world", #"192.0.2.1 10809 "hello world" nbd0"#),
    Row("U09", "nbd://192.0.2.1/%2Ffoo", #"192.0.2.1 10809 "/foo" nbd0"#),
    Row("U10", "nbd://192.0.2.1/a%2Cb", #"192.0.2.1 10809 "a,b" nbd0"#),
    Row("U11", "nbd://192.0.2.1/x%00y", "error at 18: an export name without a NUL byte"),
    Row("U12", "nbd://[2001:db8::1]/foo", #"2001:db8::1 10809 "foo" nbd0"#),
    Row("U13", "nbd://[2001:db8::1]:10810/foo", #"2001:db8::1 10810 "foo" nbd0"#),
    Row("U14", "nbd://[fe80::1%25eth0]/foo", #"fe80::1%eth0 10809 "foo" nbd0"#),
    Row("U15", "nbd://2001:db8::1/foo", "error at 7: brackets around an IPv6 address"),
    Row("U16", "nbd:///foo", #"192.0.2.9 10809 "foo" nbd0"#),
    Row("U17", "nbd:///", #"192.0.2.9 10809 "" nbd0"#),
    Row("U18", "nbd://1234/", #"1234 10809 "" nbd0"#),
    Row(
      "U19", "nbds://server.example/foo",
      #"server.example 10809 "foo" nbd0 tls verify=server.example"#),
    Row(
      "U20", "nbds://192.0.2.1/foo?tls-hostname=server.example",
      #"192.0.2.1 10809 "foo" nbd0 tls verify=server.example"#),
    Row(
      "U21", "nbds://alice@192.0.2.1/foo?tls-type=psk",
      #"192.0.2.1 10809 "foo" nbd0 tls psk identity=alice"#),
    Row(
      "U22", "nbds://192.0.2.1/foo?tls-verify-peer=0",
      #"192.0.2.1 10809 "foo" nbd0 tls unverified"#),
    Row("U23", "nbd+unix:///foo?socket=/run/nbd.sock", #"/run/nbd.sock "foo" nbd0"#),
    Row("U24", "nbd+unix:///?socket=%00nbd", #"@nbd "" nbd0"#),
    Row(
      "U25", "nbd+unix:///foo", "error at 16: the key socket= with the path of the Unix socket"),
    Row(
      "U26", "nbd://192.0.2.1/foo?socket=/run/x",
      "error at 21: no socket= in a URI that names a host"),
    Row("U27", "nbd://192.0.2.1:70000/foo", "error at 17: a port from 1 to 65535"),
    Row("U28", "nbd://192.0.2.1/foo?x-opt=1", #"192.0.2.1 10809 "foo" nbd0"#),
    Row(
      "U29", "nbd://192.0.2.1/foo?bogus=1",
      "error at 21: a known key (socket, tls-type, tls-hostname, tls-verify-peer, x-...)"),
    Row("U30", "NBD://192.0.2.1/foo", #"192.0.2.1 10809 "foo" nbd0"#),
    Row("U31", "nbd:192.0.2.1:foo", #"192.0.2.1 10809 "foo" nbd0"#),
    Row(
      "U32", "nbd://192.0.2.1,foo,nbd0",
      "error at 16: a host name of letters, digits, '-', '_' and '.'"),
  ]

  @Test("means the same in nbdroot=, root= and netroot=", arguments: rows)
  func parameters(row: Row) {
    for parameter in ["nbdroot", "root", "netroot"] {
      let line = Row(row.id, "\(parameter)=\(row.line)", row.meaning)
      #expect(outcome(of: line.input()) == Self.withRoot(row.meaning), "in \(parameter)=")
    }
  }

  @Test("means the same in a root-path, except that a lease's server is then next-server's")
  func rootPath() {
    for row in Self.rows {
      let line = Row(row.id, "nbdroot=dhcp", rootPath: row.line, row.meaning)
      #expect(outcome(of: line.input()) == Self.withRoot(row.meaning), "\(row.id) \(row.line)")
    }
  }

  private static func withRoot(_ meaning: String) -> String {
    meaning.hasPrefix("error") ? meaning : meaning + "; root /dev/nbd0"
  }

  /// Beside the table: what is at the edges of the grammar.
  static let edges = [
    Row(
      "percent at the end", "nbdroot=nbd://h/a%2", "error at 10: two hexadecimal digits after '%'"),
    Row("percent", "nbdroot=nbd://h/%zz", "error at 9: two hexadecimal digits after '%'"),
    Row("fragment", "nbdroot=nbd://h/a#b", "error at 10: '%23' for '#'"),
    Row("open bracket", "nbdroot=nbd://[::1/a", "error at 7: an IPv6 address that ends with ']'"),
    Row("after bracket", "nbdroot=nbd://[::1]x/a", "error at 12: ':', '/' or nothing after ']'"),
    Row(
      "raw scope", "nbdroot=nbd://[fe80::1%eth0]/a", "error at 15: two hexadecimal digits after '%'"
    ),
    Row(
      "another scheme", "nbdroot=http://h/a",
      "error at 1: nbd://, nbds://, nbd+unix:// or nbds+unix://"),
    Row(
      "host of a socket", "nbdroot=nbd+unix://h/a?socket=/x",
      "error at 12: no host in a URI of a Unix socket"),
    Row("bad verify", "nbdroot=nbds://h/?tls-verify-peer=2", "error at 27: 0 or 1"),
    Row("bad tls-type", "nbdroot=nbds://h/?tls-type=tls", "error at 20: anon, x509 or psk"),
    Row("dhcp is a name", "nbdroot=nbd://dhcp/a", #"dhcp 10809 "a" nbd0; root /dev/nbd0"#),
    Row("port only", "nbdroot=nbd://:10810/a", #"192.0.2.9 10810 "a" nbd0; root /dev/nbd0"#),
    Row(
      "nbdport is not for URIs", "nbdroot=nbd://h/a nbdport=1", #"h 10809 "a" nbd0; root /dev/nbd0"#
    ),
    Row(
      "socket with a NUL inside", "nbdroot=nbd+unix:///?socket=/a%00b",
      "error at 21: the path of a Unix socket, 1 to 107 bytes, without NUL but as first byte"),
    Row(
      "two keys", "nbdroot=nbds+unix://bob@/x?socket=/s&tls-type=x509",
      #"/s "x" nbd0 tls x509 identity=bob; root /dev/nbd0"#),
  ]

  @Test("is refused at the character where it goes wrong", arguments: edges)
  func edge(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }
}

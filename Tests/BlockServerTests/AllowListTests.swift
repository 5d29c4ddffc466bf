// SPDX-License-Identifier: Apache-2.0
import BlockServer
import Testing
import WireFormat

@Suite("A client's address")
struct ClientAddressTests {
  static let texts: [(text: ByteString, address: ClientAddress, shown: ByteString?)] = [
    ("tcp:192.0.2.1:4321", .ipv4([192, 0, 2, 1]), "192.0.2.1"),
    ("192.0.2.1", .ipv4([192, 0, 2, 1]), "192.0.2.1"),
    ("192.0.2.1:80", .ipv4([192, 0, 2, 1]), "192.0.2.1"),
    ("tcp:[::ffff:192.0.2.1]:4321", .ipv4([192, 0, 2, 1]), "192.0.2.1"),
    (
      "tcp:[2001:db8::1]:4321", .ipv6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
      "2001:db8::1"
    ),
    (
      "fe80::1%eth0", .ipv6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "fe80::1"
    ),
    (
      "gid:fe800000000000000000000000000001",
      .ipv6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "fe80::1"
    ),
    ("unix:/run/x", .local, "local"), ("unix:", .local, "local"),
    ("test", .unknown, nil), ("", .unknown, nil), ("tcp:[", .unknown, nil),
    ("tcp:[]:1", .unknown, nil),
    ("gid:", .unknown, nil), ("tcp:1.2.3.4.5:1", .unknown, nil),
  ]

  @Test("is what the log calls it, without its port", arguments: texts)
  func parses(text: ByteString, address: ClientAddress, shown: ByteString?) {
    #expect(ClientAddress(text) == address)
    #expect(ClientAddress(text).text == shown)
  }
}

@Suite("An allow list")
struct AllowListTests {
  static let cases: [(networks: [ByteString], client: ByteString, isAllowed: Bool)] = [
    ([], "tcp:192.0.2.1:1", false), ([], "unix:/a", false),
    (["192.0.2.0/24"], "tcp:192.0.2.1:1", true), (["192.0.2.0/24"], "tcp:192.0.3.1:1", false),
    (["192.0.2.0/24"], "tcp:[::ffff:192.0.2.1]:1", true), (["192.0.2.0/24"], "unix:/a", false),
    (["192.0.2.128/25"], "192.0.2.127", false), (["192.0.2.128/25"], "192.0.2.128", true),
    (["192.0.2.1"], "192.0.2.1", true), (["192.0.2.1"], "192.0.2.2", false),
    (["0.0.0.0/0"], "203.0.113.9", true), (["0.0.0.0/0"], "2001:db8::1", false),
    (["::/0"], "2001:db8::1", true), (["::/0"], "203.0.113.9", false),
    (["2001:db8::/33"], "2001:db8:7fff::1", true), (["2001:db8::/33"], "2001:db8:8000::1", false),
    (["unix"], "unix:/a", true), (["unix"], "127.0.0.1", false), (["0.0.0.0/0"], "test", false),
    (["10.0.0.0/8", "unix"], "10.255.0.1", true),
  ]

  @Test("lets in who is in one of its networks", arguments: cases)
  func allows(networks: [ByteString], client: ByteString, isAllowed: Bool) throws {
    let list = AllowList(networks: try networks.map { try ClientNetwork($0) })
    #expect(list.allows(ClientAddress(client)) == isAllowed)
  }

  @Test("that is none lets in everybody")
  func none() {
    for client: ByteString in ["192.0.2.1", "2001:db8::1", "unix:/a", "?"] {
      #expect(AllowList.everybody.allows(ClientAddress(client)))
    }
  }

  static let texts: [(text: ByteString, again: ByteString)] = [
    ("192.0.2.0/24", "192.0.2.0/24"), ("192.0.2.1/32", "192.0.2.1"),
    ("2001:DB8::/32", "2001:db8::/32"),
    ("unix", "unix"), ("0.0.0.0/0", "0.0.0.0/0"),
  ]

  @Test("can be written again", arguments: texts)
  func text(text: ByteString, again: ByteString) throws {
    #expect(try ClientNetwork(text).text == again)
  }

  static let refusals: [(ByteString, ClientNetwork.ParseError)] = [
    ("", .address("")), ("local", .address("local")), ("192.0.2", .address("192.0.2")),
    ("fe80::1%eth0", .address("fe80::1%eth0")), ("/8", .address("/8")),
    ("192.0.2.0/33", .prefixLength("192.0.2.0/33", maximum: 32)),
    ("192.0.2.0/", .prefixLength("192.0.2.0/", maximum: 32)),
    ("192.0.2.0/-1", .prefixLength("192.0.2.0/-1", maximum: 32)),
    ("2001:db8::/129", .prefixLength("2001:db8::/129", maximum: 128)),
    ("::ffff:192.0.2.0/120", .prefixLength("::ffff:192.0.2.0/120", maximum: 32)),
    ("192.0.2.1/24", .hostBits("192.0.2.1/24", meant: "192.0.2.0/24")),
    ("2001:db8::1/64", .hostBits("2001:db8::1/64", meant: "2001:db8::/64")),
  ]

  @Test("refuses what is no network", arguments: refusals)
  func refuses(text: ByteString, error: ClientNetwork.ParseError) {
    #expect(throws: error) { try ClientNetwork(text) }
  }
}

// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A DHCP message")
struct DHCPMessageTests {
  @Test("says what its bytes say")
  func offer() throws {
    let message = try decoded(offerBytes)
    #expect(message.operation == .reply)
    #expect(message.transaction == 0x3903_f326)
    #expect(message.hardwareAddress == ethernetAddress)
    #expect(message.yourAddress == ipv4("192.0.2.50"))
    let lease = try #require(DHCPLease(message))
    #expect(lease.address == ipv4("192.0.2.50") && lease.prefixLength == 24)
    #expect(lease.gateway == ipv4("192.0.2.1") && lease.routes.count == 1)
    #expect(lease.nameServers == [ipv4("192.0.2.53"), ipv4("192.0.2.54")])
    #expect(lease.domainName == "example" && lease.hostName == "h1")
    #expect(lease.mtuByteCount == 1500)
    #expect(lease.rootPath == "nbd://192.0.2.9/debian-root?x=1")
    #expect(lease.nextServer == ipv4("192.0.2.10"))
    #expect(lease.serverIdentifier == ipv4("192.0.2.9"))
    #expect(lease.broadcast == ipv4("192.0.2.255"))
    #expect([lease.renewalSeconds, lease.rebindingSeconds, lease.seconds] == [900, 2700, 3600])
    #expect(lease.unusable.isEmpty)
  }

  @Test("is encoded as it is decoded, at 300 bytes or more")
  func roundTrip() throws {
    let message = try decoded(offerBytes)
    let encoded = message.encoded
    #expect(encoded.starts(with: offerBytes) && encoded.count >= 300)
    #expect(try decoded(encoded) == message)
  }

  @Test("cut off is refused, or has lost its last options")
  func truncations() throws {
    let whole = try decoded(offerBytes)
    for count in 0..<offerBytes.count {
      let start = Array(offerBytes[..<count])
      guard count >= DHCPMessage.headerByteCount else {
        #expect(throws: WireError.byteCount(expected: 240, actual: count)) {
          try decoded(start)
        }
        continue
      }
      if let cut = try? decoded(start) {
        #expect(Array(whole.options.prefix(cut.options.count)) == cut.options)
      }
    }
  }

  @Test(
    "with a wrong constant is refused",
    arguments: [(0, 3), (0, 0), (2, 17), (236, 0), (237, 0), (238, 0), (239, 0)])
  func constants(offset: Int, value: UInt8) {
    var message = offerBytes
    message[offset] = value
    #expect(throws: WireError.self) { try decoded(message) }
  }

  @Test("may be as long as a jumbo frame carries, and no longer")
  func lengths() throws {
    var message = offerBytes
    message += [UInt8](repeating: 0, count: DHCPMessage.byteCountMaximum - message.count)
    _ = try decoded(message)
    message.append(0)
    #expect(throws: WireError.self) { try decoded(message) }
    message = offerBytes
    message[2] = 16
    #expect(try decoded(message).hardwareAddress.count == 16)
  }

  /// Source: RFC 2132, section 9.3; RFC 3396, section 7: options, `file`, `sname`.
  @Test("has its options in the fields that option 52 names, in the order of RFC 3396")
  func overload() throws {
    func message(_ overload: String) -> [UInt8] {
      let server = bytes("1102 6332 ff") + [UInt8](repeating: 0, count: 59)
      let file = bytes("1102 6231 0c01 68 ff") + [UInt8](repeating: 0, count: 120)
      return bytes(offerHeader) + server + file
        + bytes("\(cookie) \(overload) 1102 6130 \(necessary) ff")
    }
    let rows: [(String, rootPath: ByteString, serverName: ByteString, hostName: ByteString?)] = [
      ("340103", "a0b1c2", "", "h"), ("340101", "a0b1", "\u{11}\u{2}c2", "h"),
      ("340102", "a0c2", "", nil), ("", "a0", "\u{11}\u{2}c2", nil),
    ]
    for row in rows {
      let decoded = try decoded(message(row.0))
      #expect(decoded.option(.rootPath) == row.rootPath.bytes, "\(row.0)")
      #expect(decoded.option(.hostName) == row.hostName?.bytes, "\(row.0)")
      #expect(decoded.serverName.bytes.prefix(4) == row.serverName.bytes[...], "\(row.0)")
    }
    for wrong in ["340100", "340104", "34020101", "3400"] {
      #expect(throws: WireError.self) { try decoded(message(wrong)) }
    }
  }

  @Test("has options longer than 255 bytes in pieces", arguments: [254, 255, 256, 510, 511, 1000])
  func longOptions(count: Int) throws {
    var message = DHCPMessage(.reply)
    let text = (0..<count).map { UInt8(truncatingIfNeeded: $0 % 26 + 0x61) }
    message.options = [DHCPOption(.rootPath, text), DHCPOption(.hostName, [0x68])]
    let pieces = max(1, (count + 254) / 255)
    #expect(message.encoded.count == max(300, 240 + count + 2 * pieces + 3 + 1))
    #expect(try decoded(message.encoded) == message)
  }

  /// Source: RFC 3442, section "Classless Route Option Format".
  static let routeRows: [(String, [DHCPRoute]?)] = [
    ("7905 00 c0000201", [route("0.0.0.0", 0, "192.0.2.1")]),
    (
      "790d 00 c0000201 18 0a0000 c0000202",
      [route("0.0.0.0", 0, "192.0.2.1"), route("10.0.0.0", 24, "192.0.2.2")]
    ),
    ("7909 20 0a112233 c0000201", [route("10.17.34.51", 32, "192.0.2.1")]),
    ("7908 11 0a1bff c0000201", [route("10.27.128.0", 17, "192.0.2.1")]),
    ("7906 08 0a 00000000", [route("10.0.0.0", 8, nil)]),
    ("7900", nil), ("7904 00 c00002", nil), ("7909 21 0a11223344 c00002", nil),
    ("7906 00 c0000201 00", nil),
  ]
  static func route(_ destination: String, _ length: UInt8, _ gateway: String?) -> DHCPRoute {
    DHCPRoute(
      destination: ipv4(destination), prefixLength: length, gateway: gateway.map { ipv4($0) })
  }

  @Test("has classless routes instead of routers, or is known for bad ones", arguments: routeRows)
  func classlessRoutes(options: String, routes: [DHCPRoute]?) throws {
    let lease = try #require(try lease("0304c0000207 \(options)"))
    #expect(lease.routes == routes ?? [Self.route("0.0.0.0", 0, "192.0.2.7")])
    #expect(lease.unusable == (routes == nil ? [121] : []))
  }

  /// Renewal and rebinding of a lease of 3600 s. Source: RFC 2131, section 4.4.5.
  static let timeRows: [(String, UInt32, UInt32)] = [
    ("", 1800, 3150), ("3a0400000001 3b0400000002", 1, 2), ("3a0400000e10", 1800, 3150),
    ("3b0400000e0f", 1800, 3599), ("3b0400000e10", 1800, 3150), ("3b0400000001", 1, 1),
    ("3a0400000000", 1800, 3150), ("3a03000001", 1800, 3150),
  ]
  @Test("has times in order, whatever the server says", arguments: timeRows)
  func times(options: String, renewal: UInt32, rebinding: UInt32) throws {
    let lease = try #require(try lease(options))
    #expect(lease.renewalSeconds == renewal && lease.rebindingSeconds == rebinding)
  }

  @Test(
    "without what a lease needs is no lease",
    arguments: [
      "350102 3604c0000209 0104ffffff00", "350102 330400000e10 0104ffffff00",
      "350102 3604c0000209 330400000000", "350102 3604c0000209 330300000e",
      "350102 360400000000 330400000e10", "350102 3604c0000209 330400000e10 0104ff00ff00",
      "350102 3604c0000209 330400000e10 010400000000",
      "350102 3604c0000209 330400000e10 0103ffffff",
    ])
  func noLease(options: String) throws {
    #expect(DHCPLease(try decoded(reply(options))) == nil)
  }

  /// Source: `inet_abc_len()` in Linux `net/ipv4/devinet.c`.
  @Test(
    "without a mask has that of its class",
    arguments: [
      ("0a000001", 8), ("7fffffff", 8), ("80000001", 16), ("bfffffff", 16), ("c0000001", 24),
      ("dfffffff", 24), ("e0000001", nil), ("00000000", nil), ("ffffffff", nil),
    ] as [(String, UInt8?)])
  func classes(address: String, length: UInt8?) throws {
    var message = try decoded(reply("350102 3604c0000209 330400000e10"))
    message.yourAddress = IPv4Address(rawValue: bytes(address).span.bigEndian(UInt32.self, at: 0))
    #expect(DHCPLease(message)?.prefixLength == length)
  }

  @Test(
    "loses an option that is malformed, and says which",
    arguments: [
      ("1a020043", 26), ("1a0105", 26), ("0603c00002", 6), ("0600", 6), ("0305c000020101", 3),
      ("1103610062", 17), ("1101 00", 17), ("7703 c00000", 119), ("7702 0361", 119),
      ("1c03c00002", 28),
      // What would go into files as it is: a/b, a and b in two lines, $a.
      ("0f03612f62", 15), ("0c03610a62", 12), ("0c022461", 12),
    ] as [(String, UInt8)])
  func malformedOption(options: String, code: UInt8) throws {
    #expect(try lease(options)?.unusable == [code])
  }

  @Test("names the boot server and file in options rather than in fields")
  func bootNames() throws {
    let fields = reply(necessary, serverName: "s1", bootFile: "f1")
    let options = reply("\(necessary) 42027332 43026632", serverName: "s1", bootFile: "f1")
    let first = try #require(DHCPLease(try decoded(fields)))
    #expect(first.serverName == "s1" && first.bootFile == "f1")
    let second = try #require(DHCPLease(try decoded(options)))
    #expect(second.serverName == "s2" && second.bootFile == "f2")
    #expect(try lease("1103612f00")?.rootPath == "a/")
    #expect(try lease("0f07612e622061322d")?.domainName == "a.b a2-")
    #expect(try lease("0c0434373131")?.hostName == "4711")
    #expect(try lease("1a020044")?.mtuByteCount == 68)
  }

  /// Source: the example in RFC 3397, section 2: eng.apple.com. and marketing.apple.com.
  @Test("has search domains with pointers")
  func searchDomains() throws {
    let option = "771b 03656e67 056170706c65 03636f6d 00 096d61726b6574696e67 c004"
    #expect(try lease(option)?.searchDomains == ["eng.apple.com", "marketing.apple.com"])
  }

  @Test("of mutated bytes never traps")
  func mutated() {
    var random = SeededGenerator(printingAs: "DHCP messages")
    let samples = [
      offerBytes, reply("\(necessary) 790d 00 c0000201 18 0a0000 c0000202"),
      reply("340103 \(necessary) 771b 03656e67 056170706c65 03636f6d 00 096d61726b6574696e67 c004"),
    ]
    // The header is not what breaks: most changes go to the options.
    var leases = 0
    for round in 0..<1_000_000 {
      var message = samples[round % samples.count]
      for _ in 0...Int(random.next() % 4) {
        let start = random.next() % 8 == 0 ? 0 : 240
        let place = start + Int(random.next() % UInt64(message.count - start))
        message[place] = UInt8(truncatingIfNeeded: random.next())
      }
      if random.next() % 16 == 0 { message.removeLast(Int(random.next() % 48)) }
      guard let decoded = try? decoded(message) else { continue }
      if DHCPLease(decoded) != nil { leases += 1 }
    }
    #expect(leases > 100_000)
  }
}

// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

@Suite("IPv6")
struct IPv6Tests {
  static func v6(_ text: String) -> IPv6Address { IPv6Address(Array(text.utf8)[...])! }

  /// Layout: RFC 4861, section 4.2; RFC 8106, sections 5.1 and 5.2.
  static let advertisement = bytes(
    """
    86 00 0000 40 c0 0708 00000000 00000000
    03 04 40 c0 00278d00 00093a80 00000000 20010db8000100000000000000000000
    05 01 0000 000005dc
    19 05 0000 00000e10 20010db8000100000000000000000053 20010db8000100000000000000000054
    1f 03 0000 00000e10 07 6578616d706c65 00 0000000000 0000
    01 01 525400123456
    """)

  static func decode(_ bytes: [UInt8]) throws -> RouterAdvertisement {
    try RouterAdvertisement(decoding: bytes.span)
  }

  @Test("router advertisements say what their bytes say")
  func router() throws {
    let router = try Self.decode(Self.advertisement)
    #expect(router.hasManagedAddresses)
    #expect(router.nameServers == [Self.v6("2001:db8:1::53"), Self.v6("2001:db8:1::54")])
    #expect(router.searchDomains == ["example"])
  }

  @Test("router advertisements cut inside of an option are refused")
  func routerTruncations() throws {
    let ends = [16, 48, 56, 96, 120, 128]
    for count in 0...Self.advertisement.count {
      let start = Array(Self.advertisement[..<count])
      if ends.contains(count) {
        _ = try Self.decode(start)
      } else {
        #expect(throws: WireError.self, "\(count)") { try Self.decode(start) }
      }
    }
  }

  @Test(
    "router advertisements of another type, with a code or an option of no length are refused",
    arguments: [(0, 133), (1, 1), (17, 0)])
  func routerValues(offset: Int, value: UInt8) {
    var message = Self.advertisement
    message[offset] = value
    #expect(throws: WireError.self) { try Self.decode(message) }
  }

  @Test("routers are solicited with the bytes of the specification")
  func solicitation() {
    #expect(RouterSolicitation.encoded == bytes("8500000000000000"))
  }

  /// Layout: RFC 8415, section 21; RFC 3646; RFC 5970, section 3.
  static let reply = bytes(
    """
    07 abcdef
    0001 000a 00030001525400123456
    0002 000a 00030001525400654321
    0003 0028 00000007 00000e10 00001518
      0005 0018 20010db8000100000000000000001000 00001c20 00002a30
    0017 0010 20010db8000100000000000000000053
    0018 0009 07 6578616d706c65 00
    003b 0010 746674703a2f2f5b323030313a5d2f61
    003c 0008 0002 6131 0002 6232
    """)

  static func decodeReply(_ bytes: [UInt8]) throws -> DHCPv6Message {
    try DHCPv6Message(decoding: bytes.span)
  }

  @Test("DHCPv6 replies say what their bytes say, and are encoded as they were")
  func dhcp6() throws {
    let message = try Self.decodeReply(Self.reply)
    #expect(message.type == .reply && message.transaction == 0xab_cdef)
    #expect(message.encoded == Self.reply)
    let lease = try #require(DHCPv6Lease(message, association: 7))
    #expect(lease.address == Self.v6("2001:db8:1::1000"))
    #expect(lease.validSeconds == 10_800)
    #expect(lease.serverIdentifier == bytes("00030001525400654321"))
    #expect(lease.nameServers == [Self.v6("2001:db8:1::53")])
    #expect(lease.searchDomains == ["example"] && lease.bootFileURL == "tftp://[2001:]/a")
    #expect(DHCPv6Lease(message, association: 8) == nil)
  }

  @Test("DHCPv6 replies cut inside of an option are refused")
  func dhcp6Truncations() throws {
    var ends = [4]
    while let last = ends.last, last < Self.reply.count {
      ends.append(last + 4 + Int(Self.reply[last + 2]) << 8 + Int(Self.reply[last + 3]))
    }
    for count in 0...Self.reply.count {
      let start = Array(Self.reply[..<count])
      #expect(((try? Self.decodeReply(start)) != nil) == ends.contains(count), "\(count)")
    }
  }

  @Test("a failing status, an address without a life or none at all is no lease")
  func dhcp6NoLease() throws {
    var message = try Self.decodeReply(Self.reply)
    message.options.append(DHCPv6Option(.status, [0, 2]))
    #expect(DHCPv6Lease(message, association: 7) == nil)
    for (offset, value) in [(75, UInt8(0)), (68, 0xff), (49, 6)] {
      var wire = Self.reply
      wire[offset] = value
      if offset == 75 { wire.replaceSubrange(72..<76, with: [0, 0, 0, 0]) }
      let changed = try Self.decodeReply(wire)
      #expect(DHCPv6Lease(changed, association: 7) == nil, "\(offset)")
    }
  }

  @Test("mutated bytes never trap", arguments: 0..<10)
  func mutated(shard: Int) {
    var random = SeededGenerator(printingAs: "IPv6 configuration")
    var leases = 0
    for round in 0..<200_000 {
      var message = round % 2 == 0 ? Self.advertisement : Self.reply
      for _ in 0...Int(random.next() % 3) {
        message[Int(random.next() % UInt64(message.count))] = UInt8(
          truncatingIfNeeded: random.next())
      }
      if random.next() % 8 == 0 { message.removeLast(Int(random.next() % 64)) }
      if round % 2 == 0 {
        if (try? Self.decode(message)) != nil { leases += 1 }
      } else if let reply = try? Self.decodeReply(message),
        DHCPv6Lease(reply, association: 7) != nil
      {
        leases += 1
      }
    }
    #expect(leases > 20_000)
  }
}

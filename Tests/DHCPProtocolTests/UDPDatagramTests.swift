// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A datagram through a packet socket")
struct UDPDatagramTests {
  /// Worked out by hand with RFC 791 and RFC 768: 192.0.2.1:67 to 192.0.2.2:68, "hi!".
  static let wire = bytes(
    "4500001f 00004000 4011 b6ca c0000201 c0000202 0043 0044 000b f1e3 686921")
  static let datagram = UDPDatagram(
    source: ipv4("192.0.2.1"), sourcePort: 67, destination: ipv4("192.0.2.2"), destinationPort: 68,
    payload: Array("hi!".utf8))

  @Test("is the bytes of the specification")
  func encoded() throws {
    #expect(Self.datagram.encoded == Self.wire)
    let decoded = try decodedDatagram(Self.wire, isComplete: true)
    #expect(decoded == Self.datagram)
  }

  @Test("is taken with padding behind it, and refused at every truncation")
  func lengths() throws {
    let padded = Self.wire + [UInt8](repeating: 0xaa, count: 15)
    #expect(try decodedDatagram(padded, isComplete: true) == Self.datagram)
    for count in 0..<Self.wire.count {
      let start = Array(Self.wire[..<count])
      #expect(throws: WireError.self) {
        try decodedDatagram(start, isComplete: true)
      }
    }
  }

  @Test("with any bit changed is refused")
  func changes() {
    for bit in 0..<(Self.wire.count * 8) {
      var wire = Self.wire
      wire[bit / 8] ^= UInt8(1 << (bit % 8))
      #expect(throws: WireError.self, "bit \(bit)") {
        try decodedDatagram(wire, isComplete: true)
      }
    }
  }

  @Test("without a checksum, or with one that hardware was to fill in, is taken")
  func checksums() throws {
    var wire = Self.wire
    wire[27] ^= 1
    #expect(try decodedDatagram(wire, isComplete: false) == Self.datagram)
    wire[26] = 0
    wire[27] = 0
    #expect(try decodedDatagram(wire, isComplete: true) == Self.datagram)
  }

  @Test("has a payload of at most what its length can say")
  func greatest() {
    var datagram = Self.datagram
    datagram.payload = [UInt8](repeating: 0x55, count: 65535 - 28)
    #expect(datagram.encoded?.count == 65535)
    datagram.payload.append(0)
    #expect(datagram.encoded == nil)
  }

  @Test("of mutated bytes never traps")
  func mutated() {
    var random = SeededGenerator(printingAs: "UDP datagrams")
    for _ in 0..<1_000_000 {
      var wire = Self.wire
      for _ in 0...Int(random.next() % 3) {
        wire[Int(random.next() % UInt64(wire.count))] = UInt8(truncatingIfNeeded: random.next())
      }
      if random.next() % 8 == 0 { wire.removeLast(Int(random.next() % 31)) }
      _ = try? decodedDatagram(wire, isComplete: random.next() % 2 == 0)
    }
  }
}

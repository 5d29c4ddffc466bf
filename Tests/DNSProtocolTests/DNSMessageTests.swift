// SPDX-License-Identifier: Apache-2.0
import DNSProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A DNS answer")
struct DNSMessageTests {
  // boot.example is an alias of host.example, which has 192.0.2.7. Layout: RFC 1035, 4.1.4.
  static let questionText = "04626f6f74 076578616d706c65 00 0001 0001"
  static let aliasAnswer = bytes(
    """
    1234 8180 0001 0002 0000 0000 \(questionText)
    c00c 0005 0001 0000003c 0007 04686f7374 c011
    c02a 0001 0001 0000003c 0004 c0000207
    """)
  static let name = DNSName("boot.example")!

  func decode(_ message: [UInt8]) throws -> DNSAnswer {
    try decodeDNSAnswer(message, identifier: 0x1234, name: Self.name, type: .ipv4)
  }

  @Test("is asked for with the bytes of the specification")
  func question() {
    #expect(
      encodeDNSQuestion(identifier: 0x1234, name: Self.name, type: .ipv4)
        == bytes("1234 0100 0001 0000 0000 0000 \(Self.questionText)"))
  }

  @Test("follows an alias to its addresses")
  func alias() throws {
    #expect(try decode(Self.aliasAnswer) == .addresses([[192, 0, 2, 7]]))
  }

  @Test("ignores addresses of names that were not asked for")
  func foreignRecord() throws {
    let message = bytes(
      "1234 8180 0001 0001 0000 0000 \(Self.questionText) 01780000 0100 0100 0000 3c00 04c0 0002 07"
    )
    #expect(try decode(message) == .addresses([]))
  }

  @Test("tells a missing name from a failing server")
  func codes() throws {
    let tail = "0001 0000 0000 0000 \(Self.questionText)"
    #expect(try decode(bytes("1234 8183 \(tail)")) == .noSuchName)
    #expect(try decode(bytes("1234 8182 \(tail)")) == .failed(code: 2))
  }

  @Test(
    "to another question is passed over",
    arguments: [
      "1235 8180 0001 0000 0000 0000 \(questionText)",
      "1234 0100 0001 0000 0000 0000 \(questionText)",
      "1234 8180 0001 0000 0000 0000 04686f7374 076578616d706c65 00 0001 0001",
      "1234 8180 0001 0000 0000 0000 04626f6f74 076578616d706c65 00 001c 0001",
    ])
  func unrelated(message: String) {
    #expect(throws: DNSMessageError.unrelated) { try decode(bytes(message)) }
  }

  @Test("cut off anywhere is refused, unless it says that it is cut")
  func truncations() throws {
    for count in 0..<Self.aliasAnswer.count {
      #expect(throws: DNSMessageError.self) { try decode(Array(Self.aliasAnswer[..<count])) }
    }
    var cut = Array(Self.aliasAnswer.dropLast(3))
    cut[2] |= 0x02
    #expect(try decode(cut) == .addresses([]))
  }

  @Test("with a pointer that does not point back is refused")
  func loops() {
    let message = bytes("1234 8180 0001 0000 0000 0000 c00c 0001 0001")
    #expect(throws: DNSMessageError.malformed) { try decode(message) }
  }

  @Test("of random bytes never traps")
  func randomBytes() {
    var random = SeededGenerator(printingAs: "DNS answers")
    for _ in 0..<20_000 {
      var message = Self.aliasAnswer
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        message[Int.random(in: 0..<message.count, using: &random)] = .random(
          in: 0...255, using: &random)
      }
      _ = try? decode(message)
    }
  }

  @Test(
    "is not asked for a name that is none",
    arguments: [
      "", ".", "a..b", ByteString([UInt8](repeating: 0x61, count: 64)),
      ByteString(Array("abc.".utf8) + [UInt8](repeating: 0x2e, count: 1)),
    ])
  func badNames(text: ByteString) {
    #expect(DNSName(text) == nil)
  }
}

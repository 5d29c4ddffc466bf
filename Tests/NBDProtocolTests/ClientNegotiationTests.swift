// SPDX-License-Identifier: Apache-2.0
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("The client's handshake")
struct ClientNegotiationTests {
  static let greeting = ServerGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded

  static func reply(
    _ type: OptionReplyType, _ data: [UInt8] = [], to option: OptionCode = .go
  ) -> [UInt8] {
    OptionReplyHeader(option: option, type: type, dataByteCount: UInt32(data.count)).encoded + data
  }
  static let identity = SessionIdentity(
    token: SessionToken(high: 1, low: 2), generation: 3, slot: 4, flags: .resume)

  static let information =
    reply(.info, InformationItem.export(byteCount: 4096, flags: [.hasFlags, .sendFlush]).encoded)
    + reply(
      .info,
      InformationItem.blockSize(
        BlockSizes(minimum: 512, preferred: 4096, maximumPayload: 32 << 20)
      ).encoded)

  /// What the server gets to see, and how the handshake ends.
  func run(
    names: [ByteString], server: [UInt8], identity: SessionIdentity? = nil
  ) throws(NegotiationError) -> (sent: [UInt8], export: NegotiatedExport, rest: Int) {
    var negotiation = ClientNegotiation(candidates: names, identity: identity)
    var sent: [UInt8] = []
    var rest = server[...]
    while true {
      if let export = negotiation.finishedExport { return (sent, export, rest.count) }
      let needed = negotiation.neededByteCount
      guard rest.count >= needed else { throw negotiation.ended(after: Array(rest)) }
      sent += try negotiation.receive(Array(rest.prefix(needed)))
      rest = rest.dropFirst(needed)
    }
  }

  @Test("asks with GO and reads not a byte beyond the acknowledgement")
  func go() throws {
    let server = Self.greeting + Self.information + Self.reply(.ack) + [0xaa, 0xbb]
    let (sent, export, rest) = try run(names: ["root"], server: server)
    // Client flags 3, then IHAVEOPT, GO, 12 bytes: name length 4, "root", 1 item, BLOCK_SIZE.
    #expect(
      sent
        == bytes(
          "00000003 49484156454f5054 00000007 0000000c 00000004 726f6f74 0001 0003"))
    #expect(rest == 2)
    #expect(export.byteCount == 4096 && export.flags == [.hasFlags, .sendFlush])
    #expect(export.blockSizes?.minimum == 512)
  }

  @Test("says who it is before GO, to a server that knows the option and to one that does not")
  func session() throws {
    let withoutText = Self.reply(.errUnsup, to: .session)
    let withText = Self.reply(.errUnsup, Array("what?".utf8), to: .session)
    for answer in [Self.reply(.ack, to: .session), withoutText, withText] {
      let server = Self.greeting + answer + Self.information + Self.reply(.ack)
      let (sent, export, rest) = try run(names: ["root"], server: server, identity: Self.identity)
      #expect(
        sent
          == bytes(
            "00000003 49484156454f5054 726c6b01 0000001c"
              + "0000000000000001 0000000000000002 0000000000000003 0004 0001"
              + "49484156454f5054 00000007 0000000c 00000004 726f6f74 0001 0003"))
      #expect(export.byteCount == 4096 && rest == 0)
      #expect(export.isSessionAccepted == (answer == Self.reply(.ack, to: .session)))
    }
  }

  @Test("keeps its identity to itself before a server without options")
  func sessionWithoutOptions() throws {
    let answer = ExportNameAnswer(exportByteCount: 512, flags: [.hasFlags]).encoded
    let server = ServerGreeting(flags: []).encoded + answer + [UInt8](repeating: 0, count: 124)
    let (sent, export, _) = try run(names: ["x"], server: server, identity: Self.identity)
    #expect(sent == bytes("00000000 49484156454f5054 00000001 00000001 78"))
    #expect(!export.isSessionAccepted)
  }

  static let sessionFailures: [([UInt8], NegotiationError)] = [
    (
      reply(.errInvalid, Array("old".utf8), to: .session),
      .sessionRefused(.errInvalid, message: "old")
    ),
    (reply(.errShutdown, to: .session), .sessionRefused(.errShutdown, message: "")),
    (reply(.errTLSRequired, to: .session), .tlsRequired),
    (reply(.server, to: .session), .unexpectedReply(.session, .server)),
    (reply(.ack), .unexpectedReply(.go, .ack)),
    ([], .closed(.options)),
  ]

  @Test("ends when its identity is refused, with what the server says", arguments: sessionFailures)
  func sessionFailure(answer: [UInt8], error: NegotiationError) {
    #expect(throws: error) {
      try run(names: ["root"], server: Self.greeting + answer, identity: Self.identity)
    }
    #expect(!error.report.reason.isEmpty && !error.report.advice.isEmpty)
  }

  @Test("tries the second name on the same connection when the first is unknown")
  func candidates() throws {
    let server =
      Self.greeting + Self.reply(.errUnknown, Array("no such".utf8)) + Self.information
      + Self.reply(.ack)
    #expect(try run(names: ["/foo", "foo"], server: server).export.name == "foo")
  }

  @Test("names every candidate, and what the server said, when none exists")
  func unknown() {
    let server =
      Self.greeting + Self.reply(.errUnknown) + Self.reply(.errUnknown, Array("gone".utf8))
    #expect(throws: NegotiationError.unknownExport(names: ["/foo", "foo"], message: "gone")) {
      try run(names: ["/foo", "foo"], server: server)
    }
  }

  @Test("falls back to EXPORT_NAME, padded or not as was agreed", arguments: [true, false])
  func exportName(isPadded: Bool) throws {
    let flags: HandshakeFlags = isPadded ? [.fixedNewstyle] : [.fixedNewstyle, .noZeroes]
    let answer = ExportNameAnswer(exportByteCount: 1 << 20, flags: [.hasFlags]).encoded
    let server =
      ServerGreeting(flags: flags).encoded + Self.reply(.errUnsup) + answer
      + [UInt8](repeating: 0, count: isPadded ? 124 : 0)
    let (sent, export, rest) = try run(names: ["x"], server: server)
    #expect(sent.suffix(17) == bytes("49484156454f5054 00000001 00000001 78")[...])
    #expect(export.byteCount == 1 << 20 && export.blockSizes == nil && rest == 0)
  }

  @Test("sends only EXPORT_NAME to a server that is not fixed newstyle")
  func unfixed() throws {
    let answer = ExportNameAnswer(exportByteCount: 512, flags: [.hasFlags]).encoded
    let server =
      ServerGreeting(flags: []).encoded + answer + [UInt8](repeating: 0, count: 124)
    let sent = try run(names: ["x"], server: server).sent
    #expect(sent == bytes("00000000 49484156454f5054 00000001 00000001 78"))
  }

  static let failures: [(String, [UInt8], NegotiationError)] = [
    ("SSH", Array("SSH-2.0-OpenSSH_9.2p1".utf8), .notAnNBDServer(firstBytes: "SSH-2.0-OpenSSH_9.")),
    ("HTTP", Array("HTTP/1.1 400".utf8), .notAnNBDServer(firstBytes: "HTTP/1.1 400")),
    (
      "old", bytes("4e42444d41474943 0000420281861253 0000"), .oldstyleServer
    ),
    ("half a greeting", Array(greeting.prefix(9)), .closed(.greeting)),
    ("nothing", [], .closed(.greeting)),
    ("hangs up after the greeting", greeting, .closed(.options)),
    ("TLS", greeting + reply(.errTLSRequired), .tlsRequired),
    (
      "policy", greeting + reply(.errPolicy, Array("no".utf8)), .refused(.errPolicy, message: "no")
    ),
    (
      "an unheard-of error", greeting + reply(.init(rawValue: 0x8000_1234)),
      .refused(.init(rawValue: 0x8000_1234), message: "")
    ),
    ("ACK without information", greeting + reply(.ack), .acknowledgedWithoutInformation),
    ("LIST's reply", greeting + reply(.server), .unexpectedReply(.go, .server)),
    (
      "hangs up on EXPORT_NAME", greeting + reply(.errUnsup), .closedAfterExportName("root")
    ),
    (
      "too many replies",
      greeting
        + Array(
          repeating: reply(.info, [0, 9]), count: ClientNegotiation.informationReplyCountMaximum + 1
        ).flatMap { $0 },
      .tooManyReplies(maximum: ClientNegotiation.informationReplyCountMaximum)
    ),
    (
      "block sizes",
      greeting
        + reply(
          .info,
          InformationItem.blockSize(
            BlockSizes(minimum: 3, preferred: 4096, maximumPayload: 4096)
          ).encoded),
      .invalidBlockSizes(BlockSizes(minimum: 3, preferred: 4096, maximumPayload: 4096))
    ),
    (
      "a length of 4 GiB",
      greeting
        + OptionReplyHeader(option: .go, type: .errUnknown, dataByteCount: .max).encoded,
      .violation(.limit(field: "option reply length", maximum: 65536, actual: 0xffff_ffff))
    ),
  ]

  @Test("ends with an error that says what was seen", arguments: failures)
  func failure(name: String, server: [UInt8], error: NegotiationError) {
    #expect(throws: error) { try run(names: ["root"], server: server) }
    #expect(!error.report.reason.isEmpty && !error.report.advice.isEmpty)
  }

  @Test("never traps on what a broken server sends")
  func randomServers() {
    var random = SeededGenerator(printingAs: "handshakes")
    let valid = Self.greeting + Self.information + Self.reply(.errUnknown) + Self.reply(.ack)
    for _ in 0..<20_000 {
      var server = valid
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let index = Int.random(in: 0..<server.count, using: &random)
        server[index] = .random(in: 0...255, using: &random)
      }
      _ = try? run(names: ["a", "b"], server: server)
      let knowing = Self.greeting + Self.reply(.ack, to: .session) + server.dropFirst(18)
      _ = try? run(names: ["a", "b"], server: knowing, identity: Self.identity)
    }
  }
}

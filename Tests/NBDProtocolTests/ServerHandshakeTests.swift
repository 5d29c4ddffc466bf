// SPDX-License-Identifier: Apache-2.0
// The server's handshake, fed with what clients send: the right, the wrong and the random.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

/// Stands for the server around the machine: has two exports, keeps what was sent.
struct ScriptedServer {
  static let root = ExportFacts(
    name: "root", description: "a disk", byteCount: 1 << 30,
    flags: [.hasFlags, .sendFlush, .sendFUA],
    blockSizes: BlockSizes(minimum: 1, preferred: 4096, maximumPayload: 32 << 20))
  static let bare = ExportFacts(
    name: "bare", description: "", byteCount: 512, flags: [.hasFlags, .readOnly],
    blockSizes: BlockSizes(minimum: 512, preferred: 4096, maximumPayload: 32 << 20))

  enum Outcome: Equatable {
    case waiting
    case entered(received: [UInt8])
    case closed(ServerHandshake.Ending)
  }

  var machine: ServerHandshake
  var sent: [UInt8] = []
  var sendCount = 0
  var isEntry: [Bool] = []
  var refusal: OptionReplyType?

  init(optionCountMaximum: Int = 64) {
    machine = ServerHandshake(optionCountMaximum: optionCountMaximum)
  }

  /// Does what the machine says until it wants bytes or is done.
  mutating func settle() -> Outcome {
    while true {
      switch machine.next() {
      case .receive: return .waiting
      case .send(let bytes):
        sent += bytes
        sendCount += 1
      case .findExport(let name, let isEntry):
        self.isEntry.append(isEntry)
        if let refusal {
          machine.answer(refusing: refusal, text: "not now")
        } else if name == "root" || name.isEmpty {
          machine.answer(found: Self.root)
        } else if name == "bare" {
          machine.answer(found: Self.bare)
        } else {
          machine.answer(refusing: .errUnknown, text: "no such export")
        }
      case .listExports:
        if let refusal {
          machine.answer(refusing: refusal, text: "not now")
        } else {
          machine.answer(
            listing: [Self.root, Self.bare].map {
              ListedExport(name: $0.name, description: $0.description)
            })
        }
      case .checkSession(let identity):
        if identity.generation == 0 {
          machine.answer(refusing: .errInvalid, text: "too late")
        } else {
          machine.acceptSession()
        }
      case .enter(let received): return .entered(received: received)
      case .close(let ending): return .closed(ending)
      }
    }
  }

  /// Hands `bytes` in, `piece` at a time, and returns what came of it in the end.
  mutating func feed(_ bytes: [UInt8], piece: Int = .max) -> Outcome {
    var outcome = settle()
    var rest = bytes[...]
    while outcome == .waiting, !rest.isEmpty {
      machine.receive(Array(rest.prefix(piece)).span)
      rest = rest.dropFirst(piece)
      outcome = settle()
    }
    if case .entered(let received) = outcome { return .entered(received: received + rest) }
    return outcome
  }
}

/// What clients send.
enum ClientBytes {
  static let greeting = bytes("4e42444d41474943 49484156454f5054 0003")
  static let flags = bytes("00000003")

  static func option(_ option: OptionCode, _ data: [UInt8] = []) -> [UInt8] {
    OptionHeader(option: option, dataByteCount: UInt32(data.count)).encoded + data
  }
  static func go(
    _ name: ByteString, _ items: [InformationType] = [], option code: OptionCode = .go
  ) -> [UInt8] {
    option(code, InformationRequest(name: name, items: items).encoded)
  }
  static func reply(
    _ option: OptionCode, _ type: OptionReplyType, _ data: [UInt8] = []
  ) -> [UInt8] {
    OptionReplyHeader(option: option, type: type, dataByteCount: UInt32(data.count)).encoded + data
  }
  static func error(
    _ option: OptionCode, _ type: OptionReplyType, _ text: ByteString
  ) -> [UInt8] {
    reply(option, type, text.bytes)
  }
}

/// One conversation: all that the client sends after its flags, and all that comes back after the
/// greeting.
struct Conversation: CustomTestStringConvertible, Sendable {
  var testDescription: String
  var flags = ClientBytes.flags
  var client: [UInt8]
  var answer: [UInt8]
  var outcome: ScriptedServer.Outcome

  init(
    _ name: String, flags: String = "00000003", _ client: [UInt8], _ answer: [UInt8] = [],
    _ outcome: ScriptedServer.Outcome = .waiting
  ) {
    testDescription = name
    self.flags = bytes(flags)
    self.client = client
    self.answer = answer
    self.outcome = outcome
  }
}

@Suite("The server's handshake")
struct ServerHandshakeTests {
  static let rootExport = bytes("0000 0000000040000000 000d")
  static let bareExport = bytes("0000 0000000000000200 0003")
  /// What is told of `bare`, whose blocks are more than bytes, without being asked for.
  static let bareInformation =
    ClientBytes.reply(.go, .info, bareExport)
    + ClientBytes.reply(.go, .info, bytes("0003 00000200 00001000 02000000"))
  static let unknownOption = OptionCode(rawValue: 0x1234)
  static let unsupported: ByteString = "this server does not know the option"
  static let longestName = ByteString([UInt8](repeating: 0x61, count: 4096))

  static let sessionLength: ByteString = "a session takes 28 bytes; update rootlink or rootlinkd"
  static func session(
    generation: UInt64, slot: UInt16 = 0, flags: UInt16 = 0
  ) -> SessionIdentity {
    SessionIdentity(
      token: SessionToken(high: 1, low: 2), generation: generation, slot: slot,
      flags: SessionFlags(rawValue: flags))
  }

  /// Source: NBD `doc/proto.md`, "Option types" and "Requirements"; the session is our own.
  static let conversations: [Conversation] = [
    Conversation(
      "GO", ClientBytes.go("root"),
      ClientBytes.reply(.go, .info, rootExport) + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "GO for the default export with every item",
      ClientBytes.go(
        "", [.export, .name, .description, .blockSize, InformationType(rawValue: 99)]),
      ClientBytes.reply(.go, .info, rootExport)
        + ClientBytes.reply(.go, .info, bytes("0001 726f6f74"))
        + ClientBytes.reply(.go, .info, bytes("0002 61206469736b"))
        + ClientBytes.reply(.go, .info, bytes("0003 00000001 00001000 02000000"))
        + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "GO with the first request behind it",
      ClientBytes.go("bare") + Request(command: .flush, cookie: 7).encoded,
      bareInformation + ClientBytes.reply(.go, .ack),
      .entered(received: Request(command: .flush, cookie: 7).encoded)),
    Conversation(
      "INFO, which enters nothing, then GO for another name",
      ClientBytes.go("root", [.description], option: .info) + ClientBytes.go("nosuch")
        + ClientBytes.go("bare", [.description]),
      ClientBytes.reply(.info, .info, rootExport)
        + ClientBytes.reply(.info, .info, bytes("0002 61206469736b"))
        + ClientBytes.reply(.info, .ack)
        + ClientBytes.error(.go, .errUnknown, "no such export")
        + bareInformation + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "EXPORT_NAME without padding", ClientBytes.option(.exportName, ByteString("root").bytes),
      bytes("0000000040000000 000d"), .entered(received: [])),
    Conversation(
      "EXPORT_NAME with padding", flags: "00000001",
      ClientBytes.option(.exportName, ByteString("root").bytes),
      bytes("0000000040000000 000d") + [UInt8](repeating: 0, count: 124), .entered(received: [])),
    Conversation(
      "EXPORT_NAME of a client from before the fixed newstyle", flags: "00000000",
      ClientBytes.option(.exportName),
      bytes("0000000040000000 000d") + [UInt8](repeating: 0, count: 124), .entered(received: [])),
    Conversation(
      "EXPORT_NAME of an unknown export", ClientBytes.option(.exportName, [0x78]), [],
      .closed(.exportNameRefused)),
    Conversation(
      "EXPORT_NAME with a NUL", ClientBytes.option(.exportName, [0x78, 0]), [],
      .closed(.exportNameRefused)),
    Conversation(
      "EXPORT_NAME of 4097 bytes",
      ClientBytes.option(.exportName, [UInt8](repeating: 0x61, count: 4097)), [],
      .closed(.exportNameRefused)),
    Conversation(
      "EXPORT_NAME of 4096 bytes", ClientBytes.option(.exportName, longestName.bytes), [],
      .closed(.exportNameRefused)),
    Conversation(
      "ABORT", ClientBytes.option(.abort), ClientBytes.reply(.abort, .ack), .closed(.aborted)),
    Conversation(
      "ABORT with data", ClientBytes.option(.abort, [1, 2, 3]), ClientBytes.reply(.abort, .ack),
      .closed(.aborted)),
    Conversation(
      "LIST", ClientBytes.option(.list),
      ClientBytes.reply(.list, .server, bytes("00000004 726f6f74 61206469736b"))
        + ClientBytes.reply(.list, .server, bytes("00000004 62617265"))
        + ClientBytes.reply(.list, .ack)),
    Conversation(
      "LIST with data", ClientBytes.option(.list, [0]),
      ClientBytes.error(.list, .errInvalid, "LIST takes no data")),
    Conversation(
      "options of others, skipped with their data",
      ClientBytes.option(.startTLS)
        + ClientBytes.option(unknownOption, [UInt8](repeating: 7, count: 9000))
        + ClientBytes.option(unknownOption, [1]) + ClientBytes.option(.peekExport)
        + ClientBytes.go("bare"),
      ClientBytes.error(.startTLS, .errUnsup, "this server has no TLS")
        + ClientBytes.error(unknownOption, .errUnsup, unsupported)
        + ClientBytes.error(unknownOption, .errUnsup, unsupported)
        + ClientBytes.error(.peekExport, .errUnsup, unsupported)
        + bareInformation + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "an unknown option of 1 MiB, skipped",
      ClientBytes.option(unknownOption, [UInt8](repeating: 1, count: 1 << 20)),
      ClientBytes.error(unknownOption, .errUnsup, unsupported)),
    Conversation(
      "an option above 1 MiB",
      OptionHeader(option: unknownOption, dataByteCount: 1 << 20 + 1).encoded, [],
      .closed(.optionTooLong(1 << 20 + 1))),
    Conversation(
      "an option of 4 GiB", OptionHeader(option: .go, dataByteCount: .max).encoded, [],
      .closed(.optionTooLong(.max))),
    Conversation(
      "GO with the longest name there can be", ClientBytes.go(longestName),
      ClientBytes.error(.go, .errUnknown, "no such export")),
    Conversation(
      "GO with a name too long",
      ClientBytes.go(ByteString(longestName.bytes + [0x61])),
      ClientBytes.error(
        .go, .errTooBig, "the request is malformed: name length is 4097, above the limit of 4096")),
    Conversation(
      "GO with too much data", ClientBytes.option(.go, [UInt8](repeating: 0, count: 4231)),
      ClientBytes.error(
        .go, .errTooBig, "a name is at most 4096 bytes, and at most 64 items can be asked for")),
    Conversation(
      "INFO cut short", ClientBytes.option(.info, bytes("00000004 726f6f74 00")),
      ClientBytes.error(.info, .errInvalid, "the request is malformed: 9 bytes where 10 belong")),
    Conversation(
      "GO with a byte too many", ClientBytes.option(.go, bytes("00000000 0000 00")),
      ClientBytes.error(.go, .errInvalid, "the request is malformed: 7 bytes where 6 belong")),
    Conversation(
      "GO without data", ClientBytes.option(.go),
      ClientBytes.error(.go, .errInvalid, "the request is malformed: 0 bytes where 6 belong")),
    Conversation(
      "a session, before the export",
      ClientBytes.option(.session, session(generation: 1).encoded) + ClientBytes.go("bare"),
      ClientBytes.reply(.session, .ack) + bareInformation
        + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "a session that comes too late, then without one",
      ClientBytes.option(.session, session(generation: 0).encoded) + ClientBytes.go("bare"),
      ClientBytes.error(.session, .errInvalid, "too late")
        + bareInformation + ClientBytes.reply(.go, .ack),
      .entered(received: [])),
    Conversation(
      "a session of 27 and of 29 bytes",
      ClientBytes.option(.session, [UInt8](repeating: 0, count: 27))
        + ClientBytes.option(.session, [UInt8](repeating: 0, count: 29)),
      ClientBytes.error(.session, .errInvalid, sessionLength)
        + ClientBytes.error(.session, .errInvalid, sessionLength)),
    Conversation(
      "a session in slot 16, and with an unknown flag",
      ClientBytes.option(.session, session(generation: 1, slot: 16).encoded)
        + ClientBytes.option(.session, session(generation: 1, flags: 8).encoded),
      ClientBytes.error(
        .session, .errInvalid, "slot is 16, above the limit of 15; update rootlink or rootlinkd")
        + ClientBytes.error(
          .session, .errInvalid, "session flags is 8; update rootlink or rootlinkd")),
    Conversation("unknown client flags", flags: "00000005", [], [], .closed(.clientFlags(5))),
    Conversation(
      "a client flag in the highest bit", flags: "80000000", [], [],
      .closed(.clientFlags(0x8000_0000))),
    Conversation(
      "an option without the fixed newstyle", flags: "00000000", ClientBytes.go("root"), [],
      .closed(.notFixedNewstyle(.go))),
    Conversation(
      "a wrong magic", bytes("49484156454f5055 00000007 00000000"), [],
      .closed(.notAnOption(magic: 0x4948_4156_454f_5055))),
    Conversation(
      "a request where an option belongs", bytes("25609513 0000 0000 0000000000000000"), [],
      .closed(.notAnOption(magic: 0x2560_9513_0000_0000))),
    Conversation(
      "HTTP", flags: "47455420", Array("/ HTTP/1.0\r\n\r\n".utf8), [],
      .closed(.clientFlags(0x4745_5420))),
  ]

  @Test("answers as the specification says, however the bytes are split", arguments: conversations)
  func conversation(_ conversation: Conversation) {
    var pieces = [1, 2, 3, 7, 16, 4096, Int.max]
    if conversation.client.count > 100_000 { pieces = [4096, 65536] }
    for piece in pieces {
      var server = ScriptedServer()
      let outcome = server.feed(conversation.flags + conversation.client, piece: piece)
      #expect(outcome == conversation.outcome, "in pieces of \(piece)")
      #expect(server.sent == ClientBytes.greeting + conversation.answer, "in pieces of \(piece)")
    }
  }

  @Test("waits, and says nothing, wherever the client stops", arguments: conversations)
  func everyTruncation(_ conversation: Conversation) {
    guard conversation.client.count < 10_000 else { return }
    let all = conversation.flags + conversation.client
    for count in 0..<all.count {
      var server = ScriptedServer()
      let outcome = server.feed(Array(all.prefix(count)))
      // What came before is a beginning of what the whole conversation gets.
      #expect((ClientBytes.greeting + conversation.answer).starts(with: server.sent))
      if case .waiting = conversation.outcome { #expect(outcome == .waiting) }
    }
  }

  @Test("sends the error and its text in one piece, and an answer as soon as it is there")
  func pieces() {
    var server = ScriptedServer()
    _ = server.feed(ClientBytes.flags)
    #expect(server.sendCount == 1)
    _ = server.feed(ClientBytes.option(.startTLS))
    #expect(server.sendCount == 2)
    _ = server.feed(ClientBytes.go("root", [.blockSize]))
    #expect(server.sendCount == 3)
  }

  @Test("says whether an export is entered or only looked at")
  func entry() {
    var server = ScriptedServer()
    _ = server.feed(ClientBytes.flags + ClientBytes.go("root", option: .info))
    _ = server.feed(ClientBytes.go("root"))
    #expect(server.isEntry == [false, true])
  }

  @Test("ends after its limit of options and not before")
  func optionLimit() {
    var server = ScriptedServer(optionCountMaximum: 3)
    let option = ClientBytes.option(.startTLS)
    #expect(server.feed(ClientBytes.flags + option + option + option) == .waiting)
    #expect(server.feed(option) == .closed(.tooManyOptions))
  }

  @Test("answers SHUTDOWN to everything but ABORT while the server stops")
  func stopping() {
    let text: ByteString = "the server is stopping"
    var server = ScriptedServer()
    server.machine.isStopping = true
    let outcome = server.feed(
      ClientBytes.flags + ClientBytes.go("root") + ClientBytes.option(.list)
        + ClientBytes.option(.startTLS) + ClientBytes.option(.abort))
    #expect(outcome == .closed(.aborted))
    #expect(
      server.sent == ClientBytes.greeting + ClientBytes.error(.go, .errShutdown, text)
        + ClientBytes.error(.list, .errShutdown, text)
        + ClientBytes.error(.startTLS, .errShutdown, text) + ClientBytes.reply(.abort, .ack))
    var other = ScriptedServer()
    other.machine.isStopping = true
    #expect(
      other.feed(ClientBytes.flags + ClientBytes.option(.exportName))
        == .closed(.exportNameRefused))
  }

  @Test("passes on why an export cannot be had")
  func refusal() {
    var server = ScriptedServer()
    server.refusal = .errPolicy
    #expect(
      server.feed(ClientBytes.flags + ClientBytes.go("root") + ClientBytes.option(.list))
        == .waiting)
    #expect(
      server.sent == ClientBytes.greeting + ClientBytes.error(.go, .errPolicy, "not now")
        + ClientBytes.error(.list, .errPolicy, "not now"))
  }

  @Test("survives random bytes, and random bytes inside well-formed options")
  func randomBytes() {
    var generator = SeededGenerator(printingAs: "ServerHandshake")
    for round in 0..<2000 {
      var server = ScriptedServer()
      var client = ClientBytes.flags
      for _ in 0..<Int.random(in: 0...5, using: &generator) {
        let data = (0..<Int.random(in: 0...30, using: &generator)).map { _ in
          UInt8.random(in: 0...3, using: &generator)
        }
        let code = OptionCode(rawValue: UInt32.random(in: 0...12, using: &generator))
        client += ClientBytes.option(code, data)
      }
      if round % 2 == 0, !client.isEmpty {
        client[Int.random(in: 0..<client.count, using: &generator)] ^=
          1 << UInt8.random(in: 0...7, using: &generator)
      }
      _ = server.feed(client, piece: Int.random(in: 1...50, using: &generator))
      #expect(server.sent.starts(with: ClientBytes.greeting))
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// What options agree on, in every order; and every way to ask for contexts wrongly.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("Client and server agree on terms")
struct SessionTermsTests {
  /// What a client may send before it enters.
  enum Step: CaseIterable {
    case structured, extended, setForRoot, setForDefault, setForBare, setWildcard, setNothing
    case setUnknownExport, setMalformed, list, info

    var bytes: [UInt8] {
      switch self {
      case .structured: ClientBytes.option(.structuredReply)
      case .extended: ClientBytes.option(.extendedHeaders)
      case .setForRoot: Self.set("root", ["base:allocation"])
      case .setForDefault: Self.set("", ["x-other:leaf", "base:allocation", "base:allocation"])
      case .setForBare: Self.set("bare", ["base:allocation"])
      case .setWildcard: Self.set("root", ["base:"])
      case .setNothing: Self.set("root", [])
      case .setUnknownExport: Self.set("nosuch", ["base:allocation"])
      case .setMalformed: ClientBytes.option(.setMetaContext, [0])
      case .list:
        ClientBytes.option(
          .listMetaContext, MetaContextRequest(name: "root", queries: []).encoded)
      case .info: ClientBytes.go("root", option: .info)
      }
    }

    private static func set(_ name: ByteString, _ queries: [ByteString]) -> [UInt8] {
      ClientBytes.option(.setMetaContext, MetaContextRequest(name: name, queries: queries).encoded)
    }
  }

  /// How it then enters.
  enum Entry: CaseIterable {
    case goRoot, goDefault, goBare, goRootWithSizes, exportName
    var bytes: [UInt8] {
      switch self {
      case .goRoot: ClientBytes.go("root")
      case .goDefault: ClientBytes.go("")
      case .goBare: ClientBytes.go("bare")
      case .goRootWithSizes: ClientBytes.go("root", [.blockSize])
      case .exportName: ClientBytes.option(.exportName, ByteString("root").bytes)
      }
    }
  }

  /// The same rules once more, from the text of the specification: NBD `doc/proto.md`, "Option
  /// types".
  struct Model {
    var terms = SessionTerms()
    var chosen: ByteString?

    /// The types of the replies.
    mutating func take(_ step: Step) -> [OptionReplyType] {
      switch step {
      case .structured:
        if terms.style == .extended { return [.errExtHeaderRequired] }
        terms.style = .structured
        return [.ack]
      case .extended:
        terms.style = .extended
        return [.ack]
      case .list: return terms.style == .simple ? [.errInvalid] : [.metaContext, .ack]
      case .info: return [.info, .ack]
      default:
        chosen = nil
        if terms.style == .simple { return [.errInvalid] }
        switch step {
        case .setForRoot, .setForDefault: chosen = "root"
        case .setForBare: chosen = "bare"
        case .setUnknownExport: return [.errUnknown]
        case .setMalformed: return [.errInvalid]
        default: return [.ack]
        }
        return [.metaContext, .ack]
      }
    }
  }

  /// The replies in what the server sent after its greeting.
  static func replies(_ sent: [UInt8]) throws -> [(OptionReplyHeader, [UInt8])] {
    var rest = sent.dropFirst(ServerGreeting.byteCount)
    var replies: [(OptionReplyHeader, [UInt8])] = []
    while !rest.isEmpty {
      let header = try OptionReplyHeader(
        decoding: Array(rest.prefix(OptionReplyHeader.byteCount)).span)
      rest = rest.dropFirst(OptionReplyHeader.byteCount)
      replies.append((header, Array(rest.prefix(Int(header.dataByteCount)))))
      rest = rest.dropFirst(Int(header.dataByteCount))
    }
    return replies
  }

  @Test("whatever the order of three options and the way in", arguments: Step.allCases)
  func everyOrder(first: Step) throws {
    for second in Step.allCases {
      for third in Step.allCases {
        for entry in Entry.allCases { try check([first, second, third], entry) }
      }
    }
  }

  private func check(_ steps: [Step], _ entry: Entry) throws {
    var model = Model()
    var server = ScriptedServer()
    var types: [OptionReplyType] = []
    #expect(server.feed(ClientBytes.flags) == .waiting)
    for step in steps {
      types += model.take(step)
      #expect(server.feed(step.bytes) == .waiting)
    }
    let replies = try Self.replies(server.sent)
    #expect(replies.map(\.0.type) == types, "\(steps)")
    for (header, data) in replies where header.type == .metaContext {
      let context = try MetaContext(decoding: data.span)
      #expect(context.name == "base:allocation")
      #expect(context.id == (header.option == .setMetaContext ? MetaContext.allocationID : 0))
    }
    let before = replies.count
    let outcome = server.feed(entry.bytes)
    if entry == .exportName, model.terms.style == .extended {
      #expect(outcome == .closed(.exportNameAfterExtendedHeaders))
      return
    }
    #expect(outcome == .entered(received: []), "\(steps) \(entry)")
    model.terms.hasAllocationContext =
      model.chosen == (entry == .goBare ? "bare" : "root")
    #expect(server.machine.terms == model.terms, "\(steps) \(entry)")
    guard entry != .exportName else { return }
    let entryReplies = try Self.replies(server.sent).dropFirst(before)
    let item = try #require(entryReplies.first).1
    let facts = entry == .goBare ? ScriptedServer.bare : ScriptedServer.root
    #expect(
      try InformationItem(decoding: item.span)
        == .export(byteCount: facts.byteCount, flags: model.terms.flags(of: facts.flags)))
  }

  /// Flags change with what was agreed on. Source: NBD `doc/proto.md`, "Transmission flags".
  @Test("and the flags of the export say so")
  func flags() {
    let bare: TransmissionFlags = [.hasFlags, .sendFUA]
    #expect(SessionTerms().flags(of: bare) == bare)
    #expect(SessionTerms(style: .structured).flags(of: bare) == [.hasFlags, .sendFUA, .sendDF])
    #expect(
      SessionTerms(style: .extended).flags(of: bare)
        == [.hasFlags, .sendFUA, .sendDF, .blockStatusPayload])
  }

  /// What is wrong with the data of LIST and SET_META_CONTEXT, after structured replies.
  static let longest = ByteString([UInt8](repeating: 0x61, count: 4096))
  static let tooLong = ByteString(longest.bytes + [0x61])
  static let refusals: [(String, [UInt8], OptionReplyType)] = [
    ("nothing", [], .errInvalid),
    ("a name longer than the data", bytes("00000005 726f6f74 00000000"), .errInvalid),
    ("a name of 4 GiB", bytes("ffffffff 726f6f74 00000000"), .errInvalid),
    ("no count", bytes("00000004 726f6f74"), .errInvalid),
    ("more queries than data", bytes("00000004 726f6f74 00000002 00000000"), .errInvalid),
    ("2^32 - 1 queries", bytes("00000004 726f6f74 ffffffff 00000000"), .errInvalid),
    ("a query longer than the data", bytes("00000000 00000001 00000002 61"), .errInvalid),
    ("a query of 4 GiB", bytes("00000000 00000001 ffffffff 61"), .errInvalid),
    ("a byte too many", bytes("00000000 00000001 00000001 61 00"), .errInvalid),
    ("a query with a NUL", bytes("00000000 00000001 00000001 00"), .errInvalid),
    ("a name with a NUL", bytes("00000001 00 00000000"), .errInvalid),
    ("a name of 4097 bytes", MetaContextRequest(name: tooLong, queries: []).encoded, .errTooBig),
    (
      "a name of 4096 bytes", MetaContextRequest(name: longest, queries: []).encoded, .errUnknown
    ),
    ("a query of 4097 bytes", query([tooLong]), .errTooBig),
    ("a query of 4096 bytes", query([longest]), .ack),
    ("1025 queries", query([ByteString](repeating: "a:b", count: 1025)), .errTooBig),
    ("1024 queries", query([ByteString](repeating: "a:b", count: 1024)), .ack),
    // 15 of 4096 bytes with their lengths, 4 for the name, 4 for the count, and one to fill up.
    ("64 KiB", query(sixtyFour(4096 - 72)), .ack),
    ("64 KiB and a byte", query(sixtyFour(4096 - 71)), .errTooBig),
    ("a query that is none", query(["allocation"]), .ack),
    ("a leaf that is none", query(["base:allocations"]), .ack),
    ("another case", query(["BASE:allocation"]), .ack),
  ]
  static func query(_ queries: [ByteString]) -> [UInt8] {
    MetaContextRequest(name: "", queries: queries).encoded
  }
  static func sixtyFour(_ last: Int) -> [ByteString] {
    [ByteString](repeating: longest, count: 15) + [ByteString([UInt8](repeating: 98, count: last))]
  }

  @Test("and not on what is malformed, too long or unknown", arguments: refusals)
  func refusal(name: String, data: [UInt8], type: OptionReplyType) throws {
    for option in [OptionCode.listMetaContext, .setMetaContext] {
      var server = ScriptedServer()
      let client =
        ClientBytes.flags + ClientBytes.option(.structuredReply) + Step.setForRoot.bytes
        + ClientBytes.option(option, data) + ClientBytes.go("root")
      #expect(server.feed(client, piece: 4096) == .entered(received: []))
      let replies = try Self.replies(server.sent).filter { $0.0.option == option }
      #expect(
        replies.last?.0.type == type, "\(String(decoding: replies.last?.1 ?? [], as: UTF8.self))")
      #expect(replies.count == (option == .setMetaContext ? 3 : 1))
      // A failed SET leaves nothing of the one before; LIST changes nothing.
      #expect(server.machine.terms.hasAllocationContext == (option == .listMetaContext))
    }
  }

  @Test("and on nothing while the data of an option are cut short")
  func truncations() throws {
    let whole = MetaContextRequest(name: "root", queries: ["base:allocation", "a:b"]).encoded
    for count in 0..<whole.count {
      var server = ScriptedServer()
      let client =
        ClientBytes.flags + ClientBytes.option(.extendedHeaders)
        + ClientBytes.option(.setMetaContext, Array(whole.prefix(count)))
      #expect(server.feed(client) == .waiting)
      let types = try Self.replies(server.sent).map(\.0.type)
      #expect(types == [.ack, .errInvalid], "\(count) bytes")
    }
  }

  static let dataRefusals: [OptionCode] = [.structuredReply, .extendedHeaders]

  @Test("and not on options that carry data which they do not have", arguments: dataRefusals)
  func surplusData(option: OptionCode) throws {
    for count in [1, 4, 70_000] {
      var server = ScriptedServer()
      let data = [UInt8](repeating: 0, count: count)
      let client = ClientBytes.flags + ClientBytes.option(option, data) + ClientBytes.go("root")
      #expect(server.feed(client, piece: 65536) == .entered(received: []))
      #expect(try Self.replies(server.sent).first?.0.type == .errInvalid)
      #expect(server.machine.terms.style == .simple)
    }
  }

  @Test("and the block sizes are told to who does not ask, where bytes are not served one by one")
  func unaskedSizes() throws {
    for (name, count) in [(ByteString("root"), 2), ("bare", 3)] {
      var server = ScriptedServer()
      _ = server.feed(ClientBytes.flags + ClientBytes.go(name))
      let replies = try Self.replies(server.sent)
      #expect(replies.count == count)
      if count == 3 {
        let data = replies[1].1
        #expect(
          try InformationItem(decoding: data.span) == .blockSize(ScriptedServer.bare.blockSizes))
      }
    }
  }
}

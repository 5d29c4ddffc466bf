// SPDX-License-Identifier: Apache-2.0
// Every message against bytes written from the specification: decoded, encoded, cut short, made
// longer, with each constant broken.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

/// One message and the bytes that it is; the type is hidden so that one table holds them all.
struct MessageVector: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let wire: [UInt8]
  /// How many bytes at the start are constants; any change there must be refused.
  let constantByteCount: Int
  /// Decodes and encodes again, and compares with the value on the way.
  let roundTrip: @Sendable ([UInt8]) throws -> [UInt8]

  init<Message: WireEncodable & Equatable & Sendable>(
    _ name: String, _ wire: String, constantByteCount: Int = 0, _ value: Message,
    _ decode: @escaping @Sendable (Span<UInt8>) throws(WireError) -> Message
  ) {
    testDescription = name
    self.wire = bytes(wire)
    self.constantByteCount = constantByteCount
    roundTrip = { wire in
      let decoded = try decode(wire.span)
      #expect(decoded == value)
      return decoded.encoded
    }
  }
}

@Suite("A message of the protocol")
struct MessageTests {
  /// Source: NBD `doc/proto.md`, the layouts and values of each message.
  static let vectors: [MessageVector] = [
    MessageVector(
      "greeting", "4e42444d41474943 49484156454f5054 0003", constantByteCount: 16,
      ServerGreeting(flags: [.fixedNewstyle, .noZeroes]),
      { bytes throws(WireError) in try ServerGreeting(decoding: bytes) }),
    MessageVector(
      "option GO", "49484156454f5054 00000007 0000000e", constantByteCount: 8,
      OptionHeader(option: .go, dataByteCount: 14),
      { bytes throws(WireError) in try OptionHeader(decoding: bytes) }),
    MessageVector(
      "reply ERR_UNKNOWN", "0003e889045565a9 00000007 80000006 00000000", constantByteCount: 8,
      OptionReplyHeader(option: .go, type: .errUnknown, dataByteCount: 0),
      { bytes throws(WireError) in try OptionReplyHeader(decoding: bytes) }),
    MessageVector(
      "reply at the length limit", "0003e889045565a9 00000003 00000002 00010000",
      constantByteCount: 8,
      OptionReplyHeader(option: .list, type: .server, dataByteCount: 65536),
      { bytes throws(WireError) in try OptionReplyHeader(decoding: bytes) }),
    MessageVector(
      "GO data", "00000004 726f6f74 0002 0003 0001",
      InformationRequest(name: "root", items: [.blockSize, .name]),
      { bytes throws(WireError) in try InformationRequest(decoding: bytes) }),
    MessageVector(
      "GO data for the default export", "00000000 0000",
      InformationRequest(name: "", items: []),
      { bytes throws(WireError) in try InformationRequest(decoding: bytes) }),
    MessageVector(
      "INFO_EXPORT", "0000 0000000040000000 006d",
      InformationItem.export(
        byteCount: 1 << 30,
        flags: [.hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes]),
      { bytes throws(WireError) in try InformationItem(decoding: bytes) }),
    MessageVector(
      "INFO_BLOCK_SIZE", "0003 00000200 00001000 02000000",
      InformationItem.blockSize(
        BlockSizes(minimum: 512, preferred: 4096, maximumPayload: 32 << 20)),
      { bytes throws(WireError) in try InformationItem(decoding: bytes) }),
    MessageVector(
      "request", "25609513 0001 0001 0102030405060708 0000000000001000 00000200",
      constantByteCount: 4,
      Request(
        flags: .fua, command: .write, cookie: 0x0102_0304_0506_0708, offset: 4096, length: 512),
      { bytes throws(WireError) in try Request(decoding: bytes) }),
    MessageVector(
      "request with every bit set",
      "25609513 ffff ffff ffffffffffffffff ffffffffffffffff ffffffff", constantByteCount: 4,
      Request(
        flags: CommandFlags(rawValue: .max), command: CommandCode(rawValue: .max), cookie: .max,
        offset: .max, length: .max),
      { bytes throws(WireError) in try Request(decoding: bytes) }),
    MessageVector(
      "reply", "67446698 00000000 0000000000000001", constantByteCount: 4,
      SimpleReply(error: .none, cookie: 1),
      { bytes throws(WireError) in try SimpleReply(decoding: bytes) }),
    MessageVector(
      "reply EIO", "67446698 00000005 ffffffffffffffff", constantByteCount: 4,
      SimpleReply(error: .eio, cookie: .max),
      { bytes throws(WireError) in try SimpleReply(decoding: bytes) }),
    MessageVector(
      "answer to EXPORT_NAME", "0000000000100000 0003",
      ExportNameAnswer(exportByteCount: 1 << 20, flags: [.hasFlags, .readOnly]),
      { bytes throws(WireError) in try ExportNameAnswer(decoding: bytes) }),
    MessageVector(
      "LIST_META_CONTEXT data", "00000001 61 00000002 00000005 626173653a 00000000",
      MetaContextRequest(name: "a", queries: ["base:", ""]),
      { bytes throws(WireError) in try MetaContextRequest(decoding: bytes) }),
    MessageVector(
      "SET_META_CONTEXT data that selects nothing", "00000000 00000000",
      MetaContextRequest(name: "", queries: []),
      { bytes throws(WireError) in try MetaContextRequest(decoding: bytes) }),
    MessageVector(
      "structured reply chunk", "668e33ef 0001 8001 0102030405060708 00000006",
      constantByteCount: 4,
      StructuredChunkHeader(
        flags: .done, type: .error, cookie: 0x0102_0304_0506_0708, payloadByteCount: 6),
      { bytes throws(WireError) in try StructuredChunkHeader(decoding: bytes) }),
    MessageVector(
      "hole", "0000000000001000 00000200", HoleChunk(offset: 4096, byteCount: 512),
      { bytes throws(WireError) in try HoleChunk(decoding: bytes) }),
    MessageVector(
      "error with text", "00000016 0003 626164", ErrorChunk(error: .einval, text: "bad"),
      { bytes throws(WireError) in try ErrorChunk(decoding: bytes, type: .error) }),
    MessageVector(
      "error at an offset", "00000005 0001 21 0000000000000200",
      ErrorChunk(error: .eio, text: "!", offset: 512),
      { bytes throws(WireError) in try ErrorChunk(decoding: bytes, type: .errorOffset) }),
    // Source: the branch `extension-ext-header` of the same document.
    MessageVector(
      "extended request",
      "21e41c71 0021 0001 0102030405060708 0000000000001000 0000000000000200",
      constantByteCount: 4,
      ExtendedRequest(
        flags: [.fua, .payloadLength], command: .write, cookie: 0x0102_0304_0506_0708,
        offset: 4096, length: 512),
      { bytes throws(WireError) in try ExtendedRequest(decoding: bytes) }),
    MessageVector(
      "extended request with every bit set",
      "21e41c71 ffff ffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
      constantByteCount: 4,
      ExtendedRequest(
        flags: CommandFlags(rawValue: .max), command: CommandCode(rawValue: .max), cookie: .max,
        offset: .max, length: .max),
      { bytes throws(WireError) in try ExtendedRequest(decoding: bytes) }),
    MessageVector(
      "extended reply chunk",
      "6e8a278c 0001 0006 0102030405060708 0000000000001000 0000000000000018",
      constantByteCount: 4,
      ExtendedChunkHeader(
        flags: .done, type: .blockStatusExtended, cookie: 0x0102_0304_0506_0708, offset: 4096,
        payloadByteCount: 24),
      { bytes throws(WireError) in try ExtendedChunkHeader(decoding: bytes) }),
    // Ours, so the source is the module's own documentation.
    MessageVector(
      "session", "0102030405060708 090a0b0c0d0e0f10 00000000075bcd15 000f 0003",
      SessionIdentity(
        token: SessionToken(high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10),
        generation: 123_456_789, slot: 15, flags: [.resume, .countedCookies]),
      { bytes throws(WireError) in try SessionIdentity(decoding: bytes) }),
  ]

  /// These end where the data end, so they have no truncations of their own.
  static let openEndedVectors: [MessageVector] = [
    MessageVector(
      "INFO_NAME", "0001 726f6f74", InformationItem.name("root"),
      { bytes throws(WireError) in try InformationItem(decoding: bytes) }),
    MessageVector(
      "INFO_DESCRIPTION", "0002 c3a4", InformationItem.description("ä"),
      { bytes throws(WireError) in try InformationItem(decoding: bytes) }),
    MessageVector(
      "META_CONTEXT", "00000001 626173653a616c6c6f636174696f6e",
      MetaContext(id: 1, name: MetaContext.allocationName),
      { bytes throws(WireError) in try MetaContext(decoding: bytes) }),
    MessageVector(
      "SERVER", "00000001 61 6221", ListedExport(name: "a", description: "b!"),
      { bytes throws(WireError) in try ListedExport(decoding: bytes) }),
  ]

  @Test("is the bytes that the specification shows", arguments: vectors + openEndedVectors)
  func matchesSpecification(vector: MessageVector) throws {
    #expect(try vector.roundTrip(vector.wire) == vector.wire)
  }

  @Test("is refused when cut short anywhere or made longer", arguments: vectors)
  func everyTruncation(vector: MessageVector) {
    for count in 0..<vector.wire.count {
      #expect(throws: WireError.self) { try vector.roundTrip(Array(vector.wire.prefix(count))) }
    }
    #expect(throws: WireError.self) { try vector.roundTrip(vector.wire + [0]) }
  }

  @Test("is refused when a constant differs in one bit", arguments: vectors)
  func everyConstant(vector: MessageVector) {
    for bit in 0..<(vector.constantByteCount * 8) {
      var wire = vector.wire
      wire[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(throws: WireError.self) { try vector.roundTrip(wire) }
    }
  }

  @Test("names an oldstyle server by its magic")
  func oldstyleServer() {
    let wire = bytes("4e42444d41474943 0000420281861253 0000")
    #expect(
      throws: WireError.magic(
        expected: ServerGreeting.optionMagic, actual: ServerGreeting.oldstyleMagic)
    ) { try ServerGreeting(decoding: wire.span) }
  }

  @Test("of unknown information type is passed on, whatever its content")
  func unknownInformation() throws {
    let item = try InformationItem(decoding: bytes("0063 0102").span)
    #expect(item == .other(InformationType(rawValue: 99)))
  }
}

@Suite("Lengths from the peer")
struct MessageLimitTests {
  static let longest = ByteString([UInt8](repeating: 0x61, count: 4096))
  static let tooLong = ByteString([UInt8](repeating: 0x61, count: 4097))

  @Test("let a name of 4096 bytes pass and no more")
  func names() throws {
    let request = InformationRequest(name: Self.longest, items: [.export])
    #expect(try InformationRequest(decoding: request.encoded.span) == request)
    let item = InformationItem.name(Self.longest)
    #expect(try InformationItem(decoding: item.encoded.span) == item)
    let listed = ListedExport(name: Self.longest, description: Self.longest)
    #expect(try ListedExport(decoding: listed.encoded.span) == listed)

    let refusals: [[UInt8]] = [
      InformationRequest(name: Self.tooLong, items: [.export]).encoded
    ]
    for wire in refusals {
      #expect(throws: WireError.limit(field: "name length", maximum: 4096, actual: 4097)) {
        try InformationRequest(decoding: wire.span)
      }
    }
    #expect(throws: WireError.limit(field: "description", maximum: 4096, actual: 4097)) {
      try InformationItem(decoding: InformationItem.description(Self.tooLong).encoded.span)
    }
    #expect(throws: WireError.limit(field: "name length", maximum: 4096, actual: 4097)) {
      try ListedExport(
        decoding: ListedExport(name: Self.tooLong, description: "").encoded.span)
    }
    #expect(throws: WireError.limit(field: "description", maximum: 4096, actual: 4097)) {
      try ListedExport(
        decoding: ListedExport(name: "", description: Self.tooLong).encoded.span)
    }
  }

  @Test("let 64 different items pass, not 65 and none twice")
  func items() throws {
    let items = (0..<65).map { InformationType(rawValue: UInt16($0)) }
    let most = InformationRequest(name: "x", items: Array(items.prefix(64)))
    #expect(try InformationRequest(decoding: most.encoded.span) == most)
    #expect(throws: WireError.limit(field: "item count", maximum: 64, actual: 65)) {
      try InformationRequest(
        decoding: InformationRequest(name: "x", items: items).encoded.span)
    }
    #expect(throws: WireError.value(field: "repeated item", actual: 3)) {
      try InformationRequest(
        decoding: InformationRequest(name: "x", items: [.blockSize, .name, .blockSize])
          .encoded.span)
    }
  }

  @Test("are refused above 64 KiB in an option reply")
  func optionReply() {
    let wire = bytes("0003e889045565a9 00000003 00000002 00010001")
    #expect(
      throws: WireError.limit(field: "option reply length", maximum: 65536, actual: 65537)
    ) { try OptionReplyHeader(decoding: wire.span) }
  }

  @Test("let slot 15 pass and not slot 16, and no flag without a name")
  func session() throws {
    var identity = SessionIdentity(token: SessionToken(high: 0, low: 0), generation: .max)
    identity.slot = 15
    #expect(try SessionIdentity(decoding: identity.encoded.span) == identity)
    for slot in [UInt16(16), .max] {
      identity.slot = slot
      #expect(throws: WireError.limit(field: "slot", maximum: 15, actual: UInt64(slot))) {
        try SessionIdentity(decoding: identity.encoded.span)
      }
    }
    identity.slot = 0
    for bit in 3..<16 {
      identity.flags = SessionFlags(rawValue: 1 << UInt16(bit))
      #expect(throws: WireError.value(field: "session flags", actual: 1 << UInt64(bit))) {
        try SessionIdentity(decoding: identity.encoded.span)
      }
    }
  }

  @Test("that point outside the data are refused")
  func lyingLengths() {
    for lie in ["ffffffff 61 0000", "00000002 61 0000", "00000001 61 0001", "00000001 61 ffff"] {
      #expect(throws: WireError.self) { try InformationRequest(decoding: bytes(lie).span) }
    }
    #expect(throws: WireError.self) { try ListedExport(decoding: bytes("00000002 61").span) }
  }

  @Test("do not help a name with a NUL")
  func nulInName() {
    #expect(throws: WireError.value(field: "export name", actual: 0)) {
      try InformationRequest(decoding: bytes("00000003 610062 0000").span)
    }
    #expect(!ExportString.isValid("a\0"))
    #expect(ExportString.isValid(Self.longest))
    #expect(!ExportString.isValid(Self.tooLong))
  }

  @Test("and any other bytes never trap a decoder")
  func randomBytes() {
    var generator = SeededGenerator(printingAs: "NBDProtocol decoders")
    for _ in 0..<20_000 {
      let count = Int.random(in: 0...40, using: &generator)
      var wire = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      // Small leading lengths get past the first check.
      if count >= 4, Bool.random(using: &generator) {
        wire.replaceSubrange(0..<4, with: [0, 0, 0, UInt8.random(in: 0...40, using: &generator)])
      }
      if let request = try? InformationRequest(decoding: wire.span) {
        #expect(request.encoded == wire)
      }
      if let listed = try? ListedExport(decoding: wire.span) { #expect(listed.encoded == wire) }
      _ = try? InformationItem(decoding: wire.span)
      _ = try? Request(decoding: wire.span)
      _ = try? OptionReplyHeader(decoding: wire.span)
      _ = try? SessionIdentity(decoding: wire.span)
    }
  }
}

@Suite("Numbers of the protocol")
struct NumberTests {
  /// Source: NBD `doc/proto.md`, "Block size constraints".
  static let blockSizes: [(BlockSizes, isValid: Bool)] = [
    (BlockSizes(minimum: 1, preferred: 512, maximumPayload: 512), true),
    (BlockSizes(minimum: 65536, preferred: 65536, maximumPayload: .max), true),
    (BlockSizes(minimum: 0, preferred: 512, maximumPayload: 512), false),
    (BlockSizes(minimum: 3, preferred: 512, maximumPayload: 512), false),
    (BlockSizes(minimum: 131072, preferred: 131072, maximumPayload: .max), false),
    (BlockSizes(minimum: 1024, preferred: 512, maximumPayload: 4096), false),
    (BlockSizes(minimum: 1, preferred: 256, maximumPayload: 4096), false),
    (BlockSizes(minimum: 1, preferred: 4096, maximumPayload: 4095), false),
  ]

  @Test("for block sizes stand in their bounds", arguments: blockSizes)
  func blockSizeBounds(sizes: BlockSizes, isValid: Bool) {
    #expect(sizes.isValid == isValid)
  }

  @Test("for replies tell errors and ends")
  func replyTypes() {
    #expect(OptionReplyType(rawValue: 0x8000_1234).isError)
    #expect(OptionReplyType.ack.isFinal && !OptionReplyType.ack.isError)
    #expect(!OptionReplyType.info.isFinal)
  }

  @Test("for client flags take what is offered and nothing else")
  func clientFlags() {
    #expect(ClientFlags(accepting: [.fixedNewstyle, .noZeroes]) == [.fixedNewstyle, .noZeroes])
    #expect(ClientFlags(accepting: HandshakeFlags(rawValue: 0xfff0)) == [])
    #expect(ClientFlags([.noZeroes]).encoded == [0, 0, 0, 2])
  }
}

// SPDX-License-Identifier: Apache-2.0
// The answers of the server in each of the three styles, and the rules that go with them.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("Answers in the words that were agreed on")
struct ReplyStyleTests {
  static let read = ExtendedRequest(command: .read, cookie: 7, offset: 4096, length: 8)
  static let trim = ExtendedRequest(command: .trim, cookie: 7, offset: 4096, length: 8)
  static let status = ExtendedRequest(command: .blockStatus, cookie: 7, offset: 4096, length: 8)

  static func wire(_ body: (inout OutputSpan<UInt8>) -> Void) -> [UInt8] {
    [UInt8](capacity: 64) { body(&$0) }
  }

  /// Source: NBD `doc/proto.md`, "Reply message" and what follows it.
  static let answers: [(ReplyStyle, ExtendedRequest, ErrorNumber, String)] = [
    (.simple, read, .eio, "67446698 00000005 0000000000000007"),
    (.simple, trim, .none, "67446698 00000000 0000000000000007"),
    (.structured, trim, .none, "67446698 00000000 0000000000000007"),
    (.structured, trim, .eperm, "67446698 00000001 0000000000000007"),
    (.structured, read, .none, "668e33ef 0001 0000 0000000000000007 00000000"),
    (.structured, read, .eio, "668e33ef 0001 8001 0000000000000007 00000006 00000005 0000"),
    (.structured, status, .einval, "668e33ef 0001 8001 0000000000000007 00000006 00000016 0000"),
    (
      .extended, trim, .none,
      "6e8a278c 0001 0000 0000000000000007 0000000000001000 0000000000000000"
    ),
    (
      .extended, read, .eoverflow,
      "6e8a278c 0001 8001 0000000000000007 0000000000001000 0000000000000006 0000004b 0000"
    ),
  ]

  @Test("say how a command ended", arguments: answers)
  func ends(style: ReplyStyle, request: ExtendedRequest, error: ErrorNumber, expected: String) {
    #expect(Self.wire { style.encode(error, to: request, into: &$0) } == bytes(expected))
  }

  static let heads: [(ReplyStyle, isLast: Bool, String)] = [
    (.simple, true, "67446698 00000000 0000000000000007"),
    (.structured, true, "668e33ef 0001 0001 0000000000000007 00000010 0000000000001200"),
    (.structured, false, "668e33ef 0000 0001 0000000000000007 00000010 0000000000001200"),
    (
      .extended, true,
      "6e8a278c 0001 0001 0000000000000007 0000000000001000 0000000000000010 0000000000001200"
    ),
  ]

  @Test("precede data", arguments: heads)
  func dataHeads(style: ReplyStyle, isLast: Bool, expected: String) {
    let head = Self.wire {
      style.encodeDataHead(of: Self.read, offset: 0x1200, byteCount: 8, isLast: isLast, into: &$0)
    }
    #expect(head == bytes(expected))
    #expect(head.count == style.dataHeadByteCount)
  }

  static let holes: [(ReplyStyle, isLast: Bool, String)] = [
    (.structured, true, "668e33ef 0001 0002 0000000000000007 0000000c 0000000000001200 00000008"),
    (
      .extended, false,
      "6e8a278c 0000 0002 0000000000000007 0000000000001000 000000000000000c"
        + "0000000000001200 00000008"
    ),
  ]

  @Test("stand for holes", arguments: holes)
  func hole(style: ReplyStyle, isLast: Bool, expected: String) {
    let chunk = Self.wire {
      style.encodeHole(of: Self.read, offset: 0x1200, byteCount: 8, isLast: isLast, into: &$0)
    }
    #expect(chunk == bytes(expected))
    #expect(chunk.count <= ReplyStyle.headByteCountMaximum)
  }

  @Test("belong to requests of one kind each")
  func requests() throws {
    let compact = Request(flags: .fua, command: .write, cookie: 1, offset: 2, length: 3)
    let extended = ExtendedRequest(
      flags: [.fua, .payloadLength], command: .write, cookie: 1, offset: 2, length: 1 << 40)
    for style in [ReplyStyle.simple, .structured] {
      #expect(style.requestByteCount == 28)
      let request = try style.request(decoding: compact.encoded.span)
      #expect(request == ExtendedRequest(compact))
      #expect(style.payloadByteCount(of: request) == 3)
      #expect(throws: WireError.self) { try style.request(decoding: extended.encoded.span) }
    }
    #expect(ReplyStyle.extended.requestByteCount == 32)
    let request = try ReplyStyle.extended.request(decoding: extended.encoded.span)
    #expect(request == extended)
    #expect(ReplyStyle.extended.payloadByteCount(of: request) == 1 << 40)
    #expect(throws: WireError.self) {
      try ReplyStyle.extended.request(decoding: compact.encoded.span)
    }
    // Without the flag nothing follows, and with it something does, whatever the command is.
    var bare = extended
    bare.flags = []
    #expect(ReplyStyle.extended.payloadByteCount(of: bare) == 0)
    let odd = ExtendedRequest(flags: .payloadLength, command: .flush, cookie: 1, length: 5)
    #expect(ReplyStyle.extended.payloadByteCount(of: odd) == 5)
    #expect(ReplyStyle.structured.payloadByteCount(of: odd) == 0)
  }

  static let everything: TransmissionFlags = [
    .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .sendFastZero, .sendCache,
  ]
  static let plain: TransmissionFlags = [.hasFlags, .sendFUA, .sendWriteZeroes]

  /// Source: NBD `doc/proto.md`, "Command flags".
  static let allowed: [(ReplyStyle, TransmissionFlags, CommandCode, CommandFlags)] = [
    (.simple, everything, .read, .fua), (.structured, everything, .read, [.fua, .df]),
    (.extended, everything, .read, [.fua, .df]), (.simple, everything, .write, .fua),
    (.structured, everything, .write, .fua),
    (.extended, everything, .write, [.fua, .payloadLength]),
    (.simple, everything, .writeZeroes, [.fua, .noHole, .fastZero]),
    (.simple, plain, .writeZeroes, [.fua, .noHole]),
    (.structured, everything, .blockStatus, [.fua, .reqOne]),
    (.extended, everything, .blockStatus, [.fua, .reqOne, .payloadLength]),
    (.extended, everything, .trim, .fua), (.extended, everything, .cache, .fua),
    (.simple, [.hasFlags], .flush, []), (.simple, [.hasFlags, .readOnly], .write, .fua),
    (.extended, everything, .resize, .fua),
  ]

  @Test("go with the flags that were promised", arguments: allowed)
  func flags(
    style: ReplyStyle, told: TransmissionFlags, command: CommandCode, flags: CommandFlags
  ) {
    let terms = SessionTerms(style: style)
    #expect(terms.allowedFlags(for: command, told: terms.flags(of: told)) == flags)
  }
}

@Suite("What the server says of blocks")
struct BlockStatusTests {
  static let extents = [
    ExtentStatus(byteCount: 4096, flags: []),
    ExtentStatus(byteCount: 512, flags: [.hole, .zero]),
  ]
  /// Source: NBD `doc/proto.md`, "NBD_REPLY_TYPE_BLOCK_STATUS" and "NBD_REPLY_TYPE_BLOCK_STATUS_EXT".
  static let chunks: [(isExtended: Bool, wire: String)] = [
    (false, "00000001 00001000 00000000 00000200 00000003"),
    (
      true,
      "00000001 00000002 0000000000001000 0000000000000000 0000000000000200 0000000000000003"
    ),
  ]

  @Test("is the bytes that the specification shows, and no beginning of them", arguments: chunks)
  func chunk(isExtended: Bool, wire: String) throws {
    let wire = bytes(wire)
    let value = BlockStatusChunk(contextID: 1, extents: Self.extents, isExtended: isExtended)
    #expect(value.encoded == wire)
    #expect(value.encodedByteCount == wire.count)
    #expect(try BlockStatusChunk(decoding: wire.span, isExtended: isExtended) == value)
    let each = isExtended ? 16 : 8
    for count in 0..<wire.count {
      let prefix = Array(wire.prefix(count))
      // The compact form has no count of its own: one extent less is a chunk, too.
      if !isExtended, count == wire.count - each { continue }
      #expect(throws: WireError.self) {
        try BlockStatusChunk(decoding: prefix.span, isExtended: isExtended)
      }
    }
    var empty = wire
    empty.replaceSubrange((wire.count - each)..<(wire.count - each / 2), with: zeroes(each / 2))
    #expect(throws: WireError.value(field: "extent length", actual: 0)) {
      try BlockStatusChunk(decoding: empty.span, isExtended: isExtended)
    }
  }

  private func zeroes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

  @Test("is asked for by lists of contexts that name each once")
  func queries() throws {
    let wire = bytes("0000010000000000 00000001 00000007")
    let query = BlockStatusQuery(length: 1 << 40, contextIDs: [1, 7])
    #expect(query.encoded == wire)
    #expect(try BlockStatusQuery(decoding: wire.span) == query)
    for count in 0..<wire.count where count != 12 {
      #expect(throws: WireError.self) {
        try BlockStatusQuery(decoding: Array(wire.prefix(count)).span)
      }
    }
    #expect(throws: WireError.value(field: "repeated context", actual: 1)) {
      try BlockStatusQuery(decoding: bytes("0000000000000001 00000001 00000001").span)
    }
    let ids = (0..<65).map { UInt32($0) }
    let most = BlockStatusQuery(length: 1, contextIDs: Array(ids.prefix(64)))
    #expect(try BlockStatusQuery(decoding: most.encoded.span) == most)
    #expect(throws: WireError.limit(field: "query length", maximum: 264, actual: 268)) {
      try BlockStatusQuery(decoding: BlockStatusQuery(length: 1, contextIDs: ids).encoded.span)
    }
  }

  @Test("cannot be an error without a number, a hole without a length, or a text without an end")
  func impossible() {
    #expect(throws: WireError.value(field: "error", actual: 0)) {
      try ErrorChunk(decoding: bytes("00000000 0000").span, type: .error)
    }
    #expect(throws: WireError.value(field: "hole length", actual: 0)) {
      try HoleChunk(decoding: bytes("0000000000000000 00000000").span)
    }
    #expect(throws: WireError.self) {
      try ErrorChunk(decoding: bytes("00000016 0004 626164").span, type: .error)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Every message against bytes written from the specification: decoded, encoded, cut short, with
// each constant broken.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A message of RTRS")
struct MessageTests {
  static let path = RTRSUUID(high: 0x0011_2233_4455_6677, low: 0x8899_aabb_ccdd_eeff)
  static let session = RTRSUUID(high: 0x1010_2020_3030_4040, low: 0x5050_6060_7070_8080)
  static let uuids = "0011223344556677 8899aabbccddeeff 1010202030304040 5050606070708080"

  /// Source: the structures in Linux 6.12 `rtrs-pri.h`, and frames of two kernels over RoCE: the
  /// sizes and flags of the acceptance, the gap and the type of the messages.
  static let vectors: [MessageVector] = [
    MessageVector(
      "first connection", "0000 bd1b 0002 0000 0300 0100 \(uuids) 01 \(zeroes(11))",
      constantBits: [16..<32, 40..<48],
      ConnectionRequest(
        connection: 0, connectionCount: 3, attempt: 1, path: path, session: session),
      { bytes throws(WireError) in try ConnectionRequest(decoding: bytes) }),
    MessageVector(
      "last connection of a late path", "0000 bd1b 0002 ff0f 0010 ffff \(uuids) 00 \(zeroes(11))",
      constantBits: [16..<32, 40..<48],
      ConnectionRequest(
        connection: 4095, connectionCount: 4096, attempt: 65535, path: path, session: session,
        mayCreateSession: false),
      { bytes throws(WireError) in try ConnectionRequest(decoding: bytes) }),
    MessageVector(
      "acceptance", "bd1b 0002 0000 0002 00f00100 00100000 02000000 \(zeroes(36))",
      constantBits: [0..<16, 24..<32],
      ConnectionAnswer(
        accepting: try! ChunkGeometry(
          queueDepth: 512, dataByteCountMaximum: 126_976, headerByteCountMaximum: 4096),
        flags: .refreshesKeys),
      { bytes throws(WireError) in try ConnectionAnswer(decoding: bytes) }),
    MessageVector(
      "rejection with ECONNRESET", "bd1b 0002 98ff 0000 \(zeroes(48))",
      constantBits: [0..<16, 24..<32], ConnectionAnswer(rejecting: .connectionReset),
      { bytes throws(WireError) in try ConnectionAnswer(decoding: bytes) }),
    MessageVector(
      "information request", "0000 626f617264 \(zeroes(250)) \(zeroes(15))",
      constantBits: [0..<16], PathInformationRequest(name: try! SessionName("board")),
      { bytes throws(WireError) in try PathInformationRequest(decoding: bytes) }),
    MessageVector(
      "write", "0200 2000", constantBits: [1..<16],
      RequestMessage.write(userByteCount: 32),
      { bytes throws(RequestMessageError) in try RequestMessage(decoding: bytes) }),
    MessageVector(
      "read", "0300 2000 0100 0100 8877665544332211 efbeadde 00100000", constantBits: [1..<16],
      RequestMessage.read(
        userByteCount: 32,
        destination: RegionDescriptor(
          address: 0x1122_3344_5566_7788, key: 0xdead_beef, length: 4096),
        wantsInvalidation: true),
      { bytes throws(RequestMessageError) in try RequestMessage(decoding: bytes) }),
    MessageVector(
      "read without data", "0300 2000 0000 0000", constantBits: [1..<16],
      RequestMessage.read(userByteCount: 32, destination: nil, wantsInvalidation: false),
      { bytes throws(RequestMessageError) in try RequestMessage(decoding: bytes) }),
    MessageVector(
      "key", "0400 0100 78563412", constantBits: [0..<16],
      KeyMessage(chunk: 1, key: 0x1234_5678),
      { bytes throws(WireError) in try KeyMessage(decoding: bytes) }),
  ]

  @Test("is the bytes that the specification shows", arguments: vectors)
  func matchesSpecification(vector: MessageVector) throws {
    let (isValue, encoded) = try vector.roundTrip(vector.wire)
    #expect(isValue)
    #expect(encoded == vector.wire)
  }

  @Test("is refused when cut short anywhere", arguments: vectors)
  func everyTruncation(vector: MessageVector) {
    for count in 0..<vector.wire.count {
      #expect(throws: (any Error).self) {
        try vector.roundTrip(Array(vector.wire.prefix(count)))
      }
    }
  }

  @Test("is refused when a constant differs in one bit", arguments: vectors)
  func everyConstant(vector: MessageVector) {
    for bit in vector.constantBits.joined() {
      var wire = vector.wire
      wire[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(throws: (any Error).self, "bit \(bit)") { try vector.roundTrip(wire) }
    }
  }

  @Test("of the connection manager may be padded, and its first two bytes are not ours")
  func padding() throws {
    let request = ConnectionRequest(
      connection: 0, connectionCount: 1, attempt: 1, path: Self.path, session: Self.session)
    var wire = request.encoded + [UInt8](repeating: 0xff, count: 36)
    wire[0] = 0x40
    wire[1] = 0x40
    wire[5] = 2
    wire[4] = 9  // A minor version says nothing.
    wire[44] = 0xff
    #expect(try ConnectionRequest(decoding: wire.span) == request)
    let answer = ConnectionAnswer(rejecting: .busy)
    let padded = answer.encoded + [UInt8](repeating: 0, count: 92)
    #expect(try ConnectionAnswer(decoding: padded.span) == answer)
  }

  @Test("is refused with other constants than ours, and says which")
  func refusals() {
    var request = ConnectionRequest(
      connection: 0, connectionCount: 1, attempt: 1, path: Self.path, session: Self.session
    ).encoded
    request[2] = 0xba
    #expect(throws: WireError.magic(expected: 0x1bbd, actual: 0x1bba)) {
      try ConnectionRequest(decoding: request.span)
    }
    let wrongCounts: [(connection: UInt16, count: UInt16, error: WireError)] = [
      (0, 0, .value(field: "connection number", actual: 0)),
      (1, 1, .value(field: "connection number", actual: 1)),
      (0, 4097, .limit(field: "connection count", maximum: 4096, actual: 4097)),
      (4096, 4096, .value(field: "connection number", actual: 4096)),
    ]
    for row in wrongCounts {
      let wire = ConnectionRequest(
        connection: row.connection, connectionCount: row.count, attempt: 1, path: Self.path,
        session: Self.session
      ).encoded
      #expect(throws: row.error) { try ConnectionRequest(decoding: wire.span) }
    }
    var answer = ConnectionAnswer(rejecting: .busy).encoded
    answer[3] = 1
    #expect(throws: WireError.value(field: "version", actual: 0x0100)) {
      try ConnectionAnswer(decoding: answer.span)
    }
    var information = PathInformationRequest(name: try! SessionName("a")).encoded
    #expect(throws: WireError.byteCount(expected: 272, actual: 273)) {
      let longer = information + [0]
      _ = try PathInformationRequest(decoding: longer.span)
    }
    for index in 2..<257 { information[index] = 0x61 }
    #expect(throws: WireError.limit(field: "session name", maximum: 254, actual: 255)) {
      try PathInformationRequest(decoding: information.span)
    }
    #expect(throws: RequestMessageError.unknownType(1)) {
      try RequestMessage(decoding: bytes("0100 2000").span)
    }
    #expect(throws: RequestMessageError.descriptorCount(2)) {
      try RequestMessage(decoding: bytes("0300 2000 0100 0200 \(zeroes(32))").span)
    }
    #expect(throws: RequestMessageError.descriptorCount(256)) {
      try RequestMessage(decoding: bytes("0300 2000 0100 0001").span)
    }
  }

  @Test("reads only its own bytes of a longer piece of a chunk")
  func requestsInPlace() throws {
    #expect(
      try RequestMessage(decoding: bytes("0200 2000 ffffffff ffffffff").span)
        == .write(userByteCount: 32))
    #expect(
      try RequestMessage(decoding: bytes("0300 0800 feff 0000 ffffffff").span)
        == .read(userByteCount: 8, destination: nil, wantsInvalidation: false))
  }

  /// What a name may not be, beside its length.
  @Test(
    "names a session with anything but nothing, a slash, a dot or a NUL",
    arguments: [
      (ByteString(""), false), ("a/b", false), ("..", false), ("a.b", false), ("a\0b", false),
      ("board-7", true), ("ä b\n", true),
    ])
  func sessionNames(text: ByteString, isValid: Bool) {
    #expect(((try? SessionName(text)) != nil) == isValid)
  }

  @Test("names a session with up to 254 bytes")
  func sessionNameLength() throws {
    let longest = ByteString([UInt8](repeating: 0x61, count: 254))
    let request = PathInformationRequest(name: try SessionName(longest))
    #expect(try PathInformationRequest(decoding: request.encoded.span) == request)
    #expect(
      throws: WireError.limit(field: "length of the session name", maximum: 254, actual: 255)
    ) { try SessionName(longest + "a") }
  }

  @Test("of random or nearly right bytes never traps a decoder")
  func randomBytes() {
    var generator = SeededGenerator(printingAs: "RTRSProtocol decoders")
    let geometry = try! ChunkGeometry(
      queueDepth: 4, dataByteCountMaximum: 4096, headerByteCountMaximum: 4096)
    var table = ChunkTable(queueDepth: 4)
    var mutator = ByteMutator(
      samples: Self.vectors.map(\.wire)
        + [
          PathInformationAnswer(
            regions: [RegionDescriptor(address: .max, key: 1, length: 4 * 8192)]
          ).encoded
        ], alphabet: [0, 1, 2, 3, 4, 0x1b, 0xbd, 0xff, 0x20],
      seed: generator.next())
    for _ in 0..<20_000 {
      let wire = mutator.next()
      if let request = try? ConnectionRequest(decoding: wire.span) {
        #expect(request.connection < request.connectionCount)
      }
      if let answer = try? ConnectionAnswer(decoding: wire.span) {
        if let geometry = try? ChunkGeometry(answer) {
          #expect(geometry.totalByteCount <= 1 << 28)
        }
      }
      _ = try? PathInformationRequest(decoding: wire.span)
      if let message = try? RequestMessage(decoding: wire.span) {
        #expect(message.encodedByteCount <= RequestMessage.byteCountMaximum)
      }
      _ = try? KeyMessage(decoding: wire.span)
      _ = try? table.load(wire.span, geometry: geometry)
    }
  }
}

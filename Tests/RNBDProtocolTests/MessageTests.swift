// SPDX-License-Identifier: Apache-2.0
// Every message against bytes written from the specification: decoded, encoded, cut short, with
// each constant broken.

import RNBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A message of RNBD")
struct MessageTests {
  static let geometry: OpenAnswer = {
    var answer = OpenAnswer(device: 3, sectorCount: 0x20000)
    answer.requestSectorCountMaximum = 256
    answer.writeZeroesSectorCountMaximum = 0xffff
    answer.discardSectorCountMaximum = 0x7fff
    answer.discardGranularity = 4096
    answer.discardAlignment = 512
    answer.physicalBlockByteCount = 4096
    answer.segmentCountMaximum = 128
    answer.cachePolicy = [.fua, .writeBack]
    return answer
  }()

  /// Source: the structures in Linux 6.12 `rnbd-proto.h`, and frames of two kernels over RoCE:
  /// the operation fields and the flush's sector.
  static let vectors: [MessageVector] = [
    MessageVector(
      "session information", "0000 0000 02 \(zeroes(31))", constantBits: [1..<16],
      SessionInformation(),
      { bytes throws(WireError) in try SessionInformation(decoding: bytes) }),
    MessageVector(
      "answer to it", "0100 0000 01 \(zeroes(31))", constantBits: [1..<16],
      SessionInformation(version: 1, isAnswer: true),
      { bytes throws(WireError) in try SessionInformation(decoding: bytes) }),
    MessageVector(
      "open", "0200 0000 01 00 72616d30 \(zeroes(251)) 000000", constantBits: [0..<16, 34..<40],
      OpenRequest(try! DeviceName("ram0"), .readWrite),
      { bytes throws(WireError) in try OpenRequest(decoding: bytes) }),
    MessageVector(
      "answer to open",
      "0300 0000 03000000 0000020000000000 00010000 ffff0000 ff7f0000 00100000 00020000"
        + "0010 0002 8000 0000 00 03 \(zeroes(10))", constantBits: [0..<16, 304..<320], geometry,
      { bytes throws(WireError) in try OpenAnswer(decoding: bytes) }),
    MessageVector(
      "close", "0500 0000 ffffffff", constantBits: [0..<16], CloseRequest(device: .max),
      { bytes throws(WireError) in try CloseRequest(decoding: bytes) }),
    MessageVector(
      "direct write", "0400 0000 01000000 0800000000000000 01010000 00100000 0440 \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: 1, sector: 8, operation: .write, flags: .sync, dataByteCount: 4096,
        priority: 0x4004),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
    MessageVector(
      "read", "0400 0000 00000000 0000000000000000 00010000 00f00100 0440 \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: 0, sector: 0, operation: .read, flags: .sync, dataByteCount: 126_976,
        priority: 0x4004),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
    MessageVector(
      "flush", "0400 0000 00000000 ffffffffffffffff 02030000 00000000 0440 \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: 0, sector: IORequest.noSector, operation: .flush, flags: [.sync, .fua],
        dataByteCount: 0, priority: 0x4004),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
    MessageVector(
      "discard", "0400 0000 00000000 0010000000000000 03010000 00feffff 0000 \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: 0, sector: 4096, operation: .discard, flags: .sync, dataByteCount: 0xffff_fe00),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
    MessageVector(
      "write zeroes", "0400 0000 00000000 0010000000000000 05010000 00100000 0000 \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: 0, sector: 4096, operation: .writeZeroes, flags: .sync, dataByteCount: 4096),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
    MessageVector(
      "I/O with every bit set",
      "0400 0000 ffffffff ffffffffffffffff ffffffff ffffffff ffff \(zeroes(6))",
      constantBits: [0..<16],
      IORequest(
        device: .max, sector: .max, operation: IOOperation(rawValue: .max),
        flags: IOFlags(rawValue: .max), dataByteCount: .max, priority: .max),
      { bytes throws(WireError) in try IORequest(decoding: bytes) }),
  ]

  @Test("is the bytes that the specification shows", arguments: vectors)
  func matchesSpecification(vector: MessageVector) throws {
    let (isValue, encoded) = try vector.roundTrip(vector.wire)
    #expect(isValue)
    #expect(encoded == vector.wire)
  }

  @Test("is refused when cut short anywhere or made longer", arguments: vectors)
  func everyTruncation(vector: MessageVector) {
    // Of an I/O the last eight bytes may be missing: priority and padding.
    let isIO = vector.wire.count == IORequest.byteCount
    for count in 0..<(isIO ? 24 : vector.wire.count) {
      #expect(throws: WireError.self, "\(count)") {
        try vector.roundTrip(Array(vector.wire.prefix(count)))
      }
    }
    #expect(throws: WireError.self) { try vector.roundTrip(vector.wire + [0]) }
  }

  @Test("is refused when a constant differs in one bit", arguments: vectors)
  func everyConstant(vector: MessageVector) {
    for bit in vector.constantBits.joined() {
      // Two bits would make it a block of another size.
      var wire = vector.wire
      wire[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(throws: WireError.self, "bit \(bit)") { try vector.roundTrip(wire) }
    }
  }

  @Test("about I/O may end before its padding and before its priority")
  func shortIO() throws {
    let io = IORequest(
      device: 1, sector: 8, operation: .write, dataByteCount: 4096, priority: 0x4004)
    var withoutPriority = io
    withoutPriority.priority = 0
    for count in 24...32 {
      let wire = Array(io.encoded.prefix(count))
      #expect(try IORequest(decoding: wire.span) == (count < 26 ? withoutPriority : io))
    }
  }

  @Test("to open may have garbage behind the name, but must end it")
  func openName() throws {
    let request = OpenRequest(try DeviceName("dir/disk.img"), .migration)
    var wire = request.encoded
    for index in (6 + 13)..<264 { wire[index] = 0x2e }
    #expect(try OpenRequest(decoding: wire.span) == request)
    wire[6 + 12] = 0x2e
    #expect(throws: WireError.limit(field: "device name", maximum: 254, actual: 255)) {
      try OpenRequest(decoding: wire.span)
    }
    wire = request.encoded
    wire[4] = 3
    #expect(throws: WireError.value(field: "access mode", actual: 3)) {
      try OpenRequest(decoding: wire.span)
    }
  }

  /// Source: `process_msg_open` in Linux `rnbd-srv.c`.
  @Test(
    "names a device by anything that leads nowhere else",
    arguments: [
      (ByteString(""), false), ("..", false), ("../x", false), ("a/../b", false), ("a..b", false),
      ("a\0", false), ("...", false), (".", true), ("a.b.c", true), ("/dev/ram0", true),
      ("//x", true), ("x/.", true),
    ])
  func deviceNames(text: ByteString, isValid: Bool) {
    #expect(((try? DeviceName(text)) != nil) == isValid)
  }

  @Test("names a device with up to 254 bytes")
  func deviceNameLength() throws {
    let longest = ByteString([UInt8](repeating: 0x61, count: 254))
    let request = OpenRequest(try DeviceName(longest), .readOnly)
    #expect(try OpenRequest(decoding: request.encoded.span) == request)
    #expect(throws: WireError.limit(field: "length of the device name", maximum: 254, actual: 255))
    { try DeviceName(longest + "a") }
  }

  @Test("about a device that could not be shown is refused")
  func openAnswerLimits() throws {
    var answer = Self.geometry
    for (block, isValid) in [
      (UInt16(512), true), (4096, true), (32768, true), (0, false), (256, false), (513, false),
      (768, false), (.max, false),
    ] {
      answer.logicalBlockByteCount = block
      let wire = answer.encoded
      #expect(((try? OpenAnswer(decoding: wire.span)) != nil) == isValid, "\(block)")
    }
    answer = Self.geometry
    answer.sectorCount = .max >> 10
    #expect(try OpenAnswer(decoding: answer.encoded.span) == answer)
    answer.sectorCount += 1
    #expect(throws: WireError.self) { try OpenAnswer(decoding: answer.encoded.span) }
    // A kernel that offers secure erase, and bits that no policy has.
    var wire = Self.geometry.encoded
    wire[42] = 8
    wire[45] = 0xff
    let decoded = try OpenAnswer(decoding: wire.span)
    #expect(decoded.offersSecureErase)
    #expect(decoded.cachePolicy == [.fua, .writeBack])
  }

  @Test("to a server is one of four")
  func clientMessages() throws {
    let io = IORequest(device: 1, sector: 2, operation: .read, dataByteCount: 512)
    let open = OpenRequest(try DeviceName("a"), .readOnly)
    #expect(try ClientMessage(decoding: io.encoded.span) == .io(io))
    #expect(try ClientMessage(decoding: open.encoded.span) == .open(open))
    #expect(
      try ClientMessage(decoding: CloseRequest(device: 9).encoded.span)
        == .close(CloseRequest(device: 9)))
    #expect(
      try ClientMessage(decoding: SessionInformation().encoded.span)
        == .sessionInformation(SessionInformation()))
    for type in [UInt8(1), 3, 6, 0xff] {
      let wire = [type, 0, 0, 0] + [UInt8](repeating: 0, count: 52)
      #expect(throws: WireError.value(field: "message type", actual: UInt64(type))) {
        try ClientMessage(decoding: wire.span)
      }
    }
  }

  @Test("of random or nearly right bytes never traps a decoder")
  func randomBytes() {
    var generator = SeededGenerator(printingAs: "RNBDProtocol decoders")
    var mutator = ByteMutator(
      samples: Self.vectors.map(\.wire), alphabet: [0, 1, 2, 3, 4, 5, 0x2e, 0x2f, 0xff],
      seed: generator.next())
    for _ in 0..<20_000 {
      let wire = mutator.next()
      if let message = try? ClientMessage(decoding: wire.span) {
        if case .open(let open) = message { #expect(open.name.text.count <= 254) }
      }
      if let answer = try? OpenAnswer(decoding: wire.span) {
        #expect(answer.sectorCount <= .max >> 10)
      }
      _ = try? SessionInformation(decoding: wire.span)
    }
  }
}

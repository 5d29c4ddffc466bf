// SPDX-License-Identifier: Apache-2.0
// Vectors are written out by hand for a little-endian machine from Linux
// `include/uapi/linux/netlink.h` and `genetlink.h`.

import NetlinkProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A netlink message")
struct NetlinkMessageTests {
  static let vectors: [(String, wire: [UInt8], value: NetlinkMessage)] = [
    (
      "no payload", bytes("10000000 0300 0200 07000000 00000000"),
      NetlinkMessage(type: 3, flags: .multipart, sequence: 7, payload: [])
    ),
    (
      "a payload of 3, padded to 4",
      bytes("13000000 1000 0500 01000000 2a000000 aabbcc 00"),
      NetlinkMessage(
        type: 0x10, flags: [.request, .acknowledge], sequence: 1, port: 42,
        payload: [0xaa, 0xbb, 0xcc])
    ),
  ]

  @Test("is the bytes of its layout", arguments: vectors)
  func layout(name: String, wire: [UInt8], value: NetlinkMessage) throws {
    #expect(value.encoded == wire)
    #expect(try NetlinkMessage.decode(datagram: wire) == [value])
  }

  @Test("shares a datagram with others, the last one unpadded or not")
  func several() throws {
    let all = Self.vectors.flatMap(\.wire)
    let expected = Self.vectors.map(\.value)
    #expect(try NetlinkMessage.decode(datagram: all) == expected)
    #expect(try NetlinkMessage.decode(datagram: all.dropLast()) == expected)
    #expect(try NetlinkMessage.decode(datagram: []).isEmpty)
  }

  @Test("is refused when cut anywhere")
  func truncated() {
    let wire = Self.vectors[1].wire.dropLast()
    for count in 1..<wire.count {
      #expect(throws: WireError.self) {
        try NetlinkMessage.decode(datagram: Array(wire.prefix(count)))
      }
    }
  }

  static let badLengths: [(UInt32, WireError)] = [
    (0, .value(field: "netlink message length", actual: 0)),
    (15, .value(field: "netlink message length", actual: 15)),
    (17, .byteCount(expected: 17, actual: 16)),
    (.max, .byteCount(expected: Int(UInt32.max), actual: 16)),
  ]

  @Test("has a length that covers its header and fits", arguments: badLengths)
  func badLength(length: UInt32, error: WireError) {
    var wire = Self.vectors[0].wire
    var encoded: [UInt8] = []
    encoded.append(native: length)
    wire.replaceSubrange(0..<4, with: encoded)
    #expect(throws: error) { try NetlinkMessage.decode(datagram: wire) }
  }

  @Test("is refused in a datagram beyond the limit")
  func tooLong() throws {
    let limit = NetlinkMessage.datagramByteCountMaximum
    let message = NetlinkMessage(
      type: 20, flags: [], sequence: 1,
      payload: [UInt8](repeating: 0, count: limit - NetlinkMessage.headerByteCount))
    #expect(try NetlinkMessage.decode(datagram: message.encoded).count == 1)
    #expect(
      throws: WireError.limit(
        field: "netlink datagram", maximum: UInt64(limit), actual: UInt64(limit) + 1)
    ) { try NetlinkMessage.decode(datagram: message.encoded + [0]) }
  }
}

@Suite("A netlink acknowledgement")
struct NetlinkAcknowledgementTests {
  /// The header of a request: 24 bytes long, type 0x10, flags 5, sequence 9.
  static let requestHeader = "18000000 1000 0500 09000000 00000000"

  static func message(_ payload: String, flags: NetlinkMessage.Flags) -> NetlinkMessage {
    NetlinkMessage(
      type: NetlinkMessage.Control.error, flags: flags, sequence: 9, payload: bytes(payload))
  }

  static let vectors: [(String, NetlinkMessage, errno: Int32, text: ByteString?, offset: UInt32?)] =
    [
      ("success", message("00000000" + requestHeader, flags: .capped), 0, nil, nil),
      (
        "EBUSY with the request repeated",
        message("f0ffffff" + requestHeader + "0102030405060708", flags: []), 16, nil, nil
      ),
      (
        "EINVAL with words and an offset, capped",
        message(
          "eaffffff" + requestHeader + "0c000100 6e6f70652100 0000" + "08000200 14000000",
          flags: [.capped, .errorAttributes]), 22, "nope!", 20
      ),
      (
        "EINVAL with words behind the repeated request",
        message(
          "eaffffff" + requestHeader + "0102030405060708" + "07000100 686900 00",
          flags: .errorAttributes), 22, "hi", nil
      ),
      (
        "the highest errno", message("01f0ffff" + requestHeader, flags: .capped), 4095, nil, nil
      ),
    ]

  @Test("carries an errno and perhaps words", arguments: vectors)
  func decodes(
    name: String, message: NetlinkMessage, errno: Int32, text: ByteString?, offset: UInt32?
  ) throws {
    let end = try NetlinkAcknowledgement(decoding: message)
    #expect(end.errno == errno)
    #expect(end.text == text)
    #expect(end.offset == offset)
    #expect(end.isSuccess == (errno == 0))
  }

  static let refused: [(String, NetlinkMessage)] = [
    ("a positive errno", message("01000000" + requestHeader, flags: .capped)),
    ("an errno above 4095", message("00f0ffff" + requestHeader, flags: .capped)),
    ("the least integer", message("00000080" + requestHeader, flags: .capped)),
    ("no request header", message("00000000", flags: .capped)),
    (
      "a repeated request that is longer than the message",
      message("eaffffff 00010000 1000 0500 09000000 00000000", flags: .errorAttributes)
    ),
    (
      "a repeated request that is shorter than its header",
      message("eaffffff 04000000 1000 0500 09000000 00000000", flags: .errorAttributes)
    ),
    (
      "an offset of the wrong width",
      message(
        "eaffffff" + requestHeader + "06000200 1400 0000", flags: [.capped, .errorAttributes])
    ),
    (
      "another type",
      NetlinkMessage(type: 3, flags: [], sequence: 1, payload: bytes("00000000" + requestHeader))
    ),
  ]

  @Test("is refused when its fields contradict each other", arguments: refused)
  func refuses(name: String, message: NetlinkMessage) {
    #expect(throws: WireError.self) { try NetlinkAcknowledgement(decoding: message) }
  }

  @Test("never traps on a payload that is cut")
  func truncated() {
    for (_, message, _, _, _) in Self.vectors {
      for count in 0..<message.payload.count {
        var cut = message
        cut.payload = message.payload.prefix(count)
        _ = try? NetlinkAcknowledgement(decoding: cut)
      }
    }
  }
}

@Suite("Netlink attributes")
struct NetlinkAttributeTests {
  @Test("are refused with lengths that do not fit")
  func lengths() throws {
    #expect(try NetlinkAttribute.decode(bytes("0400 0100")[...]).count == 1)
    for wire in ["0300 0100", "0000 0000", "0500 0100", "ffff 0100 00000000", "0400 01"] {
      #expect(throws: WireError.self, "\(wire)") {
        try NetlinkAttribute.decode(bytes(wire)[...])
      }
    }
  }

  @Test("have at most 8192 neighbours")
  func count() throws {
    let one = bytes("0400 0100")
    let limit = NetlinkAttribute.countMaximum
    let many = Array(repeatElement(one, count: limit).joined())
    #expect(try NetlinkAttribute.decode(many[...]).count == limit)
    #expect(throws: WireError.self) { try NetlinkAttribute.decode((many + one)[...]) }
  }

  @Test("lose the flag bits of their type, and text its NUL")
  func flags() throws {
    let attribute = try #require(NetlinkAttribute.decode(bytes("0700 0180 686900")[...]).first)
    #expect(attribute.type == 1)
    #expect(attribute.text == "hi")
    #expect(throws: WireError.byteCount(expected: 4, actual: 3)) {
      try attribute.integer(UInt32.self)
    }
  }

  @Test("of random bytes are refused or decoded, and never trap")
  func random() {
    var generator = SeededGenerator(printingAs: "Netlink attributes of random bytes")
    for _ in 0..<20_000 {
      var wire = (0..<Int.random(in: 0...96, using: &generator)).map { _ in
        // Small values make lengths that fit, now and then.
        UInt8.random(in: 0...(Bool.random(using: &generator) ? 24 : 255), using: &generator)
      }
      _ = try? NetlinkMessage.decode(datagram: wire)
      if let message = try? GenericMessage(decoding: wire[...]) {
        _ = try? GenericFamily(decoding: message)
        _ = try? NBDKernelMessage(decoding: message)
      }
      if wire.count >= 4 { wire[0] = UInt8.random(in: 1...5, using: &generator) }
      if let message = try? GenericMessage(decoding: wire[...]) {
        _ = try? NBDKernelMessage(decoding: message)
      }
      let error = NetlinkMessage(
        type: NetlinkMessage.Control.error,
        flags: NetlinkMessage.Flags(rawValue: .random(in: 0...0x3ff, using: &generator)),
        sequence: 1, payload: wire)
      _ = try? NetlinkAcknowledgement(decoding: error)
    }
  }
}

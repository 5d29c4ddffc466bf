// SPDX-License-Identifier: Apache-2.0
// Vectors are written out by hand for a little-endian machine from the tables of attributes in
// Linux `include/uapi/linux/nbd-netlink.h` and `genetlink.h`.

import NetlinkProtocol
import TestSupport
import Testing
import WireFormat

@Suite("The controller of generic netlink")
struct GenericFamilyTests {
  @Test("is asked for a family by name")
  func request() {
    #expect(GenericFamily.request(name: "nbd") == bytes("03020000 0800 0200 6e626400"))
  }

  /// FAMILY_NAME, FAMILY_ID 0x1c, VERSION, MCAST_GROUPS with one group of id 7.
  static let answer = bytes(
    "01020000"
      + "0800 0200 6e626400"
      + "0600 0100 1c00 0000"
      + "0800 0300 01000000"
      + "2400 0700"
      + "  2000 0100"
      + "    0800 0200 07000000"
      + "    1100 0100 6e62645f6d635f67726f757000 000000")

  @Test("answers with the id and the groups")
  func decodes() throws {
    let family = try GenericFamily(decoding: GenericMessage(decoding: Self.answer[...]))
    #expect(family.id == 0x1c)
    #expect(family.group(named: "nbd_mc_group") == 7)
    #expect(family.group(named: "other") == nil)
  }

  static let refused: [(String, [UInt8])] = [
    ("another command", bytes("02020000 0600 0100 1c00 0000")),
    ("no id", bytes("01020000 0800 0200 6e626400")),
    ("an id of the controller's own kind", bytes("01020000 0600 0100 0f00 0000")),
    ("an id of four bytes", bytes("01020000 0800 0100 1c000000")),
    (
      "a group's id of two bytes",
      bytes(
        "01020000 0600 0100 1c00 0000 1800 0700 1400 0100 0600 0200 0700 0000 0600 0100 6100 0000")
    ),
  ]

  @Test("is not believed when its answer is malformed", arguments: refused)
  func refuses(name: String, wire: [UInt8]) {
    #expect(throws: WireError.self) {
      try GenericFamily(decoding: GenericMessage(decoding: wire[...]))
    }
  }

  @Test("is not believed when its answer is cut")
  func truncated() throws {
    for count in 0..<Self.answer.count {
      let wire = Self.answer.prefix(count)
      guard let message = try? GenericMessage(decoding: wire) else { continue }
      // What is left is whole attributes: the id may be there, the groups are not.
      #expect((try? GenericFamily(decoding: message))?.groups.isEmpty != false)
    }
  }
}

@Suite("The nbd family")
struct NBDFamilyTests {
  static let requests: [(String, payload: [UInt8], wire: [UInt8])] = [
    (
      "CONNECT with everything",
      NBDConnectMessage(
        index: 3, sizeByteCount: 0x4000_0000, blockByteCount: 512, timeoutSeconds: 30,
        deadTimeoutSeconds: 600, serverFlags: 0x16d, sockets: [5, 6], backendIdentifier: "a/b"
      ).payload,
      bytes(
        "01010000"
          + "0800 0100 03000000"
          + "0c00 0200 0000004000000000"
          + "0c00 0300 0002000000000000"
          + "0c00 0400 1e00000000000000"
          + "0c00 0500 6d01000000000000"
          + "1c00 0780  0c00 0180 0800 0100 05000000  0c00 0180 0800 0100 06000000"
          + "0c00 0800 5802000000000000"
          + "0800 0a00 612f6200")
    ),
    (
      "CONNECT with defaults",
      NBDConnectMessage(
        sizeByteCount: 1, blockByteCount: 4096, serverFlags: 1, sockets: [0x0102_0304]
      ).payload,
      bytes(
        "01010000"
          + "0c00 0200 0100000000000000"
          + "0c00 0300 0010000000000000"
          + "0c00 0500 0100000000000000"
          + "1000 0780  0c00 0180 0800 0100 04030201")
    ),
    (
      "DISCONNECT", NBDDisconnectMessage(index: 0x7fff).payload,
      bytes("02010000 0800 0100 ff7f0000")
    ),
    (
      "RECONFIGURE with a socket",
      NBDReconfigureMessage(
        index: 1, timeoutSeconds: 10, deadTimeoutSeconds: 60, sockets: [9],
        backendIdentifier: "x"
      ).payload,
      bytes(
        "03010000"
          + "0800 0100 01000000"
          + "0c00 0400 0a00000000000000"
          + "1000 0780  0c00 0180 0800 0100 09000000"
          + "0c00 0800 3c00000000000000"
          + "0600 0a00 7800 0000")
    ),
    (
      "RECONFIGURE with a size",
      NBDReconfigureMessage(
        index: 1, sizeByteCount: 4096, sockets: [], backendIdentifier: nil
      ).payload,
      bytes("03010000 0800 0100 01000000 0c00 0200 0010000000000000")
    ),
  ]

  @Test("is asked in the bytes of its layout", arguments: requests)
  func asks(name: String, payload: [UInt8], wire: [UInt8]) {
    #expect(payload == wire)
  }

  static let answers: [(String, [UInt8], NBDKernelMessage)] = [
    ("CONNECT", bytes("01010000 0800 0100 04000000"), .connected(index: 4)),
    ("LINK_DEAD", bytes("04010000 0800 0100 04000000"), .linkDead(index: 4)),
    (
      "STATUS of two devices",
      bytes(
        "05010000 2c00 0900"
          + "1400 0100 0800 0100 00000000 0500 0200 01 000000"
          + "1400 0100 0800 0100 01000000 0500 0200 00 000000"),
      .status([
        NBDKernelMessage.DeviceStatus(index: 0, isConnected: true),
        NBDKernelMessage.DeviceStatus(index: 1, isConnected: false),
      ])
    ),
    ("STATUS of none", bytes("05010000 0400 0900"), .status([])),
  ]

  @Test("answers in the bytes of its layout", arguments: answers)
  func decodes(name: String, wire: [UInt8], value: NBDKernelMessage) throws {
    #expect(try NBDKernelMessage(decoding: GenericMessage(decoding: wire[...])) == value)
  }

  static let refused: [(String, [UInt8])] = [
    ("an unknown command", bytes("09010000 0800 0100 04000000")),
    ("a request of ours", bytes("02010000 0800 0100 04000000")),
    ("CONNECT without an index", bytes("01010000")),
    ("LINK_DEAD with an index of two bytes", bytes("04010000 0600 0100 0400 0000")),
    ("STATUS without a list", bytes("05010000 0800 0100 04000000")),
    ("STATUS with half an item", bytes("05010000 1000 0900 0c00 0100 0800 0100 00000000")),
    ("less than a header", bytes("010100")),
  ]

  @Test("is not believed when its answer is malformed", arguments: refused)
  func refuses(name: String, wire: [UInt8]) {
    #expect(throws: WireError.self) {
      try NBDKernelMessage(decoding: GenericMessage(decoding: wire[...]))
    }
  }

  @Test("is not believed when its answer is cut")
  func truncated() {
    for (name, wire, _) in Self.answers {
      for count in 0..<wire.count where count % 4 != 0 || count < 8 {
        // Padding may be missing; nothing else.
        if wire.count - count < 4, wire.suffix(wire.count - count).allSatisfy({ $0 == 0 }) {
          continue
        }
        #expect(throws: WireError.self, "\(name) cut to \(count)") {
          try NBDKernelMessage(decoding: GenericMessage(decoding: wire.prefix(count)))
        }
      }
    }
  }
}

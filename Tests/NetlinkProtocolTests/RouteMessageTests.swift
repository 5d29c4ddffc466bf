// SPDX-License-Identifier: Apache-2.0
import NetlinkProtocol
import TestSupport
import Testing
import WireFormat

/// Source: what iproute2 6.1 sends and Linux 6.12 answers, read with `strace -e trace=network`.
@Suite("The messages about interfaces, addresses and routes")
struct RouteMessageTests {
  static func native16(_ value: UInt16) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(native: value)
    return bytes
  }
  static func native32(_ value: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(native: value)
    return bytes
  }

  /// eth0 as the kernel describes it: up, running, with a carrier.
  static var link: [UInt8] {
    var attributes = NetlinkAttributeWriter()
    attributes.append(3, text: "eth0.5")
    attributes.append(1, bytes: [0x52, 0x54, 0, 0x12, 0x34, 0x56])
    attributes.append(4, UInt32(1500))
    var information = NetlinkAttributeWriter()
    information.append(1, text: "vlan")
    attributes.append(18, nest: information)
    return [0, 0] + native16(1) + native32(2) + native32(0x1_1043) + native32(0)
      + attributes.bytes
  }

  @Test("tell what an interface is")
  func links() throws {
    let link = try LinkDescription(decoding: Self.link[...])
    #expect(link.name == "eth0.5" && link.index == 2 && link.kind == "vlan")
    #expect(link.isUp && link.hasCarrier && link.isEthernet && !link.isLoopback)
    for count in 0..<16 {
      #expect(throws: WireError.self) { try LinkDescription(decoding: Self.link[..<count]) }
    }
  }

  @Test("set an interface up, and make one on a VLAN")
  func changes() throws {
    let up = LinkRequest.change(index: 7, isUp: true, mtuByteCount: 1400, hardwareAddress: nil)
      .payload
    #expect(Array(up[4..<8]) == Self.native32(7))
    #expect(Array(up[8..<16]) == Self.native32(1) + Self.native32(1))
    let attributes = try NetlinkAttribute.decode(up[16...])
    #expect(attributes.map(\.type) == [4])
    #expect(try attributes[0].integer(UInt32.self) == 1400)
    let vlan = LinkRequest.makeVLAN(name: "v5", parentIndex: 3, identifier: 5).payload
    let parts = try NetlinkAttribute.decode(vlan[16...])
    #expect(parts.map(\.type) == [3, 5, 18])
    let information = try parts[2].nested()
    #expect(information[0].text == "vlan")
    #expect(try information[1].nested()[0].integer(UInt16.self) == 5)
  }

  @Test("carry addresses both ways")
  func addresses() throws {
    var address = AddressDescription(
      interfaceIndex: 2, octets: [192, 0, 2, 7], prefixLength: 24)
    address.broadcast = [192, 0, 2, 255]
    let read = try AddressDescription(decoding: address.payload[...])
    #expect(read.octets == address.octets && read.prefixLength == 24)
    #expect(read.interfaceIndex == 2 && read.isGlobal && !read.isTentative)
    var linkLocal = AddressDescription(
      interfaceIndex: 2, octets: [0xfe, 0x80] + [UInt8](repeating: 0, count: 14), prefixLength: 64)
    linkLocal.scope = 253
    var flags = NetlinkAttributeWriter()
    flags.append(8, UInt32(0x40))
    let tentative = try AddressDescription(decoding: (linkLocal.payload + flags.bytes)[...])
    #expect(tentative.isTentative && !tentative.isGlobal && tentative.octets.count == 16)
  }

  @Test("make routes, with a gateway that counts as a neighbour when it is to")
  func routes() throws {
    var route = RouteRequest(
      interfaceIndex: 2, destination: [0, 0, 0, 0], prefixLength: 0, gateway: [192, 0, 2, 1])
    #expect(route.payload[..<8] == [2, 0, 0, 0, 254, 3, 0, 1])
    let types = try NetlinkAttribute.decode(route.payload[12...]).map(\.type)
    #expect(types == [5, 4])
    route.isGatewayOnLink = true
    #expect(Array(route.payload[8..<12]) == Self.native32(4))
    let local = RouteRequest(
      interfaceIndex: 2, destination: [198, 51, 100, 0], prefixLength: 24, gateway: nil)
    #expect(local.payload[6] == 253)
    #expect(try NetlinkAttribute.decode(local.payload[12...]).map(\.type) == [1, 4])
  }

  @Test("of mutated bytes never trap")
  func mutated() {
    var generator = SeededGenerator(printingAs: "rtnetlink messages")
    var mutator = ByteMutator(
      samples: [
        Self.link,
        AddressDescription(
          interfaceIndex: 2, octets: [192, 0, 2, 7], prefixLength: 24
        ).payload,
      ],
      alphabet: [0, 4, 8, 16, 0x80, 0xff], seed: generator.next())
    for _ in 0..<50_000 {
      let bytes = mutator.next()
      _ = try? LinkDescription(decoding: bytes[...])
      _ = try? AddressDescription(decoding: bytes[...])
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
import NetlinkProtocol
import Testing
import WireFormat

@Suite("the request for a soft RDMA device")
struct RDMALinkTests {
  /// Source: what iproute2's `rdma link add rxe0 type rxe netdev eth0` sends, in the order of ours.
  @Test("names the device, its kind and its interface")
  func payload() throws {
    let request = RDMALinkRequest(name: "rxe_eth0", kind: "rxe", interface: "eth0")
    let attributes = try NetlinkAttribute.decode(request.payload[...])
    #expect(attributes.map(\.type) == [2, 65, 51])
    #expect(attributes.map(\.text) == ["rxe_eth0", "rxe", "eth0"])
    #expect(RDMALinkRequest.type == 0x1403)
    #expect(request.payload.count.isMultiple(of: 4))
  }
}

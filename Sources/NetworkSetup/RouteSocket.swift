// SPDX-License-Identifier: Apache-2.0
// Interfaces, addresses and routes of this machine: asked for, changed, and watched.

import CLinux
import LinuxSystem
import NetlinkProtocol
import WireFormat

struct RouteSocket: ~Copyable {
  private var socket: NetlinkSocket
  /// Becomes readable with every change of an interface or an address.
  let changes: FileDescriptor

  static let answerMilliseconds: UInt64 = 10_000

  init() throws(SystemError) {
    let questions = try NetlinkSocket(protocol: CInt(clinux_NETLINK_ROUTE))
    let events = FileDescriptor(
      owning: try checked(
        clinux_netlink_open(CInt(clinux_NETLINK_ROUTE), RouteMessageType.changeGroups)))
    _ = try checked(clinux_set_blocking(events.rawValue, 0))
    socket = questions
    changes = events
  }

  /// Takes what has come; what it was is asked for anew.
  func drainChanges() {
    var buffer = [UInt8](repeating: 0, count: 16384)
    let number = changes.rawValue
    // What is left stays readable.
    for _ in 0..<64 {
      let count = unsafe buffer.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
      }
      // ENOBUFS: events were lost, and others may follow.
      guard count > 0 || count == -105 else { return }
    }
  }

  private mutating func ask(
    _ type: UInt16, _ flags: NetlinkMessage.Flags, _ payload: [UInt8]
  ) throws(NetlinkError) -> [NetlinkMessage] {
    try socket.ask(
      type: type, flags: flags, payload: payload, until: .milliseconds(Self.answerMilliseconds))
  }

  /// Those that cannot be read are left out.
  mutating func links() throws(NetlinkError) -> [LinkDescription] {
    var links: [LinkDescription] = []
    for message in try ask(RouteMessageType.getLink, .dump, LinkDescription.dumpRequest)
    where message.type == RouteMessageType.newLink {
      if let link = try? LinkDescription(decoding: message.payload) { links.append(link) }
    }
    return links
  }

  mutating func addresses() throws(NetlinkError) -> [AddressDescription] {
    var addresses: [AddressDescription] = []
    for message in try ask(RouteMessageType.getAddress, .dump, AddressDescription.dumpRequest)
    where message.type == RouteMessageType.newAddress {
      if let one = try? AddressDescription(decoding: message.payload) { addresses.append(one) }
    }
    return addresses
  }

  mutating func make(_ request: LinkRequest) throws(NetlinkError) {
    var flags: NetlinkMessage.Flags = .acknowledge
    if case .makeVLAN = request { flags.formUnion([.create, .exclusive]) }
    _ = try ask(RouteMessageType.newLink, flags, request.payload)
  }

  mutating func add(_ address: AddressDescription) throws(NetlinkError) {
    _ = try ask(
      RouteMessageType.newAddress, [.acknowledge, .create, .replace], address.payload)
  }

  mutating func add(_ route: RouteRequest) throws(NetlinkError) {
    _ = try ask(RouteMessageType.newRoute, [.acknowledge, .create, .replace], route.payload)
  }
}

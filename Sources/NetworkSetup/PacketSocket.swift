// SPDX-License-Identifier: Apache-2.0
// The ways out of an interface that is being configured. Descriptors are numbers here, because they
// live in arrays; `close` is called once, by who holds the candidate.

import BootPlanning
import CLinux
import DHCPProtocol
import LinuxSystem
import WireFormat

/// DHCP of IPv4 before there is an address: datagrams with their headers.
struct PacketSocket {
  let number: CInt
  let interface: UInt32

  init(interface: UInt32) throws(SystemError) {
    self.interface = interface
    number = try checked(clinux_packet_socket(interface))
  }

  func close() { _ = clinux_close(number) }

  /// Everything is broadcast. What cannot be sent will be sent again.
  func send(_ transmission: DHCPTransmission) {
    guard let datagram = transmission.datagram else { return }
    _ = unsafe datagram.withUnsafeBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_packet_broadcast(number, interface, raw.baseAddress, raw.count)
    }
  }

  /// What has come by now, handed to the client; false when there was nothing more.
  func receive(into client: inout DHCPClient, at now: UInt64) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 9216)
    var isComplete: CInt = 1
    let count = unsafe buffer.withUnsafeMutableBytes { raw in
      // SAFETY: the array's own storage, and an integer of ours.
      unsafe clinux_packet_receive(number, raw.baseAddress, raw.count, &isComplete)
    }
    guard count > 0, count <= buffer.count else { return false }
    client.received(
      datagram: buffer.span.extracting(0..<count), isChecksumComplete: isComplete != 0, at: now)
    return true
  }
}

/// What routers say on one link, and DHCPv6 beside it.
struct RouterSocket {
  let number: CInt
  let interface: UInt32

  init(interface: UInt32) throws(SystemError) {
    self.interface = interface
    number = try checked(clinux_router_socket(interface))
  }

  func close() { _ = clinux_close(number) }

  func solicit() {
    let message = RouterSolicitation.encoded
    _ = unsafe message.withUnsafeBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_router_solicit(number, interface, raw.baseAddress, raw.count)
    }
  }

  /// The last of those that have come, of 64 at most, so that a flood does not keep others from being
  /// heard; what is no advertisement is passed over.
  func receive() -> RouterAdvertisement? {
    var found: RouterAdvertisement?
    for _ in 0..<64 {
      var buffer = [UInt8](repeating: 0, count: 9216)
      let count = unsafe buffer.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_router_receive(number, raw.baseAddress, raw.count)
      }
      guard count >= 0, count <= buffer.count else { return found }
      if let one = try? RouterAdvertisement(decoding: buffer.span.extracting(0..<count)) {
        found = one
      }
    }
    return found
  }
}

/// DHCPv6 from the link-local address.
struct DHCPv6Socket {
  let number: CInt
  private let servers: SocketAddress

  init(interface: UInt32, name: ByteString) throws(SystemError) {
    let all: [UInt8] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]  // ff02::1:2
    servers = SocketAddress(ipv6: all, port: DHCPv6Message.serverPort, scope: interface)
    number = try checked(
      clinux_socket(CInt(clinux_AF_INET6), CInt(clinux_SOCK_DGRAM), 0))
    var own = SocketAddress(
      ipv6: [UInt8](repeating: 0, count: 16), port: DHCPv6Message.clientPort, scope: 0
    ).raw
    do {
      let number = number
      _ = try unsafe withCString(name) { unsafe clinux_bind_to_device(number, $0) }
      // SAFETY: an address of ours, copied.
      _ = try checked(unsafe clinux_bind(number, &own))
    } catch {
      _ = clinux_close(number)
      throw error
    }
  }

  func close() { _ = clinux_close(number) }

  func send(_ message: DHCPv6Message) {
    let bytes = message.encoded
    var to = servers.raw
    _ = unsafe bytes.withUnsafeBytes { raw in
      // SAFETY: the array's own storage, and an address of ours.
      unsafe clinux_sendto(number, raw.baseAddress, raw.count, &to)
    }
  }

  func receive(into client: inout DHCPv6Client, at now: UInt64) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 9216)
    let count = unsafe buffer.withUnsafeMutableBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
    }
    guard count > 0, count <= buffer.count else { return false }
    client.received(buffer.span.extracting(0..<count), at: now)
    return true
  }
}

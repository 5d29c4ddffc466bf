// SPDX-License-Identifier: Apache-2.0
// One connection, or one listener, of the connection manager; with it its queue pair.
//
//   client: resolveAddress ─► resolveRoute ─► createQueuePair, post receives ─► connect ─► established
//   server: bind, listen ─► connectRequest ─► createQueuePair, post receives ─► accept ─► established
//   both:   disconnect ─► disconnected ─► (the value goes away)
//
// Each arrow but the first is an event of the channel. From `addressResolved` on a device is bound.

import CLinux
import CVerbs
public import LinuxSystem
public import WireFormat

/// What both ends agree on besides.
public enum PortSpace: Sendable {
  /// Addresses of IPv4 and IPv6, on any RDMA device.
  case tcp
  /// InfiniBand's own addresses.
  case ib
}

@safe public struct ConnectionIdentifier: ~Copyable {
  // SAFETY: made by `init` or handed over by an event, destroyed by `deinit` alone. It does not move,
  // so calls on a borrowed value are sound; the library guards its own data.
  @unsafe let raw: UnsafeMutableRawPointer

  /// `context` comes back with every event of it. ENODEV when there is no device.
  public init(
    on channel: borrowing EventChannel, context: UInt64, space: PortSpace = .tcp
  ) throws(VerbsError) {
    var made: UnsafeMutableRawPointer?
    let result = unsafe cverbs_identifier_create(
      // SAFETY: the channel is alive, and the variable is ours.
      &made, channel.raw, context, space == .ib ? 1 : 0)
    if result == -19 { throw .noDevice }
    try verbs(.createIdentifier, result)
    guard let made = unsafe made else { throw .failed(.createIdentifier, .noMemory) }
    unsafe raw = unsafe made
  }

  @unsafe init(owning raw: UnsafeMutableRawPointer) { unsafe self.raw = unsafe raw }

  /// Destroys its queue pair, too: from then on the peer reaches none of our memory through it.
  deinit { unsafe cverbs_identifier_destroy(raw) }

  // SAFETY, of every call below: `raw` is alive as long as this value.

  /// The address is free for another listener as soon as this one is gone. Before `bind`.
  public borrowing func reuseAddress() throws(VerbsError) {
    try verbs(.setOption, unsafe cverbs_reuse_address(raw))
  }

  /// A listener on IPv6's any address leaves IPv4 to another. Before `bind`.
  public borrowing func takeOnlyIPv6() throws(VerbsError) {
    try verbs(.setOption, unsafe cverbs_only_ipv6(raw))
  }

  public borrowing func bind(to address: SocketAddress) throws(VerbsError) {
    var storage = address.raw.storage
    try verbs(.bind, unsafe cverbs_bind(raw, &storage))
  }

  /// Clients are told to the channel from now on, at most `backlog` that nobody has looked at.
  public borrowing func listen(backlog: Int32) throws(VerbsError) {
    try verbs(.listen, unsafe cverbs_listen(raw, backlog))
  }

  /// Ends in `addressResolved` or a failure. Without a source the route decides.
  public borrowing func resolveAddress(
    of destination: SocketAddress, from source: SocketAddress? = nil, milliseconds: Int32
  ) throws(VerbsError) {
    var destination = destination.raw.storage
    let result: CInt
    if let source {
      var source = source.raw.storage
      result = unsafe cverbs_resolve_address(raw, &source, &destination, milliseconds)
    } else {
      result = unsafe cverbs_resolve_address(raw, nil, &destination, milliseconds)
    }
    if result == -19 { throw .noDevice }
    try verbs(.resolveAddress, result)
  }

  /// Ends in `routeResolved` or a failure.
  public borrowing func resolveRoute(milliseconds: Int32) throws(VerbsError) {
    try verbs(.resolveRoute, unsafe cverbs_resolve_route(raw, milliseconds))
  }

  /// Ends in `established`, `rejected` or a failure. Private data: at most 56 bytes with addresses of
  /// IP. Retries: 7 times; for a peer that has posted no receive for ever.
  public borrowing func connect(privateData: Span<UInt8>) throws(VerbsError) {
    let result = unsafe withParameters(privateData, retryCount: 7) {
      // SAFETY: alive during the call, which copies them.
      unsafe cverbs_connect(raw, $0)
    }
    try verbs(.connect, result)
  }

  /// Ends in `established`, or `disconnected` when the client has gone. At most 196 bytes.
  public borrowing func accept(privateData: Span<UInt8>) throws(VerbsError) {
    let result = unsafe withParameters(privateData, retryCount: 0) {
      // SAFETY: alive during the call, which copies them.
      unsafe cverbs_accept(raw, $0)
    }
    try verbs(.accept, result)
  }

  /// Says why; this value may go away then. At most 148 bytes.
  public borrowing func reject(privateData: Span<UInt8>) throws(VerbsError) {
    let count = UInt8(min(privateData.count, 255))
    let result = unsafe privateData.withUnsafeBytes { bytes in
      // SAFETY: as many bytes as there are; the call copies them.
      unsafe cverbs_reject(raw, bytes.baseAddress, count)
    }
    try verbs(.reject, result)
  }

  @unsafe private borrowing func withParameters(
    _ privateData: Span<UInt8>, retryCount: UInt8,
    _ body: (UnsafePointer<cverbs_parameters>) -> CInt
  ) -> CInt {
    unsafe privateData.withUnsafeBytes { bytes in
      // SAFETY: the pointer is used inside only, and the count is that of the bytes.
      var parameters = unsafe cverbs_parameters(
        private_data: bytes.baseAddress, private_count: UInt8(min(bytes.count, 255)),
        retry_count: retryCount, rnr_retry_count: 7)
      return unsafe body(&parameters)
    }
  }

  /// Both ends hear `disconnected`; what is out completes in error. Says nothing when there is no
  /// connection.
  public borrowing func disconnect() { _ = unsafe cverbs_disconnect(raw) }

  /// A number for the device that it is bound to, the same for all that share it; nil before.
  public var deviceIdentity: UInt? {
    unsafe cverbs_device_of(raw).map { UInt(bitPattern: $0) }
  }

  /// The name of that device, as `rxe0`; empty before.
  public var deviceName: ByteString {
    // SAFETY: the library's own text, which lives as long as the device.
    guard let device = unsafe cverbs_device_of(raw), let name = unsafe cverbs_name_of(device)
    else { return "" }
    var bytes: [UInt8] = []
    var index = 0
    while index < 64, unsafe name[index] != 0 {
      bytes.append(UInt8(bitPattern: unsafe name[index]))
      index += 1
    }
    return ByteString(bytes)
  }

  /// Which port of the device, from 1; 0 before it is bound.
  public var portNumber: UInt8 { unsafe cverbs_port_of(raw) }

  /// The addresses of both ends; nil where there is none yet.
  public var addresses: (local: SocketAddress?, peer: SocketAddress?) {
    var local = clinux_address()
    var peer = clinux_address()
    // SAFETY: four variables of ours, of which each is named once.
    unsafe cverbs_addresses(
      raw, &local.storage, &local.byte_count, &peer.storage, &peer.byte_count)
    return (
      local.byte_count > 0 ? SocketAddress(raw: local) : nil,
      peer.byte_count > 0 ? SocketAddress(raw: peer) : nil
    )
  }
}

extension SocketAddress {
  /// An address of InfiniBand's own: a GID of 16 bytes, and the service that a port is in that space.
  /// Source: `RDMA_IB_IP_PS_IB` in Linux `rdma_cm.h`: 0x13f in front of the port.
  public init(gid: [UInt8], port: UInt16) {
    precondition(gid.count == 16, "a GID has 16 bytes")
    var raw = clinux_address()
    raw.byte_count = unsafe gid.withUnsafeBufferPointer { bytes in
      // SAFETY: sixteen bytes, checked above; storage of ours.
      unsafe cverbs_address_ib(&raw.storage, bytes.baseAddress!, 0x13f_0000 | UInt64(port))
    }
    self.init(raw: raw)
  }
}

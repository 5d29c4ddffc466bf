// SPDX-License-Identifier: Apache-2.0
// A connected stream whose every step has a deadline. The socket stays non-blocking; the kernel's
// nbd driver does not mind, and no wait of ours can outlast its deadline.

import CLinux
import WireFormat

/// One end of a connected stream; see the head of this file.
public struct StreamSocket: ~Copyable {
  /// Closed with the value, unless `releaseDescriptor` was called.
  public let descriptor: FileDescriptor

  /// A socket that is connected and non-blocking already.
  public init(owning descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

  /// Connects, from `source` when given, with TCP_NODELAY set (nbd-server and others cost 45 ms
  /// a small message without it). ETIMEDOUT when the deadline passes first.
  public static func connect(
    to address: SocketAddress, from source: SocketAddress? = nil, until deadline: Deadline
  ) throws(SystemError) -> StreamSocket {
    let number = try checked(clinux_socket(address.family, CInt(clinux_SOCK_STREAM), 0))
    let socket = StreamSocket(owning: FileDescriptor(owning: number))
    if let source {
      var raw = source.raw
      _ = try checked(unsafe clinux_bind(number, &raw))  // SAFETY: an address of ours, copied.
    }
    var raw = address.raw
    let result = unsafe clinux_connect(number, &raw)  // SAFETY: an address of ours, copied.
    if result == -SystemError.inProgress.errno || result == -SystemError.tryAgain.errno {
      try waitUntilReady(number, for: CShort(clinux_POLLOUT), until: deadline)
      _ = try checked(clinux_socket_error(number))
    } else {
      _ = try checked(result)
    }
    if address.family != CInt(clinux_AF_UNIX) {
      _ = try checked(
        clinux_set_option(number, CInt(clinux_IPPROTO_TCP), CInt(clinux_TCP_NODELAY), 1))
      _ = try checked(
        clinux_set_option(number, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_KEEPALIVE), 1))
    }
    return socket
  }

  /// Sends all of it.
  public func send(_ bytes: [UInt8], until deadline: Deadline) throws(SystemError) {
    var sent = 0
    let number = descriptor.rawValue
    while sent < bytes.count {
      let result = unsafe bytes.withUnsafeBytes { raw in
        // SAFETY: `sent` is below the array's count.
        unsafe clinux_send(number, raw.baseAddress! + sent, raw.count - sent, 0)
      }
      if result == -Int(SystemError.tryAgain.errno) {
        try waitUntilReady(number, for: CShort(clinux_POLLOUT), until: deadline)
      } else if result != -Int(SystemError.interrupted.errno) {
        sent += try checked(result)
      }
    }
  }

  /// Appends at least one byte and at most `maximum`, and never reads further; none means that
  /// the peer has ended the stream.
  public func receive(
    into buffer: inout [UInt8], maximum: Int, until deadline: Deadline
  ) throws(SystemError) {
    var chunk = [UInt8](repeating: 0, count: maximum)
    let number = descriptor.rawValue
    while true {
      let result = unsafe chunk.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
      }
      if result == -Int(SystemError.tryAgain.errno) {
        try waitUntilReady(number, for: CShort(clinux_POLLIN), until: deadline)
      } else if result != -Int(SystemError.interrupted.errno) {
        buffer.append(contentsOf: chunk.prefix(try checked(result)))
        return
      }
    }
  }

  /// Hands the descriptor on, unclosed.
  public consuming func releaseDescriptor() -> CInt { descriptor.release() }

  /// The address of this end.
  public var localAddress: SocketAddress? {
    var raw = clinux_address()
    // SAFETY: a structure of ours that the call fills.
    return unsafe clinux_local_address(descriptor.rawValue, &raw) < 0
      ? nil : SocketAddress(raw: raw)
  }
}

/// Waits for `events` on a descriptor. ETIMEDOUT when the deadline passes first.
func waitUntilReady(
  _ number: CInt, for events: CShort, until deadline: Deadline
) throws(SystemError) {
  while true {
    let ready = clinux_poll(number, events, deadline.pollMilliseconds)
    if ready == -SystemError.interrupted.errno { continue }
    if try checked(ready) != 0 { return }
    if deadline.hasPassed { throw .timedOut }
  }
}

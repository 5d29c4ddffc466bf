// SPDX-License-Identifier: Apache-2.0
import CLinux

/// A UDP socket that talks to one peer: connect(2) lets the kernel drop what others send.
public struct DatagramSocket: ~Copyable {
  /// Non-blocking; closed with the value.
  public let descriptor: FileDescriptor

  /// Sends nothing: with UDP an error says that there is no route, not that the peer is away.
  public static func connect(to address: SocketAddress) throws(SystemError) -> DatagramSocket {
    let number = try checked(clinux_socket(address.family, CInt(clinux_SOCK_DGRAM), 0))
    let socket = DatagramSocket(descriptor: FileDescriptor(owning: number))
    var raw = address.raw
    _ = try checked(unsafe clinux_connect(number, &raw))  // SAFETY: an address of ours, copied.
    return socket
  }

  /// Ours: the one that the route to the peer begins at.
  public var localAddress: SocketAddress? {
    var raw = clinux_address()
    // SAFETY: an address of ours, which the call fills.
    guard unsafe clinux_local_address(descriptor.rawValue, &raw) == 0 else { return nil }
    return SocketAddress(raw: raw)
  }

  /// One datagram. EAGAIN when there is no room for it, ECONNREFUSED when an earlier one met a
  /// closed port.
  public func send(_ bytes: [UInt8]) throws(SystemError) {
    let number = descriptor.rawValue
    _ = try retryingInterrupts {
      unsafe bytes.withUnsafeBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_send(number, raw.baseAddress, raw.count, 0)
      }
    }
  }

  /// One datagram, cut at `maximum` bytes. ETIMEDOUT when the deadline passes first.
  public func receive(maximum: Int, until deadline: Deadline) throws(SystemError) -> [UInt8] {
    var datagram = [UInt8](repeating: 0, count: maximum)
    let number = descriptor.rawValue
    while true {
      let result = unsafe datagram.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
      }
      if result == -Int(SystemError.tryAgain.errno) {
        try waitUntilReady(number, for: CShort(clinux_POLLIN), until: deadline)
      } else if result != -Int(SystemError.interrupted.errno) {
        let count = try checked(result)
        return Array(datagram[..<count])
      }
    }
  }
}

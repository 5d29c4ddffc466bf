// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem
import WireFormat

/// A Unix socket that datagrams come to, as a service manager has one.
final class DatagramReceiver: Sendable {
  private let socket: DatagramBox

  private final class DatagramBox: Sendable {
    let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  }

  init(_ path: ByteString) throws {
    let address = try SocketAddress(unixPath: path)
    let number = try checked(clinux_socket(address.family, CInt(clinux_SOCK_DGRAM), 0))
    socket = DatagramBox(FileDescriptor(owning: number))
    var raw = address.raw
    _ = try checked(unsafe clinux_bind(number, &raw))  // SAFETY: an address of ours, copied.
  }

  /// Within ten seconds.
  func receive() throws -> String {
    let number = socket.descriptor.rawValue
    guard clinux_poll(number, CShort(clinux_POLLIN), 10_000) > 0 else { throw SystemError.timedOut }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe bytes.withUnsafeMutableBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
    }
    return String(decoding: bytes.prefix(try checked(count)), as: UTF8.self)
  }
}

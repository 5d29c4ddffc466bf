// SPDX-License-Identifier: Apache-2.0
public import CLinux
public import WireFormat

/// An address that a stream can be connected to. Holds what connect(2) takes.
public struct SocketAddress: Sendable {
  public let raw: clinux_address

  public init(raw: clinux_address) { self.raw = raw }

  public init(ipv4 octets: [UInt8], port: UInt16) {
    precondition(octets.count == 4, "an IPv4 address has 4 octets")
    var raw = clinux_address()
    unsafe octets.withUnsafeBufferPointer { buffer in
      // SAFETY: four octets, checked above; the call copies them.
      unsafe clinux_address_v4(&raw, buffer.baseAddress!, port)
    }
    self.raw = raw
  }

  /// `scope` is an interface index; 0 for none.
  public init(ipv6 octets: [UInt8], port: UInt16, scope: UInt32) {
    precondition(octets.count == 16, "an IPv6 address has 16 octets")
    var raw = clinux_address()
    unsafe octets.withUnsafeBufferPointer { buffer in
      // SAFETY: sixteen octets, checked above; the call copies them.
      unsafe clinux_address_v6(&raw, buffer.baseAddress!, port, scope)
    }
    self.raw = raw
  }

  /// ENAMETOOLONG above 107 bytes. A name that begins with NUL is abstract.
  public init(unixPath path: ByteString) throws(SystemError) {
    var raw = clinux_address()
    let bytes = path.bytes + [0]
    _ = try checked(
      unsafe bytes.withUnsafeBufferPointer { buffer in
        // SAFETY: the count given is that of the path, without the byte added above.
        unsafe clinux_address_unix(&raw, buffer.baseAddress!, buffer.count - 1)
      })
    self.raw = raw
  }

  public var family: CInt { CInt(raw.storage.ss_family) }

  /// `192.0.2.1:10809`, `[2001:db8::1]:10809` or `unix:PATH`.
  public var text: ByteString {
    var buffer = [UInt8](repeating: 0, count: 160)
    var copy = raw
    let count = unsafe buffer.withUnsafeMutableBytes { bytes in
      // SAFETY: the array's own storage; snprintf(3) cuts at its count.
      unsafe clinux_address_text(
        &copy, bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
    }
    return ByteString(buffer[..<min(max(0, Int(count)), buffer.count - 1)])
  }
}

/// The index of an interface by its name; nil when this machine has none of that name.
public func interfaceIndex(named name: ByteString) -> UInt32? {
  guard !name.isEmpty, name.count < 16 else { return nil }
  // SAFETY: a terminated copy.
  let index = try? unsafe withCString(name) { Int64(unsafe clinux_interface_index($0)) }
  guard let index, index > 0 else { return nil }
  return UInt32(truncatingIfNeeded: index)
}

// SPDX-License-Identifier: Apache-2.0
public import CLinux
public import WireFormat

/// An address that a stream can be connected to. Holds what connect(2) takes.
public struct SocketAddress: Sendable {
  /// The address and its length, as the shims have them.
  public let raw: clinux_address

  /// As a shim has filled it.
  public init(raw: clinux_address) { self.raw = raw }

  /// `octets` in network order; traps unless there are four.
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

  /// AF_INET, AF_INET6 or AF_UNIX.
  public var family: CInt { CInt(raw.storage.ss_family) }

  /// InfiniBand's own addresses, which have no constant in every libc. Source: `AF_IB` in Linux
  /// `include/linux/socket.h`.
  public static let infiniBandFamily: CInt = 27

  /// `192.0.2.1:10809`, `[2001:db8::1]:10809`, `unix:PATH` or `gid:` and 32 digits.
  public var text: ByteString {
    if family == Self.infiniBandFamily {
      var text: ByteString = "gid:"
      for byte in bytes.dropFirst(8).prefix(16) {
        text += ByteString((byte < 16 ? "0" : "") + String(byte, radix: 16))
      }
      return text
    }
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

extension SocketAddress {
  /// A path of this machine or an abstract name, without TCP's options.
  public var isUnix: Bool { family == CInt(clinux_AF_UNIX) }

  /// The address without its brackets, and the port; a path and 0 for a Unix socket, all of it and 0
  /// for a GID.
  public var hostAndPort: (host: ByteString, port: UInt16) {
    let text = text
    guard !isUnix, family != Self.infiniBandFamily, let colon = text.bytes.lastIndex(of: 0x3a)
    else {
      return (text.dropping(prefix: "unix:") ?? text, 0)
    }
    let port = ByteString(text.bytes[(colon + 1)...]).decimal(maximum: 65_535) ?? 0
    var host = text.bytes[..<colon]
    if host.first == 0x5b, host.last == 0x5d { host = host.dropFirst().dropLast() }
    return (ByteString(host), UInt16(port))
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

extension SocketAddress {
  /// What connect(2) takes, for a file that another process of this machine reads.
  public var bytes: [UInt8] {
    var copy = raw
    let count = min(Int(copy.byte_count), MemoryLayout.size(ofValue: copy.storage))
    return unsafe withUnsafeBytes(of: &copy.storage) { storage in
      // SAFETY: the copy's own bytes, no more than it has.
      unsafe Array(storage.prefix(count))
    }
  }

  /// Nil for more bytes than an address has, or for a family that is not used here.
  public init?(bytes: [UInt8]) {
    var raw = clinux_address()
    guard bytes.count >= 2, bytes.count <= MemoryLayout.size(ofValue: raw.storage) else {
      return nil
    }
    unsafe withUnsafeMutableBytes(of: &raw.storage) { storage in
      // SAFETY: the array is no longer than the storage.
      unsafe storage.copyBytes(from: bytes)
    }
    raw.byte_count = UInt32(bytes.count)
    self.raw = raw
    let families = [
      CInt(clinux_AF_INET), CInt(clinux_AF_INET6), CInt(clinux_AF_UNIX), Self.infiniBandFamily,
    ]
    guard families.contains(family) else { return nil }
  }
}

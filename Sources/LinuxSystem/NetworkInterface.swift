// SPDX-License-Identifier: Apache-2.0
import CLinux
public import WireFormat

/// A network interface of this machine, and the prefix of the address that it was found by.
public struct NetworkInterface: Equatable, Sendable {
  /// At most 15 bytes, whatever bytes the kernel allowed in it.
  public var name: ByteString
  /// 6 bytes for Ethernet; none when the interface has none, or one longer than 8 (InfiniBand).
  public var hardwareAddress: [UInt8]
  /// Of the address: 0 to 32, or 128 for IPv6.
  public var prefixLength: UInt8

  public init(name: ByteString, hardwareAddress: [UInt8], prefixLength: UInt8) {
    self.name = name
    self.hardwareAddress = hardwareAddress
    self.prefixLength = prefixLength
  }

  /// The interface that holds an address of ours, as getsockname(2) gives it for a connected
  /// socket. ENODEV when none does, EAFNOSUPPORT for an address that is not IP.
  public init(holding local: SocketAddress) throws(SystemError) {
    var found = clinux_interface()
    var address = local.raw
    // SAFETY: two structures of ours; the call reads one and fills the other.
    _ = try checked(unsafe clinux_interface_holding(&address, &found))
    var name: [UInt8] = []
    unsafe withUnsafeBytes(of: &found.name) { raw in
      // SAFETY: the bytes of an array inside the structure, read up to its terminating zero.
      for index in 0..<raw.count {
        let byte = unsafe raw[index]
        if byte == 0 { break }
        name.append(byte)
      }
    }
    var hardware: [UInt8] = []
    let count = min(8, Int(found.hardware_byte_count))
    unsafe withUnsafeBytes(of: &found.hardware_address) { raw in
      // SAFETY: as above; eight bytes, of which `count` are set.
      for index in 0..<count { hardware.append(unsafe raw[index]) }
    }
    self.init(
      name: ByteString(name), hardwareAddress: hardware,
      prefixLength: UInt8(truncatingIfNeeded: found.prefix_length))
  }

  /// `52:54:00:12:34:56`; empty when there is no hardware address.
  public var hardwareText: ByteString {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in hardwareAddress {
      if !text.isEmpty { text.append(0x3a) }
      text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    }
    return ByteString(text)
  }
}

/// Takes the lifetime from an address of ours, which a DHCP client gave it: nobody renews the lease
/// of a root, and the kernel would remove the address when the lease ends. An address that has no
/// lifetime stays as it is. ENODEV when this machine does not have it.
public func keepAddress(_ local: SocketAddress) throws(SystemError) {
  var address = local.raw
  // SAFETY: a structure of ours that the call reads.
  _ = try checked(unsafe clinux_keep_address(&address))
}

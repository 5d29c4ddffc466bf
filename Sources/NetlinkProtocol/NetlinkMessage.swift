// SPDX-License-Identifier: Apache-2.0
// The frame of everything that travels over netlink: a header of 16 bytes and a payload, padded to
// 4 bytes, several of them in one datagram. All integers are in the byte order of this machine.

public import WireFormat

/// One netlink message. Source: `struct nlmsghdr` in Linux `include/uapi/linux/netlink.h`.
public struct NetlinkMessage: Equatable, Sendable {
  public static let headerByteCount = 16
  /// More than any answer that is asked for here; one receive buffer holds it.
  public static let datagramByteCountMaximum = 65_536

  /// Types below 16 belong to netlink itself, the others to families. Source: netlink.h.
  public enum Control {
    public static let nothing: UInt16 = 1  // NLMSG_NOOP.
    public static let error: UInt16 = 2  // NLMSG_ERROR: success, too, with the errno 0.
    public static let done: UInt16 = 3  // NLMSG_DONE: the end of a dump.
    public static let overrun: UInt16 = 4  // NLMSG_OVERRUN.
  }

  /// The meaning of the upper byte depends on the type. Source: `NLM_F_*`.
  public struct Flags: OptionSet, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    public static let request = Flags(rawValue: 0x1)  // In all that goes to the kernel.
    public static let multipart = Flags(rawValue: 0x2)  // More follow, up to `done`.
    public static let acknowledge = Flags(rawValue: 0x4)  // Answer with an error message, 0 or not.
    /// In an error message: the request is not repeated behind its header.
    public static let capped = Flags(rawValue: 0x100)
    /// In an error message: attributes follow that say more.
    public static let errorAttributes = Flags(rawValue: 0x200)
  }

  /// Below 16 one of `Control`, else the family's.
  public var type: UInt16
  public var flags: Flags
  /// Drawn by who asks; every answer carries it again.
  public var sequence: UInt32
  /// The netlink address of the sender's socket; 0 is the kernel.
  public var port: UInt32
  /// Without padding. Indices are those of the datagram: they do not begin at 0.
  public var payload: ArraySlice<UInt8>

  public init(
    type: UInt16, flags: Flags, sequence: UInt32, port: UInt32 = 0, payload: [UInt8]
  ) {
    self.type = type
    self.flags = flags
    self.sequence = sequence
    self.port = port
    self.payload = payload[...]
  }

  /// Header and payload, padded to 4 bytes.
  public var encoded: [UInt8] {
    precondition(
      payload.count <= Self.datagramByteCountMaximum - Self.headerByteCount,
      "a netlink message of ours is short")
    var bytes: [UInt8] = []
    bytes.append(native: UInt32(Self.headerByteCount + payload.count))
    bytes.append(native: type)
    bytes.append(native: flags.rawValue)
    bytes.append(native: sequence)
    bytes.append(native: port)
    bytes.append(contentsOf: payload)
    while !bytes.count.isMultiple(of: 4) { bytes.append(0) }
    return bytes
  }

  /// The messages of one datagram, in order. A length that does not fit refuses the datagram.
  public static func decode(datagram: [UInt8]) throws(WireError) -> [NetlinkMessage] {
    guard datagram.count <= datagramByteCountMaximum else {
      throw .limit(
        field: "netlink datagram", maximum: UInt64(datagramByteCountMaximum),
        actual: UInt64(datagram.count))
    }
    var messages: [NetlinkMessage] = []
    var offset = 0
    while offset < datagram.count {
      let left = datagram.count - offset
      guard left >= headerByteCount else {
        throw .byteCount(expected: headerByteCount, actual: left)
      }
      let span = datagram.span
      let byteCount = Int(span.native(UInt32.self, at: offset))
      guard byteCount >= headerByteCount else {
        throw .value(field: "netlink message length", actual: UInt64(byteCount))
      }
      guard byteCount <= left else { throw .byteCount(expected: byteCount, actual: left) }
      var message = NetlinkMessage(
        type: span.native(UInt16.self, at: offset + 4),
        flags: Flags(rawValue: span.native(UInt16.self, at: offset + 6)),
        sequence: span.native(UInt32.self, at: offset + 8),
        port: span.native(UInt32.self, at: offset + 12), payload: [])
      message.payload = datagram[(offset + headerByteCount)..<(offset + byteCount)]
      messages.append(message)
      offset = min(offset + (byteCount + 3) & ~3, datagram.count)
    }
    return messages
  }
}

// SPDX-License-Identifier: Apache-2.0
// RECONFIGURE, made beforehand for a process that must not allocate when it is needed.

import WireFormat

/// One complete netlink message; the sequence number and the socket are filled in each time.
public struct PreparedReconfiguration: Sendable {
  /// To be sent as they are, once `set` was called.
  public private(set) var bytes: [UInt8]
  private let socketOffset: Int?

  /// `takesSocket`: hands one socket over. Allocates; `set` does not.
  public init(
    family: UInt16, index: UInt32, timeoutSeconds: UInt64?, deadTimeoutSeconds: UInt64?,
    takesSocket: Bool, backendIdentifier: ByteString?
  ) {
    let placeholder: UInt32 = 0x7f6e_5d4c
    let message = NBDReconfigureMessage(
      index: index, timeoutSeconds: timeoutSeconds, deadTimeoutSeconds: deadTimeoutSeconds,
      sockets: takesSocket ? [placeholder] : [], backendIdentifier: backendIdentifier)
    let bytes =
      NetlinkMessage(
        type: family, flags: [.request, .acknowledge], sequence: 0, payload: message.payload
      ).encoded
    var found: Int?
    if takesSocket {
      var offset = 0
      while offset + 4 <= bytes.count, found == nil {
        if bytes.span.native(UInt32.self, at: offset) == placeholder { found = offset }
        offset += 4
      }
    }
    self.bytes = bytes
    socketOffset = found
  }

  /// `socket` is a descriptor number, and counts where the message hands one over. Allocates
  /// nothing.
  public mutating func set(sequence: UInt32, socket: CInt = -1) {
    put(sequence, at: 8)  // nlmsg_seq
    if let socketOffset { put(UInt32(bitPattern: socket), at: socketOffset) }
  }

  private mutating func put(_ value: UInt32, at offset: Int) {
    for index in 0..<4 {
      #if _endian(little)
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(index * 8))
      #else
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(24 - index * 8))
      #endif
    }
  }
}

extension NetlinkMessage {
  /// The errno with which the kernel acknowledges `sequence` in this datagram, 0 for success; nil
  /// when it holds no acknowledgement of it. Allocates nothing.
  public static func acknowledgement(of sequence: UInt32, in datagram: Span<UInt8>) -> CInt? {
    var offset = 0
    while offset + 20 <= datagram.count {
      let byteCount = Int(datagram.native(UInt32.self, at: offset))
      guard byteCount >= 16, byteCount <= datagram.count - offset else { return nil }
      if datagram.native(UInt16.self, at: offset + 4) == Control.error, byteCount >= 20,
        datagram.native(UInt32.self, at: offset + 8) == sequence
      {
        let error = CInt(bitPattern: datagram.native(UInt32.self, at: offset + 16))
        return 0 &- error
      }
      offset += (byteCount + 3) / 4 * 4
    }
    return nil
  }
}

extension NBDFamily {
  /// Whether the datagram is the event that a connection of this device has died. Allocates nothing.
  public static func isLinkDead(of index: UInt32, _ datagram: Span<UInt8>) -> Bool {
    // nlmsghdr 16, genlmsghdr 4, then attributes; the kernel sends one event a datagram.
    guard datagram.count >= 28, datagram[16] == Command.linkDead else { return false }
    var offset = 20
    while offset + 8 <= datagram.count {
      let byteCount = Int(datagram.native(UInt16.self, at: offset))
      guard byteCount >= 4, byteCount <= datagram.count - offset else { return false }
      if datagram.native(UInt16.self, at: offset + 2) & 0x3fff == Attribute.index, byteCount == 8 {
        return datagram.native(UInt32.self, at: offset + 4) == index
      }
      offset += (byteCount + 3) / 4 * 4
    }
    return false
  }
}

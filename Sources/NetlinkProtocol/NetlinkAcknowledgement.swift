// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// How the kernel ends every request that asked for it: 0 or an errno, perhaps with a sentence.
/// Source: `struct nlmsgerr` and `enum nlmsgerr_attrs` in Linux `include/uapi/linux/netlink.h`.
public struct NetlinkAcknowledgement: Equatable, Sendable {
  /// Positive; 0 is success.
  public let errno: Int32
  /// The kernel's own words ("extended acknowledgement"), when it has any.
  public let text: ByteString?
  /// Where in the request the offending attribute begins.
  public let offset: UInt32?

  public var isSuccess: Bool { errno == 0 }

  /// `message` must have the type `Control.error`.
  public init(decoding message: NetlinkMessage) throws(WireError) {
    guard message.type == NetlinkMessage.Control.error else {
      throw .value(field: "netlink message type", actual: UInt64(message.type))
    }
    let payload = message.payload
    // The errno, then the header of the request, then its payload unless capped or a success.
    let fixed = 4 + NetlinkMessage.headerByteCount
    guard payload.count >= fixed else {
      throw .byteCount(expected: fixed, actual: payload.count)
    }
    let span = payload.span
    let negated = Int32(bitPattern: span.native(UInt32.self, at: 0))
    guard negated <= 0, negated > Self.errnoLimit else {
      throw .value(field: "netlink error", actual: UInt64(UInt32(bitPattern: negated)))
    }
    errno = 0 - negated
    guard message.flags.contains(.errorAttributes) else {
      text = nil
      offset = nil
      return
    }
    var skipped = fixed
    if !message.flags.contains(.capped) {
      let repeated = Int(span.native(UInt32.self, at: 4))
      guard repeated >= NetlinkMessage.headerByteCount, repeated <= payload.count - 4 else {
        throw .value(field: "length of the repeated request", actual: UInt64(repeated))
      }
      skipped = min(4 + (repeated + 3) & ~3, payload.count)
    }
    let attributes = try NetlinkAttribute.decode(payload.dropFirst(skipped))
    text = attributes.last(1)?.text
    offset = try Self.offset(attributes)
  }

  private static func offset(_ attributes: [NetlinkAttribute]) throws(WireError) -> UInt32? {
    guard let attribute = attributes.last(2) else { return nil }
    return try attribute.integer(UInt32.self)
  }

  /// Source: `MAX_ERRNO` in Linux `include/linux/err.h`.
  private static let errnoLimit: Int32 = -4096
}

// SPDX-License-Identifier: Apache-2.0
// The stream of requests that the kernel's nbd driver sends to a server that does nothing but
// refuse. Payload of writes is passed over.

import LinuxSystem
import NBDProtocol
import WireFormat

/// Fed in pieces of any size; allocates nothing.
struct RefusedRequests {
  enum Event: Equatable {
    /// All bytes are used up.
    case needsMore
    /// To be answered with an error.
    case refused(cookie: UInt64)
    /// The driver has ended the connection, or what it sends are no requests.
    case ended
  }
  /// Source: NBD `doc/proto.md`, "Request message".
  private static let headerByteCount = 28

  private var header = InlineArray<28, UInt8>(repeating: 0)
  private var headerCount = 0
  private var skippedByteCount = 0

  mutating func next(_ bytes: Span<UInt8>, at position: inout Int) -> Event {
    while position < bytes.count {
      if skippedByteCount > 0 {
        let count = min(skippedByteCount, bytes.count - position)
        skippedByteCount -= count
        position += count
        if skippedByteCount == 0 { return .refused(cookie: cookie) }
        continue
      }
      header[headerCount] = bytes[position]
      headerCount += 1
      position += 1
      guard headerCount == Self.headerByteCount else { continue }
      headerCount = 0
      let fields = header.span
      guard fields.bigEndian(UInt32.self, at: 0) == Request.magic else { return .ended }
      switch fields.bigEndian(UInt16.self, at: 6) {
      case CommandCode.disconnect.rawValue: return .ended
      case CommandCode.write.rawValue:
        skippedByteCount = Int(fields.bigEndian(UInt32.self, at: 24))
        if skippedByteCount > 0 { continue }
      default: break
      }
      return .refused(cookie: cookie)
    }
    return .needsMore
  }

  private var cookie: UInt64 { header.span.bigEndian(UInt64.self, at: 8) }

  /// Puts the reply to one of them into the first 16 bytes: EIO. Source: as above, "Simple reply
  /// message".
  static func reply(to cookie: UInt64, into bytes: inout InlineArray<16, UInt8>) {
    func put(_ value: UInt64, _ count: Int, at offset: Int) {
      for index in 0..<count {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64((count - 1 - index) * 8))
      }
    }
    put(UInt64(SimpleReply.magic), 4, at: 0)
    put(UInt64(ErrorNumber.eio.rawValue), 4, at: 4)
    put(cookie, 8, at: 8)
  }
}

// SPDX-License-Identifier: Apache-2.0
// One message and the bytes that it is; the type is hidden so that one table holds them all.

import WireFormat

public struct MessageVector: CustomStringConvertible, Sendable {
  public let description: String
  public let wire: [UInt8]
  /// Ranges of bits, counted from the first byte, any change in which must be refused.
  public let constantBits: [Range<Int>]
  /// Decodes; whether that gave the value, and what it is encoded as.
  public let roundTrip: @Sendable ([UInt8]) throws -> (isValue: Bool, encoded: [UInt8])

  public init<Message: WireEncodable & Equatable & Sendable, Failure: Error>(
    _ name: String, _ wire: String, constantBits: [Range<Int>] = [], _ value: Message,
    _ decode: @escaping @Sendable (Span<UInt8>) throws(Failure) -> Message
  ) {
    description = name
    self.wire = bytes(wire)
    self.constantBits = constantBits
    roundTrip = { wire in
      let decoded = try decode(wire.span)
      let encoded = decoded.encoded
      precondition(encoded.count == decoded.encodedByteCount, "an encoder counts its bytes")
      return (decoded == value, encoded)
    }
  }
}

/// Hexadecimal digits of zero bytes.
public func zeroes(_ count: Int) -> String { String(repeating: "00", count: count) }

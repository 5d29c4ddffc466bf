// SPDX-License-Identifier: Apache-2.0
// The flags that both sides exchange before the first option.
// Source: NBD `doc/proto.md`, "Handshake flags" and "Client flags".

import WireFormat

/// What the server offers; a client ignores the bits that have no name here.
public struct HandshakeFlags: OptionSet, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// Options other than EXPORT_NAME get proper replies.
  public static let fixedNewstyle = HandshakeFlags(rawValue: 1 << 0)
  /// The padding behind the answer to EXPORT_NAME may be left out.
  public static let noZeroes = HandshakeFlags(rawValue: 1 << 1)
}

/// What the client takes of the offer.
public struct ClientFlags: OptionSet, Sendable, WireEncodable {
  /// Of the only message in which they are sent; the server owes it no answer.
  public static let byteCount = 4

  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The client sends options other than EXPORT_NAME. Only where the server offered it.
  public static let fixedNewstyle = ClientFlags(rawValue: 1 << 0)
  /// The client wants no padding after EXPORT_NAME. Only where the server offered it.
  public static let noZeroes = ClientFlags(rawValue: 1 << 1)

  /// Everything that `offer` allows a client to set.
  public init(accepting offer: HandshakeFlags) {
    var flags: ClientFlags = []
    if offer.contains(.fixedNewstyle) { flags.insert(.fixedNewstyle) }
    if offer.contains(.noZeroes) { flags.insert(.noZeroes) }
    self = flags
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) { output.append(bigEndian: rawValue) }
}

// SPDX-License-Identifier: Apache-2.0
// The first bytes of a connection, from the server.

import WireFormat

/// All big-endian. Source: NBD `doc/proto.md`, "Newstyle negotiation".
public struct ServerGreeting: Equatable, Sendable, WireEncodable {
  /// Of the whole greeting.
  public static let byteCount = 18
  /// "NBDMAGIC".
  public static let magic: UInt64 = 0x4e42_444d_4147_4943
  /// "IHAVEOPT", where an oldstyle server has `oldstyleMagic`.
  public static let optionMagic: UInt64 = 0x4948_4156_454f_5054
  /// Second word of a server that negotiates nothing: obsolete, recognized so that it can be named.
  public static let oldstyleMagic: UInt64 = 0x0000_4202_8186_1253
  /// IANA's port for NBD.
  public static let defaultPort: UInt16 = 10809

  /// What the server offers; bits without a name are kept.
  public var flags: HandshakeFlags

  public init(flags: HandshakeFlags) { self.flags = flags }

  /// A wrong magic is thrown as the peer sent it: `oldstyleMagic` says what kind of server it is.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt64.self, at: 0)
    guard magic == Self.magic else { throw .magic(expected: Self.magic, actual: magic) }
    let style = bytes.bigEndian(UInt64.self, at: 8)
    guard style == Self.optionMagic else {
      throw .magic(expected: Self.optionMagic, actual: style)
    }
    flags = HandshakeFlags(rawValue: bytes.bigEndian(UInt16.self, at: 16))
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: Self.optionMagic)
    output.append(bigEndian: flags.rawValue)
  }
}

// SPDX-License-Identifier: Apache-2.0
// The head of one reply to an option, from the server; EXPORT_NAME has no such reply.

import WireFormat

/// All big-endian; `dataByteCount` bytes follow. Source: NBD `doc/proto.md`, "Newstyle negotiation".
public struct OptionReplyHeader: Equatable, Sendable, WireEncodable {
  /// Of the header without its data.
  public static let byteCount = 20
  /// Source: NBD `doc/proto.md`, "Newstyle negotiation".
  public static let magic: UInt64 = 0x0003_e889_0455_65a9
  /// No valid reply comes near it: the longest holds two strings of 4096 bytes.
  public static let dataByteCountMaximum: UInt32 = 65536

  /// The one that is answered; a reply to another than was sent breaks the protocol.
  public var option: OptionCode
  /// A number without a name here is kept: `isError` says how to take it.
  public var type: OptionReplyType
  /// At most `dataByteCountMaximum` when it was decoded.
  public var dataByteCount: UInt32

  public init(option: OptionCode, type: OptionReplyType, dataByteCount: UInt32) {
    self.option = option
    self.type = type
    self.dataByteCount = dataByteCount
  }

  /// Refuses a length above `dataByteCountMaximum`.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt64.self, at: 0)
    guard magic == Self.magic else { throw .magic(expected: Self.magic, actual: magic) }
    option = OptionCode(rawValue: bytes.bigEndian(UInt32.self, at: 8))
    type = OptionReplyType(rawValue: bytes.bigEndian(UInt32.self, at: 12))
    dataByteCount = bytes.bigEndian(UInt32.self, at: 16)
    guard dataByteCount <= Self.dataByteCountMaximum else {
      throw .limit(
        field: "option reply length", maximum: UInt64(Self.dataByteCountMaximum),
        actual: UInt64(dataByteCount))
    }
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: option.rawValue)
    output.append(bigEndian: type.rawValue)
    output.append(bigEndian: dataByteCount)
  }
}

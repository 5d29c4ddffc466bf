// SPDX-License-Identifier: Apache-2.0
// The head of an option from the client.

import WireFormat

/// All big-endian; `dataByteCount` bytes follow. Source: NBD `doc/proto.md`, "Newstyle negotiation".
public struct OptionHeader: Equatable, Sendable, WireEncodable {
  /// Of the header without its data.
  public static let byteCount = 16
  /// "IHAVEOPT".
  public static let magic = ServerGreeting.optionMagic

  /// A number without a name here is kept, for the server to answer ERR_UNSUP.
  public var option: OptionCode
  /// As the client says: nothing may be allocated by it before it has met a limit.
  public var dataByteCount: UInt32

  public init(option: OptionCode, dataByteCount: UInt32) {
    self.option = option
    self.dataByteCount = dataByteCount
  }

  /// Takes exactly `byteCount` bytes. A wrong magic means that the peer does not speak NBD.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt64.self, at: 0)
    guard magic == Self.magic else { throw .magic(expected: Self.magic, actual: magic) }
    option = OptionCode(rawValue: bytes.bigEndian(UInt32.self, at: 8))
    dataByteCount = bytes.bigEndian(UInt32.self, at: 12)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: option.rawValue)
    output.append(bigEndian: dataByteCount)
  }
}

// SPDX-License-Identifier: Apache-2.0
// The end of one command.

import WireFormat

/// All big-endian; a READ that succeeded is followed by exactly the bytes asked for.
/// Source: NBD `doc/proto.md`, "Simple reply message".
public struct SimpleReply: Equatable, Sendable, WireEncodable {
  /// Of the reply without the data of a READ.
  public static let byteCount = 16
  /// NBD_SIMPLE_REPLY_MAGIC.
  public static let magic: UInt32 = 0x6744_6698

  /// With any but `none` no data follow, whatever the command was.
  public var error: ErrorNumber
  /// As sent in the request.
  public var cookie: UInt64

  public init(error: ErrorNumber, cookie: UInt64) {
    self.error = error
    self.cookie = cookie
  }

  /// Takes exactly `byteCount` bytes. A wrong magic means that the stream has lost its frame.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt32.self, at: 0)
    guard magic == Self.magic else {
      throw .magic(expected: UInt64(Self.magic), actual: UInt64(magic))
    }
    error = ErrorNumber(rawValue: bytes.bigEndian(UInt32.self, at: 4))
    cookie = bytes.bigEndian(UInt64.self, at: 8)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: error.rawValue)
    output.append(bigEndian: cookie)
  }
}

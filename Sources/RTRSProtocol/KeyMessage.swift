// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// The new key of a chunk, with every answer of a server that refreshes its keys.
/// Source: `struct rtrs_msg_rkey_rsp`.
public struct KeyMessage: Equatable, Sendable, WireEncodable {
  /// Of the message.
  public static let byteCount = 8
  private static let type: UInt16 = 4

  /// The chunk that the immediate beside it names.
  public var chunk: UInt16
  /// For requests in the chunk from now on.
  public var key: UInt32

  public init(chunk: UInt16, key: UInt32) {
    self.chunk = chunk
    self.key = key
  }

  /// Takes exactly `byteCount` bytes; refuses another type of message.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == Self.type else { throw .value(field: "message type", actual: UInt64(type)) }
    chunk = bytes.littleEndian(UInt16.self, at: 2)
    key = bytes.littleEndian(UInt32.self, at: 4)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: Self.type)
    output.append(littleEndian: chunk)
    output.append(littleEndian: key)
  }
}

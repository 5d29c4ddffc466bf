// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Source: `struct rnbd_msg_close`.
public struct CloseRequest: Equatable, Sendable, WireEncodable {
  /// Of the message.
  public static let byteCount = 8

  /// The number that `OpenAnswer` gave it.
  public var device: UInt32

  public init(device: UInt32) { self.device = device }

  /// Takes exactly `byteCount` bytes; refuses another type of message.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == MessageType.close else {
      throw .value(field: "message type", actual: UInt64(type))
    }
    device = bytes.littleEndian(UInt32.self, at: 4)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: MessageType.close)
    output.append(zeroes: 2)
    output.append(littleEndian: device)
  }
}

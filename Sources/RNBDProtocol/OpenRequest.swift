// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Source: `struct rnbd_msg_open`. What IBNBD had in byte 5, the I/O mode, is reserved today.
public struct OpenRequest: Equatable, Sendable, WireEncodable {
  /// Of the message.
  public static let byteCount = 264
  private static let nameFieldByteCount = 255

  /// What the device is to be opened for.
  public var accessMode: AccessMode
  /// Within what the server offers.
  public var name: DeviceName

  public init(_ name: DeviceName, _ accessMode: AccessMode) {
    self.name = name
    self.accessMode = accessMode
  }

  /// Garbage may follow the name: Linux does not clear the field.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == MessageType.open else {
      throw .value(field: "message type", actual: UInt64(type))
    }
    guard let mode = AccessMode(rawValue: bytes[4]) else {
      throw .value(field: "access mode", actual: UInt64(bytes[4]))
    }
    accessMode = mode
    name = try DeviceName(
      bytes.terminatedText(at: 6, fieldByteCount: Self.nameFieldByteCount, field: "device name"))
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: MessageType.open)
    output.append(zeroes: 2)
    output.append(accessMode.rawValue)
    output.append(0)
    output.append(bytes: name.text.bytes)
    output.append(zeroes: Self.nameFieldByteCount - name.text.count + 3)
  }
}

// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// The name that a client gives a device: a path within what the server offers.
public struct DeviceName: Equatable, Sendable {
  /// Source: `dev_name` in `struct rnbd_msg_open`, NAME_MAX bytes with a NUL.
  public static let byteCountMaximum = 254

  /// Not empty, at most `byteCountMaximum` bytes, without NUL and `..`.
  public let text: ByteString

  /// Not empty, without NUL, and without `..` anywhere, as Linux's server has it: a name leads
  /// nowhere but down. Source: `process_msg_open` in `rnbd-srv.c`.
  public init(_ text: ByteString) throws(WireError) {
    guard !text.isEmpty else { throw .value(field: "length of the device name", actual: 0) }
    guard text.count <= Self.byteCountMaximum else {
      throw .limit(
        field: "length of the device name", maximum: UInt64(Self.byteCountMaximum),
        actual: UInt64(text.count))
    }
    var previous: UInt8 = 0x2f
    for byte in text.bytes {
      if byte == 0 || byte == 0x2e && previous == 0x2e {
        throw .value(field: "byte in the device name", actual: UInt64(byte))
      }
      previous = byte
    }
    self.text = text
  }
}

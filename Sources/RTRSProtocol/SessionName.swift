// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// The name of a session: on a server no two have the same, and its devices may lie in a directory
/// of that name. Nothing outside of it can be named with it.
public struct SessionName: Equatable, Sendable {
  /// Source: `pathname` in `struct rtrs_msg_info_req`, NAME_MAX bytes with a NUL.
  public static let byteCountMaximum = 254

  /// Not empty, at most `byteCountMaximum` bytes, without `/`, `.` and NUL.
  public let text: ByteString

  /// Not empty (Linux 6.12 loses count of its references over an empty one), without `/`, `.`
  /// and NUL. Source: `process_info_req` in `rtrs-srv.c`.
  public init(_ text: ByteString) throws(WireError) {
    guard !text.isEmpty else { throw .value(field: "length of the session name", actual: 0) }
    guard text.count <= Self.byteCountMaximum else {
      throw .limit(
        field: "length of the session name", maximum: UInt64(Self.byteCountMaximum),
        actual: UInt64(text.count))
    }
    for byte in text.bytes where byte == 0 || byte == 0x2f || byte == 0x2e {
      throw .value(field: "byte in the session name", actual: UInt64(byte))
    }
    self.text = text
  }
}

// SPDX-License-Identifier: Apache-2.0
// The strings of the protocol: export names, descriptions, error texts. Counted, never terminated.

import WireFormat

/// Source: NBD `doc/proto.md`, "Values": UTF-8 without NUL, at most 4096 bytes.
public enum ExportString {
  /// Of every string; a longer one is refused, sent or received.
  public static let byteCountMaximum = 4096

  /// Copies `range` of `bytes` after its length and its bytes have been looked at. `range` lies
  /// inside `bytes`.
  static func decode(
    _ bytes: Span<UInt8>, _ range: Range<Int>, field: StaticFieldName
  ) throws(WireError) -> ByteString {
    guard range.count <= byteCountMaximum else {
      throw .limit(
        field: field, maximum: UInt64(byteCountMaximum), actual: UInt64(range.count))
    }
    let text = bytes.extracting(range)
    for index in text.indices where text[index] == 0 {
      throw .value(field: field, actual: 0)
    }
    return ByteString(copying: text)
  }

  /// True for what may be sent as a name: short enough and without NUL.
  public static func isValid(_ text: ByteString) -> Bool {
    text.count <= byteCountMaximum && !text.bytes.contains(0)
  }
}

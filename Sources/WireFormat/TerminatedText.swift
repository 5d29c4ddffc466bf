// SPDX-License-Identifier: Apache-2.0
extension Span where Element == UInt8 {
  /// The bytes before the first NUL of a field of fixed size; what follows it means nothing. The
  /// field must lie within the span, and end with a NUL before it ends.
  public func terminatedText(
    at offset: Int, fieldByteCount: Int, field: StaticFieldName
  ) throws(WireError) -> ByteString {
    for index in offset..<(offset + fieldByteCount) where self[index] == 0 {
      return ByteString(copying: extracting(offset..<index))
    }
    throw .limit(
      field: field, maximum: UInt64(fieldByteCount - 1), actual: UInt64(fieldByteCount))
  }
}

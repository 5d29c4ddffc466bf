// SPDX-License-Identifier: Apache-2.0
// What every message can do: say how long it is and append itself. Decoders are initializers,
// `init(decoding:) throws(WireError)`, that take exactly the bytes of one message.

/// A message with a layout of its own. Encoding cannot fail and takes no memory; the room in the
/// output is the caller's to provide.
public protocol WireEncodable {
  /// How many bytes `encode` appends.
  var encodedByteCount: Int { get }
  func encode(into output: inout OutputSpan<UInt8>)
}

extension WireEncodable {
  /// The message as an array of its own.
  public var encoded: [UInt8] {
    [UInt8](capacity: encodedByteCount) { output in encode(into: &output) }
  }
}

extension Array where Element == UInt8 {
  /// Appends the message, and grows by exactly its `encodedByteCount`.
  public mutating func append(encoding message: some WireEncodable) {
    append(addingCapacity: message.encodedByteCount) { output in message.encode(into: &output) }
  }
}

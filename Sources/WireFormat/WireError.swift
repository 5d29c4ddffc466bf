// SPDX-License-Identifier: Apache-2.0

/// Why bytes are not the message that they should be. Decoding refuses and never repairs.
public enum WireError: Error, Equatable, Sendable {
  /// So many bytes came; `expected` is the least, or the only number, that the message can have.
  case byteCount(expected: Int, actual: Int)
  /// The number by which a message is known is another one: the peer speaks something else.
  case magic(expected: UInt64, actual: UInt64)
  /// A field holds a value that the specification does not allow there.
  case value(field: StaticFieldName, actual: UInt64)
  /// A length or count from outside is above its limit.
  case limit(field: StaticFieldName, maximum: UInt64, actual: UInt64)
}

/// The name of a field, for error texts; a literal of ours, never text from outside.
public struct StaticFieldName: Equatable, Sendable, ExpressibleByStringLiteral {
  /// For a sentence of `WireError.reason`.
  public let text: String
  public init(stringLiteral text: String) { self.text = text }
  public static func == (left: Self, right: Self) -> Bool {
    left.text.utf8.elementsEqual(right.text.utf8)
  }
}

extension WireError {
  /// One clause for people, with the values seen and without advice.
  public var reason: String {
    switch self {
    case .byteCount(let expected, let actual): "\(actual) bytes where \(expected) belong"
    case .magic(let expected, let actual):
      "0x\(String(actual, radix: 16)) where 0x\(String(expected, radix: 16)) belongs"
    case .value(let field, let actual): "\(field.text) is \(actual)"
    case .limit(let field, let maximum, let actual):
      "\(field.text) is \(actual), above the limit of \(maximum)"
    }
  }
}

// SPDX-License-Identifier: Apache-2.0

/// The bytes of hexadecimal digits; blanks are skipped. For vectors copied from specifications.
public func bytes(_ hexadecimal: String) -> [UInt8] {
  let digits = hexadecimal.filter { !$0.isWhitespace }
  precondition(digits.count.isMultiple(of: 2), "an odd number of digits in a test vector")
  var result: [UInt8] = []
  var rest = Substring(digits)
  while !rest.isEmpty {
    guard let byte = UInt8(rest.prefix(2), radix: 16) else {
      preconditionFailure("not hexadecimal in a test vector: \(rest.prefix(2))")
    }
    result.append(byte)
    rest = rest.dropFirst(2)
  }
  return result
}

/// The first byte that is not what it should be. What `#expect(found == wanted)` does when long
/// arrays differ, the shortest way from one to the other, takes hours for a mebibyte.
public struct ByteDifference: Equatable, Sendable, CustomStringConvertible {
  public var offset: Int
  /// Nil at the end of the bytes that were found, or wanted.
  public var found: UInt8?
  public var wanted: UInt8?

  public var description: String {
    func text(_ byte: UInt8?) -> String { byte.map { "0x" + String($0, radix: 16) } ?? "the end" }
    return "\(text(found)) at byte \(offset), where \(text(wanted)) is right"
  }
}

/// Nil when the bytes are the same.
public func difference(of found: [UInt8], from wanted: [UInt8]) -> ByteDifference? {
  if found == wanted { return nil }
  let shorter = min(found.count, wanted.count)
  let offset = (0..<shorter).first { found[$0] != wanted[$0] } ?? shorter
  return ByteDifference(
    offset: offset, found: offset < found.count ? found[offset] : nil,
    wanted: offset < wanted.count ? wanted[offset] : nil)
}

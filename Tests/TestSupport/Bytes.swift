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

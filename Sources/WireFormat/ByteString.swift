// SPDX-License-Identifier: Apache-2.0
// Text from outside: a command line, a lease, an export name. It is bytes, compared as bytes and
// printed escaped. `String` is for what we say ourselves: comparing two of them does not link in
// Embedded Swift, and what a peer calls text need not be UTF-8.

/// Text as bytes; see the head of this file. Nothing is said of what they are: UTF-8, printable or
/// with a NUL.
public struct ByteString: Hashable, Sendable, ExpressibleByStringLiteral {
  public var bytes: [UInt8]

  public init() { bytes = [] }
  public init(_ bytes: [UInt8]) { self.bytes = bytes }
  public init(_ bytes: ArraySlice<UInt8>) { self.bytes = Array(bytes) }
  /// In UTF-8.
  public init(_ text: String) { bytes = Array(text.utf8) }
  public init(stringLiteral text: String) { bytes = Array(text.utf8) }
  /// For bytes that lie in a peer's message.
  public init(copying span: Span<UInt8>) {
    bytes = []
    bytes.reserveCapacity(span.count)
    for index in span.indices { bytes.append(span[index]) }
  }

  public var count: Int { bytes.count }
  public var isEmpty: Bool { bytes.isEmpty }

  public static func + (left: ByteString, right: ByteString) -> ByteString {
    ByteString(left.bytes + right.bytes)
  }
  public static func += (left: inout ByteString, right: ByteString) {
    left.bytes.append(contentsOf: right.bytes)
  }
}

extension ByteString {
  public func hasPrefix(_ prefix: ByteString) -> Bool { bytes.starts(with: prefix.bytes) }

  public func hasSuffix(_ suffix: ByteString) -> Bool {
    count >= suffix.count && bytes.suffix(suffix.count).elementsEqual(suffix.bytes)
  }

  /// Nil unless `self` begins with `prefix`; otherwise what follows it.
  public func dropping(prefix: ByteString) -> ByteString? {
    hasPrefix(prefix) ? ByteString(bytes.dropFirst(prefix.count)) : nil
  }

  /// The text before and after the first `separator`, or nil when there is none.
  public func cut(at separator: UInt8) -> (head: ByteString, tail: ByteString)? {
    guard let index = bytes.firstIndex(of: separator) else { return nil }
    return (ByteString(bytes[..<index]), ByteString(bytes[(index + 1)...]))
  }

  /// Every field between separators, empty ones too; one field when there is no separator.
  public func fields(separatedBy separator: UInt8) -> [ByteString] {
    bytes.split(separator: separator, omittingEmptySubsequences: false).map { ByteString($0) }
  }

  /// Without blanks, tabs and line ends at both ends.
  public var trimmed: ByteString {
    func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (byte >= 0x09 && byte <= 0x0d) }
    guard let first = bytes.firstIndex(where: { !isBlank($0) }),
      let last = bytes.lastIndex(where: { !isBlank($0) })
    else { return ByteString() }
    return ByteString(bytes[first...last])
  }

  /// ASCII letters made small; other bytes as they are.
  public var lowercasedASCII: ByteString {
    ByteString(bytes.map { $0 >= 0x41 && $0 <= 0x5a ? $0 | 0x20 : $0 })
  }

  /// ASCII digits, at least one.
  public var isAllDigits: Bool { !isEmpty && bytes.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } }

  /// The value of decimal digits and nothing else; nil for anything else or above `maximum`.
  public func decimal(maximum: UInt64 = .max) -> UInt64? {
    guard isAllDigits else { return nil }
    var value: UInt64 = 0
    for byte in bytes {
      let (tenfold, overflow) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = tenfold.addingReportingOverflow(UInt64(byte - 0x30))
      guard !overflow, !carry, sum <= maximum else { return nil }
      value = sum
    }
    return value
  }

  /// For people: printable ASCII as it is, everything else, `'` and `\` as `\xNN`. At most
  /// `limit` bytes of the text are shown, then `...`.
  public func printable(limit: Int) -> String {
    func isPlain(_ byte: UInt8) -> Bool {
      byte >= 0x20 && byte < 0x7f && byte != 0x27 && byte != 0x5c
    }
    // As a name mostly is.
    if count <= limit, bytes.allSatisfy(isPlain) { return String(decoding: bytes, as: UTF8.self) }
    var shown: [UInt8] = []
    for byte in bytes.prefix(limit) {
      if isPlain(byte) {
        shown.append(byte)
      } else {
        let digits = Array("0123456789abcdef".utf8)
        shown += [0x5c, 0x78, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      }
    }
    if count > limit { shown += [0x2e, 0x2e, 0x2e] }
    return String(decoding: shown, as: UTF8.self)
  }

  /// `printable(limit:)` with a limit that keeps a log line on one screen line or two.
  public var printable: String { printable(limit: 200) }
}

extension [ByteString] {
  /// For a message: with commas between.
  public var printableList: String {
    var text = ""
    for one in self { text += (text.isEmpty ? "" : ", ") + one.printable }
    return text
  }
}

// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing
import WireFormat

@Suite("A byte string")
struct ByteStringTests {
  static let numbers: [(ByteString, UInt64?)] = [
    ("0", 0), ("65535", 65535), ("65536", nil), ("", nil), ("1a", nil), ("-1", nil),
    ("99999999999999999999999", nil),
  ]

  @Test("is a number only when it is digits within the limit", arguments: numbers)
  func decimal(text: ByteString, value: UInt64?) {
    #expect(text.decimal(maximum: 65535) == value)
  }

  @Test("shows control characters and quotes escaped, and long text cut")
  func printable() {
    #expect(ByteString("a\u{1b}[2J'\\").printable == "a\\x1b[2J\\x27\\x5c")
    #expect(ByteString("abcdef").printable(limit: 3) == "abc...")
  }

  @Test("is cut at separators with empty fields kept")
  func fields() {
    #expect(ByteString("a,,b").fields(separatedBy: 0x2c) == ["a", "", "b"])
    #expect(ByteString("a=b=c").cut(at: 0x3d)?.tail == "b=c")
    #expect(ByteString("abc").cut(at: 0x3d) == nil)
  }
}

@Suite("Integers at offsets")
struct IntegerTests {
  @Test("are read in both byte orders without alignment")
  func orders() {
    let data = bytes("00 01020304 05060708")
    #expect(data.span.bigEndian(UInt32.self, at: 1) == 0x0102_0304)
    #expect(data.span.littleEndian(UInt64.self, at: 1) == 0x0807_0605_0403_0201)
    #expect(data.span.bigEndian(UInt16.self, at: 7) == 0x0708)
  }
}

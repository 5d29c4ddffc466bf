// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing
import WireFormat

@Suite("The JSON writer")
struct JSONWriterTests {
  @Test("puts commas and colons where they belong")
  func structure() {
    var writer = JSONWriter()
    writer.beginObject()
    writer.key("a")
    writer.beginArray()
    writer.number(Int64(-1))
    writer.beginObject()
    writer.endObject()
    writer.null()
    writer.endArray()
    writer.member("b", true)
    writer.member("c", ByteString("x"))
    writer.endObject()
    #expect(
      String(decoding: writer.bytes, as: UTF8.self) == #"{"a":[-1,{},null],"b":true,"c":"x"}"#)
  }

  /// Well-formed and not. Source: RFC 3629, section 4.
  static let texts: [[UInt8]] = [
    Array("plain".utf8), Array("\"\\/\u{8}\u{c}\n\r\t".utf8), Array("é€😀".utf8), [0], [0x1f, 0x7f],
    [0x80], [0xc0, 0x80], [0xc2], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80],
    [0xf0, 0x9f, 0x98], [0xff, 0x41], [0xe2, 0x82, 0x41],
  ]

  @Test("gives every reader the text that UTF-8 decoding gives", arguments: texts)
  func escaping(text: [UInt8]) throws {
    var writer = JSONWriter()
    writer.beginArray()
    writer.string(ByteString(text))
    writer.endArray()
    let read = try JSONSerialization.jsonObject(with: Data(writer.bytes)) as? [String]
    let isValid = String(validating: text, as: UTF8.self) != nil
    if isValid {
      #expect(read?.first == String(decoding: text, as: UTF8.self))
    } else {
      #expect(read?.first?.contains("\u{fffd}") == true)
    }
  }

  @Test("gives valid JSON for any bytes")
  func anyBytes() throws {
    var generator = SeededGenerator(printingAs: "JSON writer")
    for _ in 0..<5_000 {
      let text = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
      var writer = JSONWriter()
      writer.beginArray()
      writer.string(ByteString(text))
      writer.endArray()
      #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(writer.bytes)) }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
import BlockServer
import Testing
import WireFormat

@Suite("A token of an attachment")
struct AttachmentTokenTests {
  static let tokens: [(AttachmentToken, ByteString)] = [
    (AttachmentToken(high: 0, low: 0), "00000000000000000000000000000000"),
    (AttachmentToken(high: .max, low: 1), "ffffffffffffffff0000000000000001"),
    (
      AttachmentToken(high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210),
      "0123456789abcdeffedcba9876543210"
    ),
  ]

  @Test("is 32 hexadecimal digits and is read from them", arguments: tokens)
  func text(token: AttachmentToken, text: ByteString) {
    #expect(token.hexadecimal == text)
    #expect(AttachmentToken(hexadecimal: text) == token)
  }

  static let refusals: [ByteString] = [
    "", "0123456789abcdeffedcba987654321", "0123456789abcdeffedcba98765432100",
    "0123456789ABCDEFfedcba9876543210", "0123456789abcdefg edcba987654321",
  ]

  @Test("is nothing else", arguments: refusals)
  func refuses(text: ByteString) {
    #expect(AttachmentToken(hexadecimal: text) == nil)
  }
}

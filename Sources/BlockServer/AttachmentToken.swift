// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// What a client calls one attached device of its own, whatever protocol it speaks: all of the
/// connections and reconnections of that device share it.
public struct AttachmentToken: Hashable, Sendable {
  /// The first eight of its sixteen bytes.
  public var high: UInt64
  /// The last eight.
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// 32 small hexadecimal digits, for names of files.
  public var hexadecimal: ByteString {
    var digits = ByteString()
    for word in [high, low] {
      for shift in stride(from: 60, through: 0, by: -4) {
        digits.bytes.append(Array("0123456789abcdef".utf8)[Int(word >> UInt64(shift) & 15)])
      }
    }
    return digits
  }

  /// Nil for anything but 32 small hexadecimal digits.
  public init?(hexadecimal text: ByteString) {
    guard text.count == 32 else { return nil }
    var words: [UInt64] = [0, 0]
    for (index, byte) in text.bytes.enumerated() {
      let digit: UInt8
      switch byte {
      case 0x30...0x39: digit = byte - 0x30
      case 0x61...0x66: digit = byte - 0x61 + 10
      default: return nil
      }
      words[index / 16] = words[index / 16] << 4 | UInt64(digit)
    }
    self.init(high: words[0], low: words[1])
  }
}

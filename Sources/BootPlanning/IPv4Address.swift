// SPDX-License-Identifier: Apache-2.0

/// An IPv4 address. Only the four-number form is one: `1234` and `0x7f.1`, which C libraries
/// take, are not, because a grammar that takes them cannot tell an address from a port.
public struct IPv4Address: Hashable, Sendable {
  /// The first number is the most significant byte.
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Nil unless all of the text is four decimal numbers up to 255 without zeroes in front.
  public init?(_ text: ArraySlice<UInt8>) {
    var value: UInt32 = 0
    var index = text.startIndex
    for number in 0..<4 {
      if number > 0 {
        guard index < text.endIndex, text[index] == .dot else { return nil }
        index += 1
      }
      let digits = text[index...].leadingDigitCount
      guard digits >= 1, digits <= 3, digits == 1 || text[index] != 0x30 else { return nil }
      var byte: UInt32 = 0
      for digit in text[index..<(index + digits)] { byte = byte * 10 + UInt32(digit - 0x30) }
      guard byte <= 255 else { return nil }
      value = value << 8 | byte
      index += digits
    }
    guard index == text.endIndex else { return nil }
    rawValue = value
  }

  /// Network byte order.
  public var bytes: [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: rawValue >> UInt32($0)) }
  }

  public var text: String {
    let bytes = bytes
    return "\(bytes[0]).\(bytes[1]).\(bytes[2]).\(bytes[3])"
  }

  /// 0.0.0.0 and 255.255.255.255 stand for "none" wherever a lease has a place for an address.
  public var namesAHost: Bool { rawValue != 0 && rawValue != .max }
}

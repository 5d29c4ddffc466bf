// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// A domain name in the form of the wire: labels with a length before each, a zero at the end.
/// Compared without regard to the case of ASCII letters. Source: RFC 1035, sections 2.3.4, 3.1.
public struct DNSName: Equatable, Sendable {
  public static let byteCountMaximum = 255
  public static let labelByteCountMaximum = 63

  /// Small ASCII letters only.
  public let wire: [UInt8]

  /// Nil when the text is no name: an empty or too long label, or too long altogether. A dot at
  /// the end is allowed.
  public init?(_ text: ByteString) {
    var wire: [UInt8] = []
    let trimmed = text.hasSuffix(".") ? ByteString(text.bytes.dropLast()) : text
    for label in trimmed.fields(separatedBy: 0x2e) {
      guard !label.isEmpty, label.count <= Self.labelByteCountMaximum else { return nil }
      wire.append(UInt8(label.count))
      wire += label.lowercasedASCII.bytes
    }
    wire.append(0)
    guard wire.count <= Self.byteCountMaximum else { return nil }
    self.wire = wire
  }

  init(wire: [UInt8]) { self.wire = wire }
}

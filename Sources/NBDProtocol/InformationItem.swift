// SPDX-License-Identifier: Apache-2.0
// The data of an INFO reply: one fact about an export.

import WireFormat

/// The three sizes that an export's requests keep to, in bytes.
/// Source: NBD `doc/proto.md`, "Block size constraints".
public struct BlockSizes: Equatable, Sendable {
  /// Offsets and lengths are multiples of it. A power of two from 1 to 65536.
  public var minimum: UInt32
  /// A power of two, at least 512 and `minimum`.
  public var preferred: UInt32
  /// The longest READ or WRITE; 0xffffffff: no limit.
  public var maximumPayload: UInt32

  /// What a client and a server that said nothing about sizes expect of each other.
  public static let unnegotiatedPreferred: UInt32 = 4096
  /// Less than this must never count as too long. Source: NBD `doc/proto.md`, "Block size
  /// constraints".
  public static let unnegotiatedMaximumPayload: UInt32 = 32 << 20

  public init(minimum: UInt32, preferred: UInt32, maximumPayload: UInt32) {
    self.minimum = minimum
    self.preferred = preferred
    self.maximumPayload = maximumPayload
  }

  /// Whether the three stand to each other and to the bounds as the specification says.
  public var isValid: Bool {
    func isPowerOfTwo(_ value: UInt32) -> Bool { value != 0 && value & (value &- 1) == 0 }
    return isPowerOfTwo(minimum) && minimum <= 65536
      && isPowerOfTwo(preferred) && preferred >= 512 && preferred >= minimum
      && maximumPayload >= preferred
  }
}

/// Source: NBD `doc/proto.md`, "NBD_REP_INFO". Item and type are one: u16 type, then its content.
public enum InformationItem: Equatable, Sendable, WireEncodable {
  /// The size in bytes and what the export can do. In every answer to INFO and GO that succeeds.
  case export(byteCount: UInt64, flags: TransmissionFlags)
  /// The canonical name of the export that was asked for.
  case name(ByteString)
  /// Text for people.
  case description(ByteString)
  /// As sent: `isValid` is for the receiver to ask.
  case blockSize(BlockSizes)
  /// A type without a name here, which a client ignores.
  case other(InformationType)

  /// Takes all data of one INFO reply; a known type of a wrong length is refused.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 2 else { throw .byteCount(expected: 2, actual: bytes.count) }
    let type = InformationType(rawValue: bytes.bigEndian(UInt16.self, at: 0))
    switch type {
    case .export:
      guard bytes.count == 12 else { throw .byteCount(expected: 12, actual: bytes.count) }
      self = .export(
        byteCount: bytes.bigEndian(UInt64.self, at: 2),
        flags: TransmissionFlags(rawValue: bytes.bigEndian(UInt16.self, at: 10)))
    case .name:
      self = .name(try ExportString.decode(bytes, 2..<bytes.count, field: "export name"))
    case .description:
      self = .description(try ExportString.decode(bytes, 2..<bytes.count, field: "description"))
    case .blockSize:
      guard bytes.count == 14 else { throw .byteCount(expected: 14, actual: bytes.count) }
      self = .blockSize(
        BlockSizes(
          minimum: bytes.bigEndian(UInt32.self, at: 2),
          preferred: bytes.bigEndian(UInt32.self, at: 6),
          maximumPayload: bytes.bigEndian(UInt32.self, at: 10)))
    default:
      self = .other(type)
    }
  }

  /// The number on the wire, the first two bytes of the item.
  public var type: InformationType {
    switch self {
    case .export: .export
    case .name: .name
    case .description: .description
    case .blockSize: .blockSize
    case .other(let type): type
    }
  }

  public var encodedByteCount: Int {
    switch self {
    case .export: 12
    case .name(let text), .description(let text): 2 + text.count
    case .blockSize: 14
    case .other: 2
    }
  }

  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: type.rawValue)
    switch self {
    case .export(let byteCount, let flags):
      output.append(bigEndian: byteCount)
      output.append(bigEndian: flags.rawValue)
    case .name(let text), .description(let text):
      output.append(bytes: text.bytes)
    case .blockSize(let sizes):
      output.append(bigEndian: sizes.minimum)
      output.append(bigEndian: sizes.preferred)
      output.append(bigEndian: sizes.maximumPayload)
    case .other:
      break
    }
  }
}

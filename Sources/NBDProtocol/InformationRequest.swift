// SPDX-License-Identifier: Apache-2.0
// The data of the options INFO and GO: which export, and what to tell about it.

import WireFormat

/// All big-endian: u32 name length, name, u16 item count, u16 for each item.
/// Source: NBD `doc/proto.md`, "NBD_OPT_INFO" and "NBD_OPT_GO".
public struct InformationRequest: Equatable, Sendable, WireEncodable {
  /// More than the specification has types, and few enough to compare each with each.
  public static let itemCountMaximum = 64
  /// The longest data that decodes.
  public static let byteCountMaximum = 6 + ExportString.byteCountMaximum + 2 * itemCountMaximum

  /// Empty for the default export.
  public var name: ByteString
  /// Without repetitions.
  public var items: [InformationType]

  public init(name: ByteString, items: [InformationType]) {
    self.name = name
    self.items = items
  }

  /// Takes all of an option's data; a missing or a surplus byte is refused, and so is an item
  /// that is asked for twice.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 6 else { throw .byteCount(expected: 6, actual: bytes.count) }
    let nameByteCount = bytes.bigEndian(UInt32.self, at: 0)
    guard nameByteCount <= UInt32(ExportString.byteCountMaximum) else {
      throw .limit(
        field: "name length", maximum: UInt64(ExportString.byteCountMaximum),
        actual: UInt64(nameByteCount))
    }
    let nameEnd = 4 + Int(nameByteCount)
    guard nameEnd + 2 <= bytes.count else {
      throw .byteCount(expected: nameEnd + 2, actual: bytes.count)
    }
    let itemCount = Int(bytes.bigEndian(UInt16.self, at: nameEnd))
    guard bytes.count == nameEnd + 2 + 2 * itemCount else {
      throw .byteCount(expected: nameEnd + 2 + 2 * itemCount, actual: bytes.count)
    }
    guard itemCount <= Self.itemCountMaximum else {
      throw .limit(
        field: "item count", maximum: UInt64(Self.itemCountMaximum), actual: UInt64(itemCount))
    }
    name = try ExportString.decode(bytes, 4..<nameEnd, field: "export name")
    items = []
    for index in 0..<itemCount {
      let item = InformationType(
        rawValue: bytes.bigEndian(UInt16.self, at: nameEnd + 2 + 2 * index))
      guard !items.contains(item) else {
        throw .value(field: "repeated item", actual: UInt64(item.rawValue))
      }
      items.append(item)
    }
  }

  public var encodedByteCount: Int { 6 + name.count + 2 * items.count }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: UInt32(truncatingIfNeeded: name.count))
    output.append(bytes: name.bytes)
    output.append(bigEndian: UInt16(truncatingIfNeeded: items.count))
    for item in items { output.append(bigEndian: item.rawValue) }
  }
}

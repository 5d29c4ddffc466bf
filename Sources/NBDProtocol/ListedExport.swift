// SPDX-License-Identifier: Apache-2.0
// The data of a SERVER reply: one export in the answer to LIST.

import WireFormat

/// u32 name length, big-endian, the name, then text for people to the end.
/// Source: NBD `doc/proto.md`, "NBD_REP_SERVER".
public struct ListedExport: Equatable, Sendable, WireEncodable {
  /// What a client asks for; empty for the default export.
  public var name: ByteString
  public var description: ByteString

  public init(name: ByteString, description: ByteString) {
    self.name = name
    self.description = description
  }

  /// Takes all data of one SERVER reply; refuses a name that ends outside of it.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 4 else { throw .byteCount(expected: 4, actual: bytes.count) }
    let nameByteCount = bytes.bigEndian(UInt32.self, at: 0)
    guard nameByteCount <= UInt32(ExportString.byteCountMaximum) else {
      throw .limit(
        field: "name length", maximum: UInt64(ExportString.byteCountMaximum),
        actual: UInt64(nameByteCount))
    }
    let nameEnd = 4 + Int(nameByteCount)
    guard nameEnd <= bytes.count else {
      throw .byteCount(expected: nameEnd, actual: bytes.count)
    }
    name = try ExportString.decode(bytes, 4..<nameEnd, field: "export name")
    description = try ExportString.decode(bytes, nameEnd..<bytes.count, field: "description")
  }

  public var encodedByteCount: Int { 4 + name.count + description.count }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: UInt32(truncatingIfNeeded: name.count))
    output.append(bytes: name.bytes)
    output.append(bytes: description.bytes)
  }
}

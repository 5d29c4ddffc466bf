// SPDX-License-Identifier: Apache-2.0
// The exchange on connection 0 once all connections of a path are there: the client says what its
// session is called, the server says where its chunks are.

public import WireFormat

/// Source: `struct rtrs_msg_info_req`.
public struct PathInformationRequest: Equatable, Sendable, WireEncodable {
  /// Of the message.
  public static let byteCount = 272
  static let type: UInt16 = 0
  private static let nameFieldByteCount = 255

  /// What the client calls its session.
  public var name: SessionName

  public init(name: SessionName) { self.name = name }

  /// Takes exactly `byteCount` bytes; refuses another type of message, and a name that is none.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == Self.type else { throw .value(field: "message type", actual: UInt64(type)) }
    name = try SessionName(
      bytes.terminatedText(at: 2, fieldByteCount: Self.nameFieldByteCount, field: "session name"))
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: Self.type)
    output.append(bytes: name.text.bytes)
    output.append(zeroes: Self.nameFieldByteCount - name.text.count + 15)
  }
}

/// Source: `struct rtrs_msg_info_rsp`. The client reads it with `ChunkTable.load`.
public struct PathInformationAnswer: Equatable, Sendable, WireEncodable {
  static let type: UInt16 = 1
  static let headerByteCount = 8

  /// In this order they are cut into chunks, each of them without a rest.
  public var regions: [RegionDescriptor]

  public init(regions: [RegionDescriptor]) { self.regions = regions }

  /// How long the longest answer is: a region for each chunk.
  public static func byteCountMaximum(queueDepth: UInt16) -> Int {
    headerByteCount + Int(queueDepth) * RegionDescriptor.byteCount
  }

  public var encodedByteCount: Int {
    Self.headerByteCount + regions.count * RegionDescriptor.byteCount
  }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: Self.type)
    output.append(littleEndian: UInt16(truncatingIfNeeded: regions.count))
    output.append(zeroes: 4)
    for region in regions { region.encode(into: &output) }
  }
}

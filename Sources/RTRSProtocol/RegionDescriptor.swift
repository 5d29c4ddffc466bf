// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Memory of a peer that may be written to. Source: `struct rtrs_sg_desc`.
public struct RegionDescriptor: Equatable, Sendable, WireEncodable {
  /// In a message; there may be many of them.
  public static let byteCount = 16

  /// As the peer's device counts; whatever stands here, it is not our memory.
  public var address: UInt64
  /// What the peer's device wants to see with `address`.
  public var key: UInt32
  /// In bytes.
  public var length: UInt32

  public init(address: UInt64, key: UInt32, length: UInt32) {
    self.address = address
    self.key = key
    self.length = length
  }

  /// The 16 bytes at `offset`, which must be there.
  init(decoding bytes: Span<UInt8>, at offset: Int) {
    address = bytes.littleEndian(UInt64.self, at: offset)
    key = bytes.littleEndian(UInt32.self, at: offset + 8)
    length = bytes.littleEndian(UInt32.self, at: offset + 12)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: address)
    output.append(littleEndian: key)
    output.append(littleEndian: length)
  }
}

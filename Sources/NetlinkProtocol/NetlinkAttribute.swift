// SPDX-License-Identifier: Apache-2.0
// Attributes: what netlink messages are made of. 16 bits of length with these 4 bytes counted, 16
// bits of type, the value, padding to 4. A nest is an attribute whose value is attributes.

public import WireFormat

/// One attribute as received. Source: `struct nlattr` in Linux `include/uapi/linux/netlink.h`.
public struct NetlinkAttribute: Equatable, Sendable {
  /// Counted in the length that stands in it.
  public static let headerByteCount = 4
  /// A list of 3,276 nbd devices is the longest that fits in one attribute.
  public static let countMaximum = 8192
  /// The two upper bits of a type are flags (nested, network byte order).
  static let typeMask: UInt16 = 0x3fff

  /// Without the two flags above it.
  public let type: UInt16
  /// Without header and padding. Indices are those of the datagram: they do not begin at 0.
  public let value: ArraySlice<UInt8>

  /// The attributes that fill `bytes`; the padding behind the last one may be missing.
  public static func decode(_ bytes: ArraySlice<UInt8>) throws(WireError) -> [NetlinkAttribute] {
    var attributes: [NetlinkAttribute] = []
    var offset = bytes.startIndex
    while offset < bytes.endIndex {
      let left = bytes.endIndex - offset
      guard left >= headerByteCount else {
        throw .byteCount(expected: headerByteCount, actual: left)
      }
      let header = bytes[offset..<(offset + headerByteCount)].span
      let byteCount = Int(header.native(UInt16.self, at: 0))
      guard byteCount >= headerByteCount else {
        throw .value(field: "attribute length", actual: UInt64(byteCount))
      }
      guard byteCount <= left else { throw .byteCount(expected: byteCount, actual: left) }
      guard attributes.count < countMaximum else {
        throw .limit(
          field: "attributes", maximum: UInt64(countMaximum), actual: UInt64(countMaximum) + 1)
      }
      attributes.append(
        NetlinkAttribute(
          type: header.native(UInt16.self, at: 2) & typeMask,
          value: bytes[(offset + headerByteCount)..<(offset + byteCount)]))
      offset = min(offset + (byteCount + 3) & ~3, bytes.endIndex)
    }
    return attributes
  }

  /// The value as an integer of exactly its width.
  public func integer<T: FixedWidthInteger & UnsignedInteger>(
    _: T.Type
  ) throws(WireError) -> T {
    guard value.count == T.bitWidth / 8 else {
      throw .byteCount(expected: T.bitWidth / 8, actual: value.count)
    }
    return value.span.native(T.self, at: 0)
  }

  /// The value as text: up to its first NUL, or all of it.
  public var text: ByteString {
    ByteString(value.prefix { $0 != 0 })
  }

  /// The value as attributes; throws as `decode` does.
  public func nested() throws(WireError) -> [NetlinkAttribute] { try Self.decode(value) }
}

/// Builds attributes. Lengths are ours: one that does not fit is a mistake of the caller.
public struct NetlinkAttributeWriter {
  /// All that was appended, padded to 4 bytes.
  public private(set) var bytes: [UInt8] = []
  public init() {}

  /// With its header and padding. Traps when header and value exceed 65,535 bytes.
  public mutating func append(_ type: UInt16, bytes value: [UInt8]) {
    let byteCount = NetlinkAttribute.headerByteCount + value.count
    precondition(byteCount <= Int(UInt16.max), "an attribute of ours fits in 16 bits of length")
    bytes.append(native: UInt16(byteCount))
    bytes.append(native: type)
    bytes += value
    while !bytes.count.isMultiple(of: 4) { bytes.append(0) }
  }

  /// In the byte order of this machine and as wide as `T`: the kernel compares the width.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(_ type: UInt16, _ value: T) {
    var encoded: [UInt8] = []
    encoded.append(native: value)
    append(type, bytes: encoded)
  }

  /// With the NUL that the kernel's strings end in.
  public mutating func append(_ type: UInt16, text: ByteString) {
    append(type, bytes: text.bytes + [0])
  }

  /// Marked as a nest (0x8000), which the kernel accepts and newer families demand.
  public mutating func append(_ type: UInt16, nest: NetlinkAttributeWriter) {
    append(type | 0x8000, bytes: nest.bytes)
  }
}

extension [NetlinkAttribute] {
  /// The last attribute of a type, as the kernel has it.
  func last(_ type: UInt16) -> NetlinkAttribute? { last { $0.type == type } }
}

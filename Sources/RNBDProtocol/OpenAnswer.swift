// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Source: `enum rnbd_cache_policy`.
public struct CachePolicy: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Counts only with `writeBack`.
  public static let fua = CachePolicy(rawValue: 1 << 0)
  /// Without it a client sends no flush.
  public static let writeBack = CachePolicy(rawValue: 1 << 1)
}

/// What a device is like. Source: `struct rnbd_msg_open_rsp`.
public struct OpenAnswer: Equatable, Sendable, WireEncodable {
  /// Of the message.
  public static let byteCount = 56

  /// In every I/O and in the close.
  public var device: UInt32
  /// In units of 512 bytes.
  public var sectorCount: UInt64
  /// The largest read or write, in units of 512 bytes.
  public var requestSectorCountMaximum: UInt32 = 0
  /// 0: not offered, like the next.
  public var writeZeroesSectorCountMaximum: UInt32 = 0
  /// In units of 512 bytes.
  public var discardSectorCountMaximum: UInt32 = 0
  /// In bytes, like the next three.
  public var discardGranularity: UInt32 = 0
  /// Where granules begin, counted from the start of the device.
  public var discardAlignment: UInt32 = 0
  /// What the device writes without reading first.
  public var physicalBlockByteCount: UInt16 = 512
  /// What offsets and lengths are multiples of; at least 512.
  public var logicalBlockByteCount: UInt16 = 512
  /// How many pieces of memory a request may have.
  public var segmentCountMaximum: UInt16 = 0
  /// Whether the peer offers to erase for good. We never do: the first such request crashes
  /// Linux 6.12's client.
  public var offersSecureErase = false
  /// Empty: what is written is durable when it is answered, and there is nothing to flush.
  public var cachePolicy: CachePolicy = []

  /// A device that has `sectorCount` units of 512 bytes; all other fields as they stand above.
  public init(device: UInt32, sectorCount: UInt64) {
    self.device = device
    self.sectorCount = sectorCount
  }

  /// Blocks are powers of two from 512 on, and the size in bytes fits 63 bits: what a client's
  /// device could not show is refused here.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == MessageType.openAnswer else {
      throw .value(field: "message type", actual: UInt64(type))
    }
    device = bytes.littleEndian(UInt32.self, at: 4)
    sectorCount = bytes.littleEndian(UInt64.self, at: 8)
    guard sectorCount <= UInt64.max >> 10 else {
      throw .limit(field: "sector count", maximum: UInt64.max >> 10, actual: sectorCount)
    }
    requestSectorCountMaximum = bytes.littleEndian(UInt32.self, at: 16)
    writeZeroesSectorCountMaximum = bytes.littleEndian(UInt32.self, at: 20)
    discardSectorCountMaximum = bytes.littleEndian(UInt32.self, at: 24)
    discardGranularity = bytes.littleEndian(UInt32.self, at: 28)
    discardAlignment = bytes.littleEndian(UInt32.self, at: 32)
    physicalBlockByteCount = bytes.littleEndian(UInt16.self, at: 36)
    logicalBlockByteCount = bytes.littleEndian(UInt16.self, at: 38)
    guard logicalBlockByteCount >= 512, logicalBlockByteCount.nonzeroBitCount == 1 else {
      throw .value(field: "logical block size", actual: UInt64(logicalBlockByteCount))
    }
    segmentCountMaximum = bytes.littleEndian(UInt16.self, at: 40)
    offersSecureErase = bytes.littleEndian(UInt16.self, at: 42) != 0
    cachePolicy = CachePolicy(rawValue: bytes[45]).intersection([.fua, .writeBack])
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: MessageType.openAnswer)
    output.append(zeroes: 2)
    output.append(littleEndian: device)
    output.append(littleEndian: sectorCount)
    output.append(littleEndian: requestSectorCountMaximum)
    output.append(littleEndian: writeZeroesSectorCountMaximum)
    output.append(littleEndian: discardSectorCountMaximum)
    output.append(littleEndian: discardGranularity)
    output.append(littleEndian: discardAlignment)
    output.append(littleEndian: physicalBlockByteCount)
    output.append(littleEndian: logicalBlockByteCount)
    output.append(littleEndian: segmentCountMaximum)
    output.append(littleEndian: UInt16(offersSecureErase ? 1 : 0))
    output.append(0)  // Was: rotational.
    output.append(cachePolicy.rawValue)
    output.append(zeroes: 10)
  }
}

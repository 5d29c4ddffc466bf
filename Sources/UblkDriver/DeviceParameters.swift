// SPDX-License-Identifier: Apache-2.0
// What the disk is like: made from what the server said of its export.

public import WireFormat

/// What a server said of an export, as far as a disk can show it.
public struct UblkExport: Equatable, Sendable {
  /// What fills no whole block at the end is not shown.
  public var byteCount: UInt64
  /// A power of two; 1 when nothing was said.
  public var minimumBlockByteCount: UInt32 = 1
  /// A power of two, at least 512.
  public var preferredBlockByteCount: UInt32 = 4096
  /// The longest read or write. Source: NBD `doc/proto.md`, 2^25 when nothing was said.
  public var maximumPayloadByteCount: UInt32 = 1 << 25
  /// Writes are refused by the kernel.
  public var isReadOnly = false
  /// Seeks are expensive: what the queue's `rotational` shows.
  public var isRotational = false
  /// It flushes, and so may have a cache.
  public var takesFlush = false
  /// Counts only with `takesFlush`.
  public var takesFUA = false
  /// The device shows discards.
  public var takesTrim = false
  /// The device shows writes of zeroes.
  public var takesWriteZeroes = false
  /// The longest that the server takes in one request; what is shown may be less.
  public var trimByteCountMaximum = UInt64.max
  /// As `trimByteCountMaximum`.
  public var writeZeroesByteCountMaximum = UInt64.max

  /// Of an export of so many bytes of which nothing else was said.
  public init(byteCount: UInt64) { self.byteCount = byteCount }
}

/// Why a ublk device cannot show an export.
public enum UblkGeometryError: Error, Equatable, Sendable {
  /// The block is the device's, 512 at least.
  case belowOneBlock(byteCount: UInt64, blockByteCount: UInt32)
  /// 2^63 bytes or more.
  case tooLarge(byteCount: UInt64)
  /// The server's minimum: no power of two, or above `maximum`.
  case block(byteCount: UInt32, maximum: UInt32)
  /// 4096 bytes at least must fit in one request.
  case payloadBelowPage(byteCount: UInt32)

  /// What was seen, and what a person can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .belowOneBlock(let size, let block):
      (
        "the export's size is \(size) bytes, less than one block of \(block)",
        "check the image on the server"
      )
    case .tooLarge(let size):
      ("the export's size is \(size) bytes, more than 2^63", "check the image on the server")
    case .block(let block, let maximum):
      (
        "the server's minimum block is \(block) bytes; a ublk device takes a power of two up to"
          + " \(maximum)", "let the server accept smaller requests"
      )
    case .payloadBelowPage(let payload):
      (
        "the server takes at most \(payload) bytes a request, the kernel sends at least 4096",
        "raise the server's maximum payload"
      )
    }
  }
}

/// Source: `struct ublk_params`, its parts `basic` and `discard`.
public struct DeviceParameters: Equatable, Sendable {
  /// Of Linux 6.12, with the parts that are left zero here.
  public static let byteCount = 112
  /// Source: `UBLK_PARAM_TYPE_*`.
  public static let typeBasic: UInt32 = 1
  /// As `typeBasic`.
  public static let typeDiscard: UInt32 = 2
  /// One TRIM of the protocol could ask for 4 GiB; 1 GiB keeps a slow server from long silence.
  public static let trimByteCountMaximum: UInt32 = 1 << 30
  /// A server that cannot punch holes writes zeroes: 64 MiB take a slow disk a second.
  public static let writeZeroesByteCountMaximum: UInt32 = 64 << 20
  /// The kernel's limit on a logical block: a page. Source: `ublk_validate_params`.
  public static let blockByteCountMaximum: UInt32 = 4096

  /// Source: `UBLK_ATTR_*`.
  public struct Attributes: OptionSet, Sendable {
    /// As in the structure.
    public let rawValue: UInt32
    /// Bits without a name here are kept.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The kernel refuses writes.
    public static let readOnly = Attributes(rawValue: 1 << 0)  // UBLK_ATTR_READ_ONLY
    /// Seeks are expensive.
    public static let rotational = Attributes(rawValue: 1 << 1)  // UBLK_ATTR_ROTATIONAL
    /// Without it no flush ever arrives.
    public static let volatileCache = Attributes(rawValue: 1 << 2)
    /// Counts only with `volatileCache`.
    public static let fua = Attributes(rawValue: 1 << 3)
  }

  /// What holds for the whole device.
  public var attributes: Attributes
  /// Powers of two, in bytes. The least that a request may have: 9 to 12.
  public var logicalBlockShift: UInt8
  /// The block that the medium is said to have: `logicalBlockShift` to 12.
  public var physicalBlockShift: UInt8
  /// `io_opt`: what the server prefers, up to 16.
  public var optimalShift: UInt8
  /// `io_min`: the same as `physicalBlockShift`.
  public var minimumShift: UInt8
  /// In sectors of 512 bytes, like all that follow.
  public var requestSectorCountMaximum: UInt32
  /// Whole blocks.
  public var sectorCount: UInt64
  /// 0: no discard.
  public var discardSectorCountMaximum: UInt32
  /// 0: none, and the kernel writes zeroes as data.
  public var writeZeroesSectorCountMaximum: UInt32

  /// `requestByteCountMaximum` is the device's, as ADD_DEV granted it.
  public init(
    _ export: UblkExport, requestByteCountMaximum: UInt32
  ) throws(UblkGeometryError) {
    let block = max(512, export.minimumBlockByteCount)
    guard block & (block - 1) == 0, block <= Self.blockByteCountMaximum else {
      throw .block(
        byteCount: export.minimumBlockByteCount, maximum: Self.blockByteCountMaximum)
    }
    guard export.byteCount < 1 << 63 else { throw .tooLarge(byteCount: export.byteCount) }
    let size = export.byteCount & ~UInt64(block - 1)
    guard size >= UInt64(block) else {
      throw .belowOneBlock(byteCount: export.byteCount, blockByteCount: block)
    }
    let request = min(export.maximumPayloadByteCount, requestByteCountMaximum) & ~4095
    guard request >= 4096 else {
      throw .payloadBelowPage(byteCount: export.maximumPayloadByteCount)
    }
    attributes = []
    if export.isReadOnly { attributes.insert(.readOnly) }
    if export.isRotational { attributes.insert(.rotational) }
    if export.takesFlush { attributes.insert(.volatileCache) }
    if export.takesFlush, export.takesFUA { attributes.insert(.fua) }
    func shift(_ byteCount: UInt32) -> UInt8 { UInt8(31 - byteCount.leadingZeroBitCount) }
    logicalBlockShift = shift(block)
    // A preferred size that is no power of two, or beyond reason, is a wish and not a rule.
    let preferred = min(max(export.preferredBlockByteCount, block), 1 << 16)
    optimalShift = shift(preferred)
    physicalBlockShift = min(optimalShift, 12)
    minimumShift = physicalBlockShift
    requestSectorCountMaximum = request / 512
    sectorCount = size / 512
    discardSectorCountMaximum =
      export.takesTrim
      ? UInt32(min(UInt64(Self.trimByteCountMaximum), export.trimByteCountMaximum) / 512) : 0
    writeZeroesSectorCountMaximum =
      export.takesWriteZeroes
      ? UInt32(
        min(UInt64(Self.writeZeroesByteCountMaximum), export.writeZeroesByteCountMaximum) / 512) : 0
  }

  /// Throws for any other length than `byteCount`. Without a part for discard its limits are 0.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let types = bytes.native(UInt32.self, at: 4)
    attributes = Attributes(rawValue: bytes.native(UInt32.self, at: 8))
    logicalBlockShift = bytes[12]
    physicalBlockShift = bytes[13]
    optimalShift = bytes[14]
    minimumShift = bytes[15]
    requestSectorCountMaximum = bytes.native(UInt32.self, at: 16)
    sectorCount = bytes.native(UInt64.self, at: 24)
    let hasDiscard = types & Self.typeDiscard != 0
    discardSectorCountMaximum = hasDiscard ? bytes.native(UInt32.self, at: 48) : 0
    writeZeroesSectorCountMaximum = hasDiscard ? bytes.native(UInt32.self, at: 52) : 0
  }

  /// With the part for discard when one of its limits is above 0.
  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    let hasDiscard = discardSectorCountMaximum != 0 || writeZeroesSectorCountMaximum != 0
    bytes.append(native: UInt32(Self.byteCount))
    bytes.append(native: Self.typeBasic | (hasDiscard ? Self.typeDiscard : 0))
    bytes.append(native: attributes.rawValue)
    bytes += [logicalBlockShift, physicalBlockShift, optimalShift, minimumShift]
    bytes.append(native: requestSectorCountMaximum)
    bytes.append(native: UInt32(0))  // No chunks.
    bytes.append(native: sectorCount)
    bytes.append(native: UInt64(0))  // No boundary.
    bytes.append(native: UInt32(0))  // Discards are aligned to the device's start,
    bytes.append(native: UInt32(1) << UInt32(logicalBlockShift))  // in blocks.
    bytes.append(native: discardSectorCountMaximum)
    bytes.append(native: writeZeroesSectorCountMaximum)
    bytes.append(native: UInt16(1))  // Segments of one discard: the kernel allows no more.
    while bytes.count < Self.byteCount { bytes.append(0) }
    return bytes
  }
}

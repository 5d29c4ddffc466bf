// SPDX-License-Identifier: Apache-2.0
// What the server said of its blocks, turned into what the kernel is told.
//
// The device's block size is the least that the server allows, at least 512, and not the size that
// the server would like best: a partition table counts in blocks, so an image whose table was made
// with 512-byte blocks has no partitions on a device of 4096-byte ones. File systems use 4 KiB
// pages either way.

/// The limits of an export, from its block-size information or the protocol's defaults.
public struct ExportGeometry: Equatable, Sendable {
  public var sizeByteCount: UInt64
  /// A power of two; 1 when nothing was said.
  public var minimumBlockByteCount: UInt32
  /// The longest read or write. Source: NBD `doc/proto.md`, 2^25 when nothing was said.
  public var maximumPayloadByteCount: UInt32

  public init(
    sizeByteCount: UInt64, minimumBlockByteCount: UInt32 = 1,
    maximumPayloadByteCount: UInt32 = 1 << 25
  ) {
    self.sizeByteCount = sizeByteCount
    self.minimumBlockByteCount = minimumBlockByteCount
    self.maximumPayloadByteCount = maximumPayloadByteCount
  }
}

/// What the kernel is told of an export.
public struct DeviceGeometry: Equatable, Sendable {
  /// The kernel's own limit on one read or write, in KiB. Source: `BLK_DEF_MAX_SECTORS_CAP`
  /// (2560 sectors of 512 bytes) in Linux `include/linux/blkdev.h`.
  public static let defaultMaximumKibibytes: UInt32 = 1280

  /// The export's, not cut to blocks.
  public let sizeByteCount: UInt64
  /// The server's minimum, 512 at least.
  public let blockByteCount: UInt64
  /// For `queue/max_sectors_kb`; nil when the kernel's default does not exceed the server's limit.
  public let maximumKibibytes: UInt32?

  /// Throws for a size of 0, of 2^63 and more, or below one block; for a minimum that is no power
  /// of two or above a page; for a payload below a page or a block.
  public init(_ export: ExportGeometry, pageByteCount: UInt64) throws(GeometryError) {
    let size = export.sizeByteCount
    let minimum = UInt64(export.minimumBlockByteCount)
    guard size != 0 else { throw .empty }
    guard size < 1 << 63 else { throw .tooLarge(byteCount: size) }
    guard minimum != 0, minimum & (minimum - 1) == 0 else {
      throw .blockNotPowerOfTwo(byteCount: minimum)
    }
    guard minimum <= pageByteCount else {
      throw .blockAbovePage(byteCount: minimum, pageByteCount: pageByteCount)
    }
    sizeByteCount = size
    blockByteCount = max(512, minimum)
    guard size >= blockByteCount else {
      throw .belowOneBlock(byteCount: size, blockByteCount: blockByteCount)
    }
    // The kernel takes no limit below a page.
    let payload = UInt64(export.maximumPayloadByteCount)
    guard payload >= max(pageByteCount, blockByteCount) else {
      throw .payloadBelowPage(byteCount: payload, pageByteCount: pageByteCount)
    }
    let kibibytes = export.maximumPayloadByteCount / 1024
    maximumKibibytes = kibibytes < Self.defaultMaximumKibibytes ? kibibytes : nil
  }
}

/// Why the kernel's driver cannot show an export.
public indirect enum GeometryError: Error, Equatable, Sendable {
  case empty
  case tooLarge(byteCount: UInt64)
  case belowOneBlock(byteCount: UInt64, blockByteCount: UInt64)
  case blockNotPowerOfTwo(byteCount: UInt64)
  case blockAbovePage(byteCount: UInt64, pageByteCount: UInt64)
  case payloadBelowPage(byteCount: UInt64, pageByteCount: UInt64)

  public var report: (reason: String, advice: String) {
    switch self {
    case .empty:
      ("the export's size is 0", "check the image on the server")
    case .tooLarge(let size):
      ("the export's size is \(size) bytes, more than 2^63", "check the image on the server")
    case .belowOneBlock(let size, let block):
      (
        "the export's size is \(size) bytes, less than one block of \(block)",
        "check the image on the server"
      )
    case .blockNotPowerOfTwo(let block):
      ("the server's minimum block is \(block) bytes, no power of two", "check the server")
    case .blockAbovePage(let block, let page):
      (
        "the server's minimum block is \(block) bytes, the kernel's nbd driver takes at most \(page)",
        "let the server accept smaller requests"
      )
    case .payloadBelowPage(let payload, let page):
      (
        "the server takes at most \(payload) bytes a request, the kernel sends at least \(page)",
        "raise the server's maximum payload"
      )
    }
  }
}

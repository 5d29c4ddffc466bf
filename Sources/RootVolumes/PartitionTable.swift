// SPDX-License-Identifier: Apache-2.0
// What a partition table says of its partitions, numbered as the kernel numbers them.

import WireFormat

/// One partition that the kernel would make a device of.
public struct Partition: Equatable, Sendable {
  /// From 1; logical partitions of an MBR from 5.
  public var number: UInt32
  /// In bytes from the beginning of the device.
  public var range: Range<UInt64>
  /// `PARTUUID`: the GUID of a GPT, `1234abcd-05` of an MBR.
  public var uuid: ByteString
  /// `PARTLABEL`: only a GPT has them.
  public var label: ByteString?

  public init(number: UInt32, range: Range<UInt64>, uuid: ByteString, label: ByteString?) {
    self.number = number
    self.range = range
    self.uuid = uuid
    self.label = label
  }
}

/// What a whole device is divided into.
public struct PartitionTable: Equatable, Sendable {
  public enum Kind: Equatable, Sendable {
    case gpt
    /// The first header or its entries are damaged; this is the copy at the end of the device.
    case gptBackup
    case mbr
  }

  /// The kernel makes devices of no more. Source: `DISK_MAX_PARTS` in Linux
  /// `include/linux/blkdev.h`.
  public static let partitionCountMaximum = 256

  public var kind: Kind
  /// The disk's GUID, or eight hexadecimal digits of its signature.
  public var diskIdentifier: ByteString
  public var partitions: [Partition]

  public init(_ kind: Kind, diskIdentifier: ByteString, partitions: [Partition]) {
    self.kind = kind
    self.diskIdentifier = diskIdentifier
    self.partitions = partitions
  }
}

/// The header of a GPT. Source: UEFI 2.10, table 5.5. All little-endian.
struct GPTHeader: Equatable, Sendable {
  static let byteCountMinimum = 92
  static let entryByteCountMinimum = 128

  var entriesSector: UInt64
  var entryCount: Int
  var entryByteCount: Int
  var entriesChecksum: UInt32
  var usableSectors: ClosedRange<UInt64>
  var diskIdentifier: ByteString

  /// Nil unless `bytes`, which begin with the sector `sector`, are a header with its right
  /// checksum that knows where it is and stays within limits and the device.
  init?(_ bytes: Span<UInt8>, sector: UInt64, sectorByteCount: UInt64, sectorCount: UInt64) {
    guard bytes.count >= Int(sectorByteCount), bytes.has("EFI PART", at: 0) else { return nil }
    let byteCount = bytes.littleEndian(UInt32.self, at: 12)
    guard byteCount >= UInt32(Self.byteCountMinimum), UInt64(byteCount) <= sectorByteCount,
      CRC32.checksum(bytes.extracting(0..<Int(byteCount)), zeroing: 16..<20)
        == bytes.littleEndian(UInt32.self, at: 16),
      bytes.littleEndian(UInt64.self, at: 24) == sector
    else { return nil }
    let first = bytes.littleEndian(UInt64.self, at: 40)
    let last = bytes.littleEndian(UInt64.self, at: 48)
    entriesSector = bytes.littleEndian(UInt64.self, at: 72)
    let count = bytes.littleEndian(UInt32.self, at: 80)
    let size = bytes.littleEndian(UInt32.self, at: 84)
    // 128 times a power of two; the whole array within one region.
    guard first <= last, last < sectorCount, entriesSector < sectorCount,
      size >= UInt32(Self.entryByteCountMinimum), size <= 4096, size.nonzeroBitCount == 1,
      count >= 1, UInt64(count) * UInt64(size) <= UInt64(VolumeRegion.byteCountMaximum - 4096),
      let guid = VolumeText.guid(bytes.field(at: 56, byteCount: 16))
    else { return nil }
    entryCount = Int(count)
    entryByteCount = Int(size)
    entriesChecksum = bytes.littleEndian(UInt32.self, at: 88)
    usableSectors = first...last
    diskIdentifier = guid
  }

  /// Where the entries lie; nil when they do not lie within the device.
  func entriesRange(sectorByteCount: UInt64, deviceByteCount: UInt64) -> Range<UInt64>? {
    let (start, overflow) = entriesSector.multipliedReportingOverflow(by: sectorByteCount)
    let byteCount = UInt64(entryCount * entryByteCount)
    guard !overflow, start <= deviceByteCount, deviceByteCount - start >= byteCount else {
      return nil
    }
    return start..<(start + byteCount)
  }

  /// Nil when the checksum is not that of `bytes`. An entry outside of the usable sectors is left
  /// out. Layout of an entry: UEFI 2.10, table 5.6.
  func partitions(_ bytes: Span<UInt8>, sectorByteCount: UInt64) -> [Partition]? {
    guard bytes.count >= entryCount * entryByteCount else { return nil }
    let array = bytes.extracting(0..<(entryCount * entryByteCount))
    guard CRC32.checksum(array) == entriesChecksum else { return nil }
    var partitions: [Partition] = []
    for index in 0..<min(entryCount, PartitionTable.partitionCountMaximum) {
      let offset = index * entryByteCount
      let entry = array.extracting(offset..<(offset + entryByteCount))
      let first = entry.littleEndian(UInt64.self, at: 32)
      let last = entry.littleEndian(UInt64.self, at: 40)
      guard entry.field(at: 0, byteCount: 16).contains(where: { $0 != 0 }), first <= last,
        usableSectors.contains(first), usableSectors.contains(last),
        let uuid = VolumeText.guid(entry.field(at: 16, byteCount: 16))
      else { continue }
      // `last` is below the count of sectors, whose bytes fit.
      partitions.append(
        Partition(
          number: UInt32(index + 1),
          range: (first * sectorByteCount)..<((last + 1) * sectorByteCount), uuid: uuid,
          label: VolumeText.utf16(entry.field(at: 56, byteCount: 72))))
    }
    return partitions
  }
}

/// One of the four entries of a boot record. Source: UEFI 2.10, section 5.2.1.
struct MBREntry: Equatable, Sendable {
  var status: UInt8
  var type: UInt8
  /// In sectors.
  var start: UInt64
  var count: UInt64

  var isExtended: Bool { type == 0x05 || type == 0x0f || type == 0x85 }
  var isUsed: Bool { type != 0 && count > 0 }

  init(_ bytes: Span<UInt8>, _ index: Int) {
    let offset = 446 + index * 16
    status = bytes[offset]
    type = bytes[offset + 4]
    start = UInt64(bytes.littleEndian(UInt32.self, at: offset + 8))
    count = UInt64(bytes.littleEndian(UInt32.self, at: offset + 12))
  }
}

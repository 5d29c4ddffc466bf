// SPDX-License-Identifier: Apache-2.0
// Reads the partition table of a whole device the way the kernel does, since it is the kernel that
// makes /dev/nbd0p1: a GPT behind a protective MBR, from its copy at the end when the first is
// damaged; else the MBR with its chain of logical partitions.
// Source: Linux `block/partitions/efi.c` and `msdos.c`.

import WireFormat

/// Reads nothing by itself: `region` says what it wants, `examine` takes it.
public struct PartitionTableReader: Sendable {
  /// A chain of more logical partitions is taken as damaged. Source: `msdos.c` has 100 tries.
  static let chainLengthMaximum = 100

  private struct Chain: Equatable {
    /// The extended partition, in bytes.
    var extended: Range<UInt64>
    /// The record to be read.
    var record: UInt64
    var length = 0
  }

  private enum Place: Equatable {
    case head
    case entries(GPTHeader, Range<UInt64>, isBackup: Bool)
    case backup
    case chain(Chain)
    case done
  }

  private let byteCount: UInt64
  private let sectorByteCount: UInt64
  private var place = Place.head
  /// What was found so far; final when there is nothing more to read. Nil: no table.
  public private(set) var table: PartitionTable?

  /// `sectorByteCount` is the device's logical block size: in its units the tables count. A power
  /// of two from 512 to 4096; others are taken as 512.
  public init(byteCount: UInt64, sectorByteCount: UInt32 = 512) {
    let isUsable =
      sectorByteCount >= 512 && sectorByteCount <= 4096 && sectorByteCount.nonzeroBitCount == 1
    self.sectorByteCount = isUsable ? UInt64(sectorByteCount) : 512
    // Beyond this nothing that Linux can address.
    self.byteCount = min(byteCount, UInt64(Int64.max))
    skipWhatIsNotThere()
  }

  private var sectorCount: UInt64 { byteCount / sectorByteCount }

  /// What to read next; nil when all has been seen.
  public var region: VolumeRegion? {
    switch place {
    case .head: region(0..<(2 * sectorByteCount))
    case .entries(_, let range, _): region(range)
    case .backup:
      region(((sectorCount - 1) * sectorByteCount)..<(sectorCount * sectorByteCount))
    case .chain(let chain): region(chain.record..<(chain.record + 512))
    case .done: nil
    }
  }

  private func region(_ range: Range<UInt64>) -> VolumeRegion? {
    VolumeRegion(range, deviceByteCount: byteCount, sectorByteCount: sectorByteCount)
  }

  /// Takes the bytes of `region`, as many as there are, and goes on. Give it an empty span for
  /// what cannot be read.
  public mutating func examine(_ bytes: Span<UInt8>) {
    switch place {
    case .head: place = head(bytes)
    case .entries(let header, _, let isBackup):
      if let partitions = header.partitions(bytes, sectorByteCount: sectorByteCount) {
        table = PartitionTable(
          isBackup ? .gptBackup : .gpt, diskIdentifier: header.diskIdentifier,
          partitions: partitions)
        place = .done
      } else {
        place = isBackup ? .done : .backup
      }
    case .backup:
      place = entries(bytes, sector: sectorCount - 1, isBackup: true) ?? .done
    case .chain(let chain): place = follow(chain, bytes)
    case .done: break
    }
    skipWhatIsNotThere()
  }

  private mutating func skipWhatIsNotThere() {
    while place != .done, region == nil {
      if case .entries(_, _, isBackup: false) = place { place = .backup } else { place = .done }
    }
  }

  // MARK: GPT

  private func entries(_ bytes: Span<UInt8>, sector: UInt64, isBackup: Bool) -> Place? {
    guard
      let header = GPTHeader(
        bytes, sector: sector, sectorByteCount: sectorByteCount, sectorCount: sectorCount),
      let range = header.entriesRange(
        sectorByteCount: sectorByteCount, deviceByteCount: byteCount)
    else { return nil }
    return .entries(header, range, isBackup: isBackup)
  }

  // MARK: MBR

  private mutating func head(_ bytes: Span<UInt8>) -> Place {
    guard bytes.count >= 512, bytes[510] == 0x55, bytes[511] == 0xaa else { return .done }
    var entries: [MBREntry] = []
    for index in 0..<4 { entries.append(MBREntry(bytes, index)) }
    if entries.contains(where: { $0.type == 0xee }) {
      let second = Int(sectorByteCount)
      guard bytes.count >= 2 * second else { return .backup }
      return self.entries(bytes.extracting(second..<(2 * second)), sector: 1, isBackup: false)
        ?? .backup
    }
    // The boot sector of a FAT has the same signature; bits other than "active" are code.
    guard entries.allSatisfy({ $0.status & 0x7f == 0 }), !Self.isFAT(bytes),
      entries.contains(where: { $0.isUsed })
    else { return .done }
    let signature = [443, 442, 441, 440].map { bytes[$0] }
    let identifier = ByteString(VolumeText.hexadecimal(signature))
    var table = PartitionTable(.mbr, diskIdentifier: identifier, partitions: [])
    var next = Place.done
    for (index, entry) in entries.enumerated() where entry.isUsed {
      guard let range = range(entry, from: 0) else { continue }
      if entry.isExtended {
        if next == .done { next = .chain(Chain(extended: range, record: range.lowerBound)) }
      } else {
        table.partitions.append(Self.partition(UInt32(index + 1), range, identifier))
      }
    }
    self.table = table
    return next
  }

  private static func isFAT(_ bytes: Span<UInt8>) -> Bool {
    bytes.has("FAT12   ", at: 54) || bytes.has("FAT16   ", at: 54) || bytes.has("FAT32   ", at: 82)
  }

  /// 32 bits of sectors behind an offset within the device: far from 64 bits.
  private func range(_ entry: MBREntry, from base: UInt64) -> Range<UInt64>? {
    let (start, overflow) = base.addingReportingOverflow(entry.start * sectorByteCount)
    guard !overflow, start < byteCount else { return nil }
    return start..<min(byteCount, start &+ entry.count * sectorByteCount)
  }

  private static func partition(
    _ number: UInt32, _ range: Range<UInt64>, _ disk: ByteString
  ) -> Partition {
    // Two hexadecimal digits, more when there are more partitions.
    let digits =
      number > 255
      ? [UInt8(1), UInt8(truncatingIfNeeded: number)]
      : [UInt8(truncatingIfNeeded: number)]
    return Partition(
      number: number, range: range,
      uuid: disk + "-" + ByteString(VolumeText.hexadecimal(digits)), label: nil)
  }

  /// One record of the chain: data partitions counted from the record itself, the next record from
  /// the beginning of the extended partition.
  private mutating func follow(_ chain: Chain, _ bytes: Span<UInt8>) -> Place {
    guard bytes.count >= 512, bytes[510] == 0x55, bytes[511] == 0xaa, var table else {
      return .done
    }
    var next: UInt64?
    for index in 0..<4 {
      let entry = MBREntry(bytes, index)
      guard entry.isUsed else { continue }
      if entry.isExtended {
        if next == nil, let range = range(entry, from: chain.extended.lowerBound),
          chain.extended.contains(range.lowerBound), range.lowerBound != chain.extended.lowerBound
        {
          next = range.lowerBound
        }
        continue
      }
      guard let range = range(entry, from: chain.record) else { continue }
      // Only the first two entries mean something; of others only what makes sense is taken.
      let isWithin =
        chain.extended.lowerBound <= range.lowerBound
        && range.upperBound <= chain.extended.upperBound
      guard index < 2 || isWithin, table.partitions.count < PartitionTable.partitionCountMaximum
      else { continue }
      let last = table.partitions.last.map { max($0.number, 4) } ?? 4
      table.partitions.append(Self.partition(last + 1, range, table.diskIdentifier))
    }
    self.table = table
    guard let next, chain.length + 1 < Self.chainLengthMaximum else { return .done }
    return .chain(Chain(extended: chain.extended, record: next, length: chain.length + 1))
  }
}

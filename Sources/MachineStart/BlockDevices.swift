// SPDX-License-Identifier: Apache-2.0
// The disks and partitions of this machine, and what lies on them.

import CLinux
import LinuxSystem
import RootVolumes
import WireFormat

struct BlockDevice: Equatable {
  /// As in /dev.
  var name: ByteString
  var byteCount: UInt64
  var sectorByteCount: UInt32
  /// Of a partition; 0 for a whole disk.
  var partition: UInt32 = 0
  /// The whole one that it is a part of, or is.
  var disk: ByteString

  var node: ByteString { "/dev/" + name }

  static let countMaximum = 1024

  /// Whole disks that hold something, each behind its partitions.
  static func all() -> [BlockDevice] {
    var devices: [BlockDevice] = []
    for disk in (try? listDirectory("/sys/block", limit: countMaximum)) ?? [] {
      let directory = "/sys/block/" + disk
      guard let byteCount = size(directory), byteCount > 0 else { continue }
      let sector =
        (try? readFile(directory + "/queue/logical_block_size", limit: 64))?.trimmed
        .decimal(maximum: 65536) ?? 512
      let whole = BlockDevice(
        name: disk, byteCount: byteCount, sectorByteCount: UInt32(sector), disk: disk)
      for entry in (try? listDirectory(directory, limit: countMaximum)) ?? []
      where entry.hasPrefix(disk) {
        let below = directory + "/" + entry
        guard
          let number = (try? readFile(below + "/partition", limit: 64))?.trimmed
            .decimal(maximum: 1023), let byteCount = size(below)
        else { continue }
        devices.append(
          BlockDevice(
            name: entry, byteCount: byteCount, sectorByteCount: whole.sectorByteCount,
            partition: UInt32(number), disk: disk))
      }
      devices.append(whole)
    }
    return devices
  }

  /// In bytes; sysfs counts in 512.
  static func size(_ directory: ByteString) -> UInt64? {
    (try? readFile(directory + "/size", limit: 64))?.trimmed.decimal(maximum: 1 << 54).map {
      $0 * 512
    }
  }

  func volumes() -> [VolumeIdentity] {
    guard let file = try? FileDescriptor.open(node) else { return [] }
    var reader = VolumeReader(byteCount: byteCount, sectorByteCount: sectorByteCount)
    while let region = reader.region {
      let bytes = Self.read(file.rawValue, region)
      reader.examine(bytes.span)
    }
    return reader.volumes
  }

  func partitionTable() -> PartitionTable? {
    guard let file = try? FileDescriptor.open(node) else { return nil }
    var reader = PartitionTableReader(byteCount: byteCount, sectorByteCount: sectorByteCount)
    while let region = reader.region {
      let bytes = Self.read(file.rawValue, region)
      reader.examine(bytes.span)
    }
    return reader.table
  }

  /// As much as can be read; nothing when there is an error.
  private static func read(_ number: CInt, _ region: VolumeRegion) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: region.byteCount)
    var filled = 0
    while filled < bytes.count {
      let offset = Int64(clamping: region.offset) + Int64(filled)
      let count = unsafe bytes.withUnsafeMutableBytes { raw in
        // SAFETY: `filled` is below the array's count.
        unsafe clinux_pread(number, raw.baseAddress! + filled, raw.count - filled, offset)
      }
      if count == -4 { continue }  // EINTR
      guard count > 0 else { break }
      filled += count
    }
    return Array(bytes[..<filled])
  }

  /// For a person who looks for the root: `nbd0p1 (ext4 UUID=...)`.
  var description: ByteString {
    var text = name
    for volume in volumes() {
      text += " (" + ByteString(volume.fileSystem.name)
      if let uuid = volume.uuid { text += " UUID=" + uuid }
      if let label = volume.label { text += " LABEL=" + label }
      text += ")"
    }
    return text
  }
}

// SPDX-License-Identifier: Apache-2.0
// What udev would bring about, done at once: the kernel scans for partitions at the first open
// after attaching, and a change event makes whoever waits for UUID= look again.

import CLinux
public import LinuxSystem
public import WireFormat

/// What the first look at a new device found.
public struct FirstLook: Equatable, Sendable {
  /// Of the first 4 KiB alone.
  public let hasPartitionTable: Bool
  /// Those that the kernel has made by then: `nbd0p1`.
  public let partitions: [ByteString]
  /// How long the first 4 KiB took.
  public let readMilliseconds: UInt64
  /// False when a table was found and no partition came of it in time.
  public var isSettled: Bool { !hasPartitionTable || !partitions.isEmpty }
}

extension NBDDevice {
  static let partitionMilliseconds: UInt64 = 2000
  static let lookByteCount = 4096

  /// Scans for partitions, reads the first 4 KiB, announces the change. Waits for partitions only
  /// where the first blocks hold a partition table.
  public func takeFirstLook() throws(SystemError) -> FirstLook {
    let start = MonotonicTime.now
    var head: [UInt8] = []
    do {
      let file = try FileDescriptor.open(node)
      while head.count < Self.lookByteCount {
        guard try file.read(into: &head, maximum: Self.lookByteCount - head.count) else { break }
      }
    }
    let readMilliseconds = MonotonicTime.now.milliseconds(since: start)
    let hasTable = Self.holdsPartitionTable(head)
    var found = partitions
    if hasTable, found.isEmpty {
      let deadline = Deadline.milliseconds(Self.partitionMilliseconds)
      repeat {
        do {
          let file = try FileDescriptor.open(node)
          _ = clinux_ioctl_value(file.rawValue, clinux_BLKRRPART, 0)  // EBUSY: it is in use.
        }
        found = partitions
        if !found.isEmpty { break }
        pause(milliseconds: 20)
      } while !deadline.hasPassed
    }
    announceChange()
    return FirstLook(
      hasPartitionTable: hasTable, partitions: found, readMilliseconds: readMilliseconds)
  }

  /// The uevent `change`, for udev. Nobody may be listening, and nothing depends on it.
  public func announceChange() {
    do { try writeExistingFile(directory + "/uevent", "change") } catch {}
  }

  /// A GPT header in the second block of 512 or 4096 bytes, or an MBR with plausible entries (a
  /// FAT boot sector ends in the same two bytes). Source: UEFI 2.10, 5.2 and 5.3.
  public static func holdsPartitionTable(_ head: [UInt8]) -> Bool {
    guard head.count >= 512, head[510] == 0x55, head[511] == 0xaa else { return false }
    if head.count >= 520, head[512..<520].elementsEqual("EFI PART".utf8) { return true }
    var isUsed = false
    for entry in 0..<4 {
      let offset = 446 + entry * 16
      guard head[offset] & 0x7f == 0 else { return false }
      let type = head[offset + 4]
      var sectors: UInt32 = 0
      for byte in head[(offset + 12)..<(offset + 16)] { sectors |= UInt32(byte) }
      if type != 0, sectors != 0 { isUsed = true }
    }
    return isUsed
  }
}

// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// A file system found on a device or a partition, by the name that mount(2) knows.
public struct VolumeIdentity: Equatable, Sendable {
  /// Those that a root may have; others are not looked for.
  public enum FileSystem: Equatable, Sendable {
    case ext2, ext3, ext4, xfs, btrfs, squashfs, erofs, f2fs, vfat, iso9660

    /// For mount(2), and what its module is called.
    public var name: String {
      switch self {
      case .ext2: "ext2"
      case .ext3: "ext3"
      case .ext4: "ext4"
      case .xfs: "xfs"
      case .btrfs: "btrfs"
      case .squashfs: "squashfs"
      case .erofs: "erofs"
      case .f2fs: "f2fs"
      case .vfat: "vfat"
      case .iso9660: "iso9660"
      }
    }
    /// Whether no kernel mounts it for writing.
    public var isReadOnly: Bool { self == .squashfs || self == .erofs || self == .iso9660 }
  }

  public var fileSystem: FileSystem
  /// As blkid(8) prints it: mostly hexadecimal with dashes, `ABCD-1234` for vfat, a date for
  /// iso9660; nil when there is none.
  public var uuid: ByteString?
  /// Nil when there is none.
  public var label: ByteString?

  public init(_ fileSystem: FileSystem, uuid: ByteString?, label: ByteString?) {
    self.fileSystem = fileSystem
    self.uuid = uuid
    self.label = label
  }
}

/// What `root=` says instead of a device's name.
public enum RootTag: Equatable, Sendable {
  case uuid(ByteString)
  case label(ByteString)
  /// `offset` is added to the number of the partition that has the identifier: the kernel's
  /// `PARTUUID=.../PARTNROFF=1`. Source: Linux `block/early-lookup.c`.
  case partitionUUID(ByteString, offset: Int32)
  case partitionLabel(ByteString)

  /// Nil when `text` is no tag, or a tag without a value.
  public init?(_ text: ByteString) {
    if let value = text.dropping(prefix: "UUID="), let value = Self.value(value) {
      self = .uuid(value)
    } else if let value = text.dropping(prefix: "LABEL="), let value = Self.value(value) {
      self = .label(value)
    } else if let value = text.dropping(prefix: "PARTLABEL="), let value = Self.value(value) {
      self = .partitionLabel(value)
    } else if let value = text.dropping(prefix: "PARTUUID="), let value = Self.value(value) {
      guard let slash = value.cut(at: 0x2f) else {
        self = .partitionUUID(value, offset: 0)
        return
      }
      guard !slash.head.isEmpty, let digits = slash.tail.dropping(prefix: "PARTNROFF=") else {
        return nil
      }
      let isNegative = digits.hasPrefix("-")
      let number = isNegative ? ByteString(digits.bytes.dropFirst()) : digits
      guard let offset = number.decimal(maximum: 255) else { return nil }
      let value = Int32(truncatingIfNeeded: offset)
      self = .partitionUUID(slash.head, offset: isNegative ? -value : value)
    } else {
      return nil
    }
  }

  /// Without double quotes around, and with udev's `\x20` for the byte 0x20.
  private static func value(_ text: ByteString) -> ByteString? {
    var bytes = text.bytes[...]
    if bytes.count >= 2, bytes.first == 0x22, bytes.last == 0x22 {
      bytes = bytes.dropFirst().dropLast()
    }
    var value: [UInt8] = []
    var index = bytes.startIndex
    while index < bytes.endIndex {
      if bytes[index] == 0x5c, bytes.endIndex - index >= 4, bytes[index + 1] == 0x78,
        let high = digit(bytes[index + 2]), let low = digit(bytes[index + 3])
      {
        value.append(high << 4 | low)
        index += 4
      } else {
        value.append(bytes[index])
        index += 1
      }
    }
    return value.isEmpty ? nil : ByteString(value)
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x41...0x46, 0x61...0x66: (byte | 0x20) - 0x57
    default: nil
    }
  }

  /// Identifiers are compared without regard to case, labels byte for byte.
  public func matches(_ volume: VolumeIdentity) -> Bool {
    switch self {
    case .uuid(let uuid): volume.uuid?.lowercasedASCII == uuid.lowercasedASCII
    case .label(let label): volume.label == label
    case .partitionUUID, .partitionLabel: false
    }
  }

  /// The number of the partition that is meant; nil when it is not in `table`.
  public func partitionNumber(in table: PartitionTable) -> UInt32? {
    switch self {
    case .uuid, .label: return nil
    case .partitionLabel(let label):
      for partition in table.partitions where partition.label == label { return partition.number }
      return nil
    case .partitionUUID(let uuid, let offset):
      for partition in table.partitions
      where partition.uuid.lowercasedASCII == uuid.lowercasedASCII {
        let number = Int64(partition.number) + Int64(offset)
        for other in table.partitions where Int64(other.number) == number { return other.number }
        return nil
      }
      return nil
    }
  }
}

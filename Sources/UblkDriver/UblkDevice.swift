// SPDX-License-Identifier: Apache-2.0
// One ublk device as sysfs shows it.

import LinuxSystem
public import WireFormat

/// A number, whether the device exists or not. Everything is read from sysfs when it is asked for.
public struct UblkDevice: Equatable, Sendable {
  /// Source: `UBLK_MAX_UBLKS`, Linux `drivers/block/ublk_drv.c`.
  public static let indexMaximum: UInt32 = (1 << 20) - 1
  static let smallFileLimit = 4096

  /// Empty, or a directory that stands for `/`.
  public let root: ByteString
  /// N of /dev/ublkbN.
  public let index: UInt32

  public init(index: UInt32, root: ByteString = "") {
    self.index = index
    self.root = root
  }

  /// `/dev/ublkbN` or `ublkbN`; nil for anything else, a partition too.
  public init?(named text: ByteString, root: ByteString = "") {
    guard let index = diskIndex(named: text, prefix: "ublkb", maximum: Self.indexMaximum) else {
      return nil
    }
    self.init(index: index, root: root)
  }

  /// Of the disk.
  public var name: ByteString { ByteString("ublkb\(index)") }
  public var node: ByteString { "/dev/" + name }
  /// Where requests are fetched from.
  public var characterNode: ByteString { "/dev/" + characterName }
  var characterName: ByteString { ByteString("ublkc\(index)") }
  /// In sysfs; there only while the disk is.
  public var directory: ByteString { root + "/sys/block/" + name }
  var characterDirectory: ByteString { root + "/sys/class/ublk-char/" + characterName }

  /// Every device that the driver has, with a disk or without, by index.
  public static func all(root: ByteString = "") -> [UblkDevice] {
    let names = (try? listDirectory(root + "/sys/class/ublk-char", limit: 4096)) ?? []
    var devices: [UblkDevice] = []
    for name in names {
      guard let digits = name.dropping(prefix: "ublkc"),
        let index = digits.decimal(maximum: UInt64(indexMaximum))
      else { continue }
      devices.append(UblkDevice(index: UInt32(index), root: root))
    }
    return devices.ordered { $0.index < $1.index }
  }

  /// A file of the disk's directory without its line end; nil when there is none.
  public func attribute(_ name: ByteString) -> ByteString? {
    (try? readFile(directory + "/" + name, limit: Self.smallFileLimit))?.trimmed
  }

  /// The driver knows the number, with a disk or without.
  public var exists: Bool { fileExists(characterDirectory) }
  /// It was started, and not stopped since.
  public var hasDisk: Bool { fileExists(directory) }
  /// 0 without a disk.
  public var sizeByteCount: UInt64 {
    (attribute("size")?.decimal(maximum: .max / 512) ?? 0) * 512
  }
  /// Nil without a disk.
  public var blockByteCount: UInt64? { attribute("queue/logical_block_size")?.decimal() }
  /// False without a disk.
  public var isReadOnly: Bool { attribute("ro") == "1" }

  /// The names of its partitions: ublkb0p1 and so on.
  public var partitions: [ByteString] {
    let names = (try? listDirectory(directory, limit: 4096)) ?? []
    var partitions: [ByteString] = []
    for name in names where name.dropping(prefix: self.name + "p")?.isAllDigits ?? false {
      partitions.append(name)
    }
    return partitions.ordered { left, right in
      left.count == right.count
        ? left.bytes.lexicographicallyPrecedes(right.bytes) : left.count < right.count
    }
  }

  /// The node of the disk, once it was started.
  public func makeNode() throws(UblkError) {
    do {
      try ensureDeviceNode(
        node, .block, numberPath: directory + "/dev",
        milliseconds: UblkControl.nodeMilliseconds)
    } catch { throw .node(node, error) }
  }
}

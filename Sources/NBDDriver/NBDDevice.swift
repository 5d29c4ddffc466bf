// SPDX-License-Identifier: Apache-2.0
// One nbd device as sysfs shows it. Everything is read below a prefix, so that a copy of a
// machine's /sys and /proc can be looked at on another one.

import LinuxSystem
public import WireFormat

/// A number, whether the device exists or not. Everything is read from sysfs when it is asked for.
public struct NBDDevice: Equatable, Sendable {
  /// Source: `1 << (MINORBITS - part_shift)` with the 31 partitions that max_part=16 gives,
  /// Linux `drivers/block/nbd.c`.
  public static let indexMaximum: UInt32 = 32_767
  static let smallFileLimit = 4096

  /// Empty, or a directory that stands for `/`.
  public let root: ByteString
  /// N of /dev/nbdN.
  public let index: UInt32

  public init(index: UInt32, root: ByteString = "") {
    self.index = index
    self.root = root
  }

  /// `/dev/nbdN` or `nbdN`; nil for anything else, a partition too.
  public init?(named text: ByteString, root: ByteString = "") {
    guard let index = diskIndex(named: text, prefix: "nbd", maximum: Self.indexMaximum) else {
      return nil
    }
    self.init(index: index, root: root)
  }

  public var name: ByteString { ByteString("nbd\(index)") }
  public var node: ByteString { "/dev/" + name }
  /// Source: Linux `Documentation/block/stat.rst`.
  public var statisticsPath: ByteString { directory + "/stat" }
  var directory: ByteString { root + "/sys/block/" + name }

  /// Every device that the driver has made, attached or not, by index.
  public static func all(root: ByteString = "") -> [NBDDevice] {
    let names = (try? listDirectory(root + "/sys/block", limit: 65_536)) ?? []
    var devices: [NBDDevice] = []
    for name in names {
      if let device = NBDDevice(named: name, root: root) { devices.append(device) }
    }
    return devices.ordered { $0.index < $1.index }
  }

  /// A file of the device's directory without its line end; nil when there is none.
  func attribute(_ name: ByteString) -> ByteString? {
    (try? readFile(directory + "/" + name, limit: Self.smallFileLimit))?.trimmed
  }

  /// The driver has made it; it may be free.
  public var exists: Bool { fileExists(directory) }
  /// The `pid` file is there as long as the device is attached. What STATUS of the netlink family
  /// calls connected may be merely open.
  public var isAttached: Bool { fileExists(directory + "/pid") }
  /// The thread that attached it; it may be long gone.
  public var ownerThread: UInt32? {
    attribute("pid")?.decimal(maximum: UInt64(Int32.max)).map { UInt32($0) }
  }
  /// What the attaching program called the server's end; empty when it said nothing, nil when it
  /// attached through ioctl(2).
  public var backendIdentifier: ByteString? { attribute("backend") }
  /// How it was attached; nil while it is not.
  public var interface: DriverInterface? {
    guard isAttached else { return nil }
    return fileExists(directory + "/backend") ? .netlink : .ioctl
  }
  /// 0 when there is no such device.
  public var sizeByteCount: UInt64 {
    (attribute("size")?.decimal(maximum: .max / 512) ?? 0) * 512
  }
  /// Nil when there is no such device.
  public var blockByteCount: UInt64? { attribute("queue/logical_block_size")?.decimal() }
  public var isReadOnly: Bool { attribute("ro") == "1" }
  /// `MAJOR:MINOR`.
  public var deviceNumber: ByteString? { attribute("dev") }

  /// The names of its partitions: nbd0p1 and so on.
  public var partitions: [ByteString] {
    let names = (try? listDirectory(directory, limit: 4096)) ?? []
    var partitions: [ByteString] = []
    for name in names where isPartition(name) { partitions.append(name) }
    return partitions.ordered { left, right in
      left.count == right.count
        ? left.bytes.lexicographicallyPrecedes(right.bytes) : left.count < right.count
    }
  }

  func isPartition(_ name: ByteString) -> Bool {
    name.dropping(prefix: self.name + "p")?.isAllDigits ?? false
  }

  /// The name of a process or thread; nil when it is gone.
  func processName(_ id: UInt32) -> ByteString? {
    (try? readFile(root + ByteString("/proc/\(id)/comm"), limit: 256))?.trimmed
  }
}

// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// The name of a block device of ours, with the partition if one is meant.
public struct DeviceName: Hashable, Sendable {
  public enum Driver: Hashable, Sendable { case nbd, ublk }

  public var driver: Driver
  /// Up to `numberMaximum`.
  public var number: UInt32
  /// 1 to `partitionMaximum`; nil: the whole device.
  public var partition: UInt32?

  /// Minor numbers have 20 bits and every nbd device takes at least 16 of them.
  /// Source: `MINORBITS` in Linux `include/linux/kdev_t.h`; Debian's `nbd.max_part=15`.
  public static let numberMaximum: UInt32 = 65535
  /// Source: `DISK_MAX_PARTS` in Linux `include/linux/blkdev.h`, which counts the whole device, too.
  public static let partitionMaximum: UInt32 = 255

  public init(_ driver: Driver, _ number: UInt32, partition: UInt32? = nil) {
    self.driver = driver
    self.number = number
    self.partition = partition
  }

  /// `[/dev/]nbdN[pM]` or `[/dev/]ublkbN[pM]`; nil for anything else.
  public init?(_ text: ArraySlice<UInt8>) {
    var rest = text
    if rest.hasPrefix("/dev/") { rest = rest.dropFirst(5) }
    if rest.hasPrefix("nbd") {
      driver = .nbd
      rest = rest.dropFirst(3)
    } else if rest.hasPrefix("ublkb") {
      driver = .ublk
      rest = rest.dropFirst(5)
    } else {
      return nil
    }
    let digits = rest.leadingDigitCount
    guard let number = rest.prefix(digits).decimal(maximum: UInt64(Self.numberMaximum)) else {
      return nil
    }
    self.number = UInt32(truncatingIfNeeded: number)
    rest = rest.dropFirst(digits)
    guard !rest.isEmpty else { return }
    guard rest.first == 0x70,
      let partition = rest.dropFirst().decimal(maximum: UInt64(Self.partitionMaximum)),
      partition > 0
    else { return nil }
    self.partition = UInt32(truncatingIfNeeded: partition)
  }

  /// The device itself, whatever partition is meant.
  public var wholeDevice: DeviceName { DeviceName(driver, number) }

  /// As a path below /dev, with the partition.
  public var path: String {
    let name = driver == .nbd ? "/dev/nbd\(number)" : "/dev/ublkb\(number)"
    return partition.map { "\(name)p\($0)" } ?? name
  }
}

// SPDX-License-Identifier: Apache-2.0
// From `root=` to a device that can be mounted, waiting until it is there.

import BootPlanning
import LinuxSystem
import RootVolumes
import WireFormat

struct RootFinder {
  /// Source: initramfs-tools, which waits as long.
  static let usualSeconds: UInt64 = 30
  /// Disks of this machine may be slow to appear; what is attached is there.
  static let lookMilliseconds: UInt64 = 20
  static let complaintMilliseconds: UInt64 = 5000

  let wanted: ByteString
  let wait: DeviceWait
  let log: Log

  func find() throws(StartError) -> BlockDevice {
    let start = MonotonicTime.now
    let seconds: UInt64 =
      switch wait {
      case .usual: Self.usualSeconds
      case .seconds(let count): UInt64(count)
      case .forEver: 0
      }
    let deadline = wait == .forEver ? Deadline.never : .milliseconds(seconds * 1000)
    var hasComplained = false
    while true {
      let devices = BlockDevice.all()
      if let found = Self.find(wanted, in: devices) { return found }
      if deadline.hasPassed {
        if let name = wanted.dropping(prefix: "/dev/"),
          BlockDevice.size("/sys/class/block/" + name) == 0
        {
          throw .deviceEmpty(wanted)
        }
        var present: [ByteString] = []
        for device in devices.prefix(16) { present.append(device.description) }
        throw .rootMissing(wanted, seconds: seconds, present: present)
      }
      if !hasComplained, MonotonicTime.now.milliseconds(since: start) > Self.complaintMilliseconds {
        hasComplained = true
        log.write(.warning, "waiting for the root \(wanted.printable)")
      }
      pause(milliseconds: Self.lookMilliseconds)
    }
  }

  /// Nil when it is not among `devices`.
  private static func find(_ wanted: ByteString, in devices: [BlockDevice]) -> BlockDevice? {
    guard let tag = RootTag(wanted) else {
      var node = wanted
      // /dev/root and the like.
      if let target = try? readLink(wanted) {
        node = target.hasPrefix("/") ? target : "/dev/" + target
      }
      for device in devices where device.node == node && fileExists(node) { return device }
      return nil
    }
    switch tag {
    case .uuid, .label:
      for device in devices {
        for volume in device.volumes() where tag.matches(volume) { return device }
      }
    case .partitionUUID, .partitionLabel:
      for disk in devices where disk.partition == 0 {
        guard let table = disk.partitionTable(), let number = tag.partitionNumber(in: table) else {
          continue
        }
        for device in devices where device.disk == disk.name && device.partition == number {
          return device
        }
      }
    }
    return nil
  }
}

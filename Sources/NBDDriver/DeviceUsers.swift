// SPDX-License-Identifier: Apache-2.0
// Who uses a device: file systems, swap, devices stacked on it, processes that have it open.
// Partitions count as the device. Sources: proc(5) for mountinfo and swaps; `holders` and
// `loop/backing_file` in Linux `Documentation/ABI/testing/sysfs-block`.

import LinuxSystem
public import WireFormat

/// One use of a device or of one of its partitions, which `device` names: `/dev/nbd0p1`.
public enum DeviceUser: Equatable, Sendable {
  /// `on` is the mount point.
  case mounted(device: ByteString, on: ByteString)
  case swap(device: ByteString)
  /// A device-mapper, md or other device made of it, by its kernel name.
  case heldBy(device: ByteString, holder: ByteString)
  /// A loop device over it, `by` its name.
  case loop(device: ByteString, by: ByteString)
  case open(process: UInt32, name: ByteString)

  /// "mounted on /mnt".
  public var text: String {
    switch self {
    case .mounted(_, let place): "mounted on \(place.printable)"
    case .swap(let device): "swap on \(device.printable)"
    case .heldBy(_, let holder): "part of \(holder.printable)"
    case .loop(_, let loop): "backing \(loop.printable)"
    case .open(let process, let name): "open in process \(process) (\(name.printable))"
    }
  }
}

extension NBDDevice {
  static let tableLimit = 4 << 20
  /// More names than a person reads; processes are not searched for more.
  static let usersMaximum = 16

  /// Everything that uses the device, but not the process that attached it.
  public var users: [DeviceUser] {
    let users = stackedUsers
    return users + openUsers(maximum: Self.usersMaximum)
  }

  /// File systems, swap and devices on top. Reads a few files only.
  public var stackedUsers: [DeviceUser] {
    var nodes: [(name: ByteString, number: ByteString?)] = [(name, deviceNumber)]
    for partition in partitions { nodes.append((partition, attribute(partition + "/dev"))) }
    var users = mounts(of: nodes)
    let swaps = (try? readFile(root + "/proc/swaps", limit: Self.tableLimit)) ?? ""
    for line in swaps.fields(separatedBy: 0x0a) {
      let path = ByteString(line.bytes.prefix { $0 != 0x20 && $0 != 0x09 })
      for node in nodes where path == "/dev/" + node.name { users.append(.swap(device: path)) }
    }
    for node in nodes {
      let place = node.name == name ? directory : directory + "/" + node.name
      for holder in (try? listDirectory(place + "/holders", limit: 256)) ?? [] {
        users.append(.heldBy(device: "/dev/" + node.name, holder: "/dev/" + holder))
      }
    }
    for entry in (try? listDirectory(root + "/sys/block", limit: 65_536)) ?? [] {
      guard entry.hasPrefix("loop"),
        let file = try? readFile(
          root + "/sys/block/" + entry + "/loop/backing_file", limit: Self.smallFileLimit)
      else { continue }
      for node in nodes where file.trimmed == "/dev/" + node.name {
        users.append(.loop(device: file.trimmed, by: "/dev/" + entry))
      }
    }
    return users
  }

  private func mounts(of nodes: [(name: ByteString, number: ByteString?)]) -> [DeviceUser] {
    let table = (try? readFile(root + "/proc/self/mountinfo", limit: Self.tableLimit)) ?? ""
    var users: [DeviceUser] = []
    for line in table.fields(separatedBy: 0x0a) {
      let fields = line.fields(separatedBy: 0x20)
      guard fields.count >= 7 else { continue }
      // After the optional fields and a lone `-`: the type, then the source. File systems that
      // span devices (btrfs) have a number of their own, and only the source names the device.
      var source: ByteString = ""
      var position = 6
      while position < fields.count {
        if fields[position] == "-" {
          if position + 2 < fields.count { source = fields[position + 2] }
          break
        }
        position += 1
      }
      for node in nodes
      where (node.number != nil && fields[2] == node.number) || source == "/dev/" + node.name {
        users.append(
          .mounted(device: "/dev/" + node.name, on: fields[4].unescapingOctal))
      }
    }
    return users
  }

  /// Processes that have the device or a partition of it open. Ours, and the one that attached
  /// it, are not among them. Needs the right to look into other processes.
  public func openUsers(maximum: Int) -> [DeviceUser] {
    let own = currentProcessIdentifier()
    let owner = ownerThread.flatMap { processOfThread($0) }
    var users: [DeviceUser] = []
    for entry in (try? listDirectory(root + "/proc", limit: 1 << 20)) ?? [] {
      guard let value = entry.decimal(maximum: UInt64(Int32.max)) else { continue }
      let process = UInt32(value)
      guard process != own, process != owner else { continue }
      let place = root + "/proc/" + entry
      for descriptor in (try? listDirectory(place + "/fd", limit: 65_536)) ?? [] {
        guard let target = try? readLink(place + "/fd/" + descriptor),
          let file = target.dropping(prefix: "/dev/"), file == name || isPartition(file)
        else { continue }
        users.append(.open(process: process, name: processName(process) ?? ""))
        break
      }
      if users.count == maximum { break }
    }
    return users
  }

  /// The `pid` file names a thread; /proc lists processes.
  func processOfThread(_ thread: UInt32) -> UInt32? {
    let status = try? readFile(root + ByteString("/proc/\(thread)/status"), limit: 16_384)
    for line in status?.fields(separatedBy: 0x0a) ?? [] {
      if let rest = line.dropping(prefix: "Tgid:"),
        let process = rest.trimmed.decimal(maximum: UInt64(Int32.max))
      {
        return UInt32(process)
      }
    }
    return nil
  }
}

extension ByteString {
  /// `\040` and its like, as the kernel writes blanks in mountinfo.
  var unescapingOctal: ByteString {
    var result: [UInt8] = []
    var position = 0
    func digit(_ offset: Int) -> UInt8? {
      guard position + offset < count else { return nil }
      let byte = bytes[position + offset]
      return byte >= 0x30 && byte <= 0x37 ? byte - 0x30 : nil
    }
    while position < count {
      if bytes[position] == 0x5c, let high = digit(1), high < 4, let middle = digit(2),
        let low = digit(3)
      {
        result.append(high << 6 | middle << 3 | low)
        position += 4
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return ByteString(result)
  }
}

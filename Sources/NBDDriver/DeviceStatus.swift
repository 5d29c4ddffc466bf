// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
public import WireFormat

/// Everything that can be known of one device, read once.
public struct DeviceStatus: Equatable, Sendable {
  public var node: ByteString
  public var index: UInt32
  /// Nil while nothing is attached.
  public var owner: DeviceOwner?
  public var sizeByteCount: UInt64
  /// Nil when there is no such device.
  public var blockByteCount: UInt64?
  public var isReadOnly: Bool
  /// None while nothing is attached: those of the last time stay behind in sysfs.
  public var partitions: [ByteString]
  /// While nothing is attached without processes that have it open.
  public var users: [DeviceUser]
  /// When the attachment is one of ours.
  public var record: AttachmentRecord?
  /// Nil when nobody keeps it, or nothing is attached.
  public var keeper: DeviceKeeper?
  /// It was attached to be kept.
  public var isMeantToBeKept: Bool

  public var isAttached: Bool { owner != nil }

  public init(_ device: NBDDevice) {
    node = device.node
    index = device.index
    owner = device.owner
    sizeByteCount = device.sizeByteCount
    blockByteCount = device.blockByteCount
    isReadOnly = device.isReadOnly
    // Those of a device that was detached stay behind until its next scan.
    partitions = owner == nil ? [] : device.partitions
    // Who has it merely open is a walk through /proc, and matters to an attached device only.
    users = owner == nil ? device.stackedUsers : device.users
    record = device.record
    keeper = owner == nil ? nil : DeviceKeeper.ask(device, .state)
    isMeantToBeKept = record != nil && fileExists(device.keeperFilePath)
  }
}

extension DeviceStatus {
  /// One line, and one more for each thing to know of an attached device.
  public var text: ByteString {
    var text = node.printable
    guard let owner else {
      text += users.isEmpty ? ": not attached\n" : ": not attached, " + userText + "\n"
      return ByteString(text)
    }
    text += ": \(sizeByteCount) bytes"
    if let blockByteCount { text += " in blocks of \(blockByteCount)" }
    text += isReadOnly ? ", read-only\n" : ", read-write\n"
    if let record {
      text += "  server: \(record.server.printable), export '\(record.export.printable)'"
      text += record.connectionCount == 1 ? "\n" : ", \(record.connectionCount) connections\n"
    }
    text += "  \(owner.text)\n"
    if let keeper {
      text += "  kept by process \(keeper.process)\n"
      for one in keeper.connections {
        text += "    connection \(one.slot): \(one.state.printable), \(one.address.printable)\n"
      }
    } else if isMeantToBeKept {
      text += "  nobody keeps it: rootlink attach --keep \(node.printable)\n"
    }
    if !partitions.isEmpty {
      text += "  partitions:"
      for partition in partitions { text += " " + partition.printable }
      text += "\n"
    }
    if !users.isEmpty { text += "  in use: " + userText + "\n" }
    return ByteString(text)
  }

  private var userText: String {
    var text = ""
    for (position, user) in users.enumerated() {
      if position > 0 { text += ", " }
      text += user.text
    }
    return text
  }

  /// One object. Keys are added, never renamed.
  public func write(to json: inout JSONWriter) {
    json.beginObject()
    json.member("device", node)
    json.member("index", index)
    json.member("driver", "nbd")
    json.member("attached", isAttached)
    json.key("size")
    json.number(isAttached ? sizeByteCount : 0)
    json.key("blockSize")
    if let blockByteCount, isAttached { json.number(blockByteCount) } else { json.null() }
    json.member("readOnly", isReadOnly)
    json.member("interface", owner.map { ByteString($0.interface.name) })
    json.member("pid", owner?.thread)
    json.member("process", owner?.processName)
    json.member("backend", owner?.backendIdentifier)
    json.member("server", record?.server)
    json.member("export", record?.export)
    json.member("connections", record?.connectionCount)
    json.key("keeper")
    if let keeper { keeper.write(to: &json) } else { json.null() }
    json.key("attachedAt")
    if let seconds = record?.attachedSeconds, seconds != 0 {
      json.number(seconds)
    } else {
      json.null()
    }
    json.key("partitions")
    json.beginArray()
    for partition in partitions { json.string("/dev/" + partition) }
    json.endArray()
    json.key("users")
    json.beginArray()
    for user in users { user.write(to: &json) }
    json.endArray()
    json.endObject()
  }
}

extension DeviceKeeper {
  func write(to json: inout JSONWriter) {
    json.beginObject()
    json.member("pid", process)
    json.key("connections")
    json.beginArray()
    for one in connections {
      json.beginObject()
      json.member("slot", one.slot)
      json.member("state", one.state)
      json.member("address", one.address)
      json.endObject()
    }
    json.endArray()
    json.endObject()
  }
}

extension DeviceUser {
  /// `kind` says which other keys are there.
  func write(to json: inout JSONWriter) {
    json.beginObject()
    switch self {
    case .mounted(let device, let place):
      json.member("kind", "mount")
      json.member("device", device)
      json.member("on", place)
    case .swap(let device):
      json.member("kind", "swap")
      json.member("device", device)
    case .heldBy(let device, let holder):
      json.member("kind", "holder")
      json.member("device", device)
      json.member("holder", holder)
    case .loop(let device, let loop):
      json.member("kind", "loop")
      json.member("device", device)
      json.member("holder", loop)
    case .open(let process, let name):
      json.member("kind", "open")
      json.member("pid", process)
      json.member("process", name)
    }
    json.endObject()
  }
}

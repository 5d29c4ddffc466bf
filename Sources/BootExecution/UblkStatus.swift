// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import NBDDriver
import UblkDriver
import WireFormat

/// What can be known of one ublk device, read once.
struct UblkStatus {
  let device: UblkDevice
  /// Nil while nobody carries its data.
  let process: UInt32?
  /// Who starts another one when that one ends; nil when nobody does.
  let standby: UInt32?
  let record: AttachmentRecord?
  let liveCount: UInt32
  let lossCount: UInt64
  let repeatedCount: UInt64

  init(_ device: UblkDevice) {
    self.device = device
    var process: UInt32?
    if device.root.isEmpty, let information = try? Self.information(device),
      information.state == .live
    {
      process = information.serverProcess
    }
    self.process = process
    standby = device.root.isEmpty ? device.standby : nil
    record = device.record
    let state = UblkStatePage.read(device)
    liveCount = process == nil ? 0 : state.live
    lossCount = state.losses
    repeatedCount = state.repeated
  }

  private static func information(_ device: UblkDevice) throws(UblkError) -> DeviceInformation? {
    try UblkControl().information(of: device.index)
  }

  var text: ByteString {
    var text = device.node.printable + ": \(device.sizeByteCount) bytes"
    if let block = device.blockByteCount { text += " in blocks of \(block)" }
    text += device.isReadOnly ? ", read-only\n" : ", read-write\n"
    if let record {
      text += "  server: \(record.server.printable), export '\(record.export.printable)'"
      text += record.connectionCount == 1 ? "\n" : ", \(record.connectionCount) connections\n"
    }
    if let process {
      text += "  carried by process \(process), \(liveCount) connected, "
      text += "\(lossCount) connections lost so far, \(repeatedCount) requests sent again\n"
      if let standby { text += "  process \(standby) stands by\n" }
    } else {
      text += "  nobody carries its data, requests wait: rootlink attach --keep "
      text += device.node.printable + "\n"
    }
    let partitions = device.partitions
    if !partitions.isEmpty {
      text += "  partitions:"
      for partition in partitions { text += " " + partition.printable }
      text += "\n"
    }
    return ByteString(text)
  }

  /// One object with the keys of an nbd device, as far as they have a meaning here.
  func write(to json: inout JSONWriter) {
    json.beginObject()
    json.member("device", device.node)
    json.member("index", device.index)
    json.member("driver", "ublk")
    json.member("attached", true)
    json.key("size")
    json.number(device.sizeByteCount)
    json.key("blockSize")
    if let block = device.blockByteCount { json.number(block) } else { json.null() }
    json.member("readOnly", device.isReadOnly)
    json.member("pid", process)
    json.member("standby", standby)
    json.member("server", record?.server)
    json.member("export", record?.export)
    json.member("connections", record?.connectionCount)
    json.key("connected")
    json.number(UInt64(liveCount))
    json.key("losses")
    json.number(lossCount)
    json.key("repeatedRequests")
    json.number(repeatedCount)
    json.key("attachedAt")
    if let seconds = record?.attachedSeconds, seconds != 0 {
      json.number(seconds)
    } else {
      json.null()
    }
    json.key("partitions")
    json.beginArray()
    for partition in device.partitions { json.string("/dev/" + partition) }
    json.endArray()
    json.endObject()
  }
}

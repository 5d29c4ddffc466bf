// SPDX-License-Identifier: Apache-2.0
// What can be said of a ublk device: for RNBD also what IBNBD's files in sysfs said, `state`, `session`,
// `mapping_path` and `access_mode` of a device and `state` of a path.

import LinuxSystem
import NBDDriver
import UblkDriver
import WireFormat

#if ROOTLINK_RDMA
  import RNBDProtocol
  import RTRSProtocol
#endif

/// What can be known of one ublk device, read once.
struct UblkStatus {
  let device: UblkDevice
  /// Nil while nobody carries its data.
  let process: UInt32?
  /// Who starts another one when that one ends; nil when nobody does.
  let standby: UInt32?
  let record: AttachmentRecord?
  private let reading: UblkStatePage.Reading
  #if ROOTLINK_RDMA
    /// Of the session that carries it.
    private let session: RNBDPlan?
  #endif

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
    reading = UblkStatePage.Reading(of: device)
    #if ROOTLINK_RDMA
      if case .rnbd(let plan) = device.plan { session = plan } else { session = nil }
    #endif
  }

  private var liveCount: UInt32 { process == nil ? 0 : reading.liveCount }

  /// Whether its server carries out requests now.
  private var isOpen: Bool {
    #if ROOTLINK_RDMA
      if session != nil, !reading.isOpen { return false }
    #endif
    return liveCount > 0
  }
  private var state: ByteString { isOpen ? "open" : "closed" }

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
      text += "  \(state.printable), carried by process \(process), \(liveCount) connected, "
      text += "\(reading.lossCount) connections lost so far, "
      text += "\(reading.repeatedCount) requests sent again\n"
      if let standby { text += "  process \(standby) stands by\n" }
    } else {
      text += "  nobody carries its data, requests wait: rootlink attach --keep "
      text += device.node.printable + "\n"
    }
    #if ROOTLINK_RDMA
      if let session {
        text += "  session '\(session.session.text.printable)', access mode "
        text += (accessMode ?? "").printable + "\n"
        for (number, path) in session.pathTexts.enumerated() {
          text += "    path \(path.printable): " + pathState(number).printable + "\n"
        }
      }
    #endif
    let partitions = device.partitions
    if !partitions.isEmpty {
      text += "  partitions:"
      for partition in partitions { text += " " + partition.printable }
      text += "\n"
    }
    return ByteString(text)
  }

  #if ROOTLINK_RDMA
    private var disk: RNBDPlan.Disk? { session?.disks.first { $0.index == device.index } }

    private var accessMode: ByteString? {
      switch disk?.accessMode {
      case .readOnly: "ro"
      case .readWrite: "rw"
      case .migration: "migration"
      case nil: nil
      }
    }

    private func pathState(_ number: Int) -> ByteString {
      process != nil && reading.pathsUp >> UInt64(number) & 1 != 0
        ? "connected" : "reconnecting"
    }

    private func writeSession(to json: inout JSONWriter) {
      guard let session else { return }
      json.member("session", session.session.text)
      json.member("mappingPath", disk?.name.text)
      json.member("accessMode", accessMode)
      json.key("paths")
      json.beginArray()
      for (number, path) in session.pathTexts.enumerated() {
        json.beginObject()
        json.member("path", path)
        json.member("state", pathState(number))
        json.endObject()
      }
      json.endArray()
    }
  #endif

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
    json.member("state", state)
    #if ROOTLINK_RDMA
      writeSession(to: &json)
    #endif
    json.member("pid", process)
    json.member("standby", standby)
    json.member("server", record?.server)
    json.member("export", record?.export)
    json.member("connections", record?.connectionCount)
    json.key("connected")
    json.number(UInt64(liveCount))
    json.key("losses")
    json.number(reading.lossCount)
    json.key("repeatedRequests")
    json.number(reading.repeatedCount)
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

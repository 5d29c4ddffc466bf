// SPDX-License-Identifier: Apache-2.0
// Turns sockets into a device. Netlink first: the kernel keeps the sockets and no process stays.
// Where the kernel has no netlink family for nbd, ioctl(2) and a process that stays in it.

import CLinux
import LinuxSystem
import NetlinkProtocol
import WireFormat

extension NBDDevice {
  /// The kernel is asked and answers at once, but may load a module first.
  static let netlinkMilliseconds: UInt64 = 10_000
  /// A device that nobody attached may still be open: udev looks at it after every change.
  static let busyMilliseconds: UInt64 = 1000
  static let nodeMilliseconds: UInt64 = 3000

  /// Attaches. On success the device is there with its node, and shows the export's size; its
  /// partitions are not scanned yet (`scanPartitions`).
  public static func attach(_ request: AttachRequest) throws(AttachError) -> Attachment {
    let geometry: DeviceGeometry
    do {
      geometry = try DeviceGeometry(
        request.geometry, pageByteCount: UInt64(max(4096, clinux_page_size())))
    } catch { throw .geometry(error) }
    try check(request)
    if case .index(let index) = request.device { try NBDDevice(index: index).checkUnused() }

    let attachment: Attachment
    switch request.interface {
    case .only(.ioctl):
      loadModule()
      attachment = try attachByControl(request, geometry)
    case .only(.netlink):
      guard let done = try attachByNetlink(request, geometry) else {
        throw moduleIsLoaded ? .familyMissing : .driverMissing
      }
      attachment = done
    case .automatic:
      if let done = try attachByNetlink(request, geometry) {
        attachment = done
      } else {
        guard moduleIsLoaded else { throw .driverMissing }
        attachment = try attachByControl(request, geometry)
      }
    }
    do {
      try attachment.device.limitRequests(geometry)
      try attachment.device.makeNode()
    } catch {
      // What cannot be used safely is not left behind.
      do { _ = try attachment.device.disconnect() } catch {}
      throw error
    }
    return attachment
  }

  private static func check(_ request: AttachRequest) throws(AttachError) {
    guard request.sockets.count >= 1, request.sockets.count <= NBDFamily.socketCountMaximum else {
      throw .socketCount(request.sockets.count)
    }
    guard request.sockets.count == 1 || request.allowsSeveralConnections else {
      throw .multiConnectionNotOffered(socketCount: request.sockets.count)
    }
    let identifier = request.backendIdentifier
    guard identifier.count <= NBDFamily.backendIdentifierByteCountMaximum,
      !identifier.bytes.contains(0)
    else { throw .backendIdentifier(byteCount: identifier.count) }
    if case .index(let index) = request.device, index > indexMaximum {
      throw .indexOutOfRange(index)
    }
  }

  /// Whether the driver is in the kernel, as a module or built in.
  static var moduleIsLoaded: Bool {
    fileExists("/sys/module/nbd") || fileExists("/sys/block/nbd0")
  }

  static func loadModule() {
    if !moduleIsLoaded { LinuxSystem.loadModule("nbd") }
  }

  func checkUnused() throws(AttachError) {
    guard exists else { return }
    let owner = owner
    let users = stackedUsers
    if owner != nil || !users.isEmpty {
      throw .inUse(device: node, owner: owner, users: users)
    }
  }

  /// Nil when the kernel has no netlink family for nbd.
  private static func attachByNetlink(
    _ request: AttachRequest, _ geometry: DeviceGeometry
  ) throws(AttachError) -> Attachment? {
    let wanted: NBDDevice? =
      switch request.device {
      case .index(let index): NBDDevice(index: index)
      case .anyFree: nil
      }
    var family: NBDFamilySocket
    do {
      guard let found = try NBDFamilySocket.open(until: .milliseconds(netlinkMilliseconds)) else {
        return nil
      }
      family = found
    } catch { throw .netlink(device: wanted?.node, error) }

    var message = NBDConnectMessage(
      index: nil, sizeByteCount: geometry.sizeByteCount, blockByteCount: geometry.blockByteCount,
      timeoutSeconds: request.timeoutSeconds, deadTimeoutSeconds: request.deadTimeoutSeconds,
      serverFlags: UInt64(request.transmissionFlags), sockets: [],
      backendIdentifier: request.backendIdentifier)
    message.index = wanted?.index
    for socket in request.sockets { message.sockets.append(UInt32(bitPattern: socket)) }
    // Before the first request where that is possible; after CONNECT for a device not yet made.
    if let wanted, wanted.exists { try wanted.limitRequests(geometry) }

    let patience = Deadline.milliseconds(busyMilliseconds)
    while true {
      let answers: [NBDKernelMessage]
      do {
        answers = try family.request(message.payload, until: .milliseconds(netlinkMilliseconds))
      } catch {
        guard error.errno == SystemError.busy.errno, let wanted else {
          throw .netlink(device: wanted?.node, error)
        }
        try wanted.checkUnused()
        if patience.hasPassed {
          throw .inUse(
            device: wanted.node, owner: nil, users: wanted.openUsers(maximum: usersMaximum))
        }
        pause(milliseconds: 10)
        continue
      }
      for case .connected(let index) in answers {
        return Attachment(
          device: NBDDevice(index: index), interface: .netlink, geometry: geometry)
      }
      throw .netlink(device: wanted?.node, .noAnswer)
    }
  }

  /// Keeps requests at or below what the server takes. A limit left by an earlier attachment is
  /// never raised: that costs speed only.
  func limitRequests(_ geometry: DeviceGeometry) throws(AttachError) {
    guard let maximum = geometry.maximumKibibytes else { return }
    let current = attribute("queue/max_sectors_kb")?.decimal() ?? .max
    guard current > UInt64(maximum) else { return }
    do {
      try writeExistingFile(directory + "/queue/max_sectors_kb", ByteString("\(maximum)"))
    } catch { throw .requestLimit(device: node, kibibytes: maximum, error) }
  }
}

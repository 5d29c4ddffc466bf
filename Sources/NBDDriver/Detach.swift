// SPDX-License-Identifier: Apache-2.0
// Ends an attachment, whoever made it and however: refused while somebody uses the device, unless
// forced.

import CLinux
public import LinuxSystem
import NetlinkProtocol
public import WireFormat

/// Why a device was not detached.
public indirect enum DetachError: Error, Equatable, Sendable {
  case noSuchDevice(ByteString)
  case notAttached(ByteString)
  case busy(device: ByteString, users: [DeviceUser])
  case netlink(device: ByteString, NetlinkError)
  case ioctl(device: ByteString, step: StaticFieldName, SystemError)
  /// Disconnected, but the kernel still holds the device.
  case stillThere(device: ByteString, users: [DeviceUser])

  public var report: (reason: String, advice: String) {
    switch self {
    case .noSuchDevice(let device):
      return ("there is no \(device.printable)", "see rootlink status")
    case .notAttached(let device):
      return ("\(device.printable) is not attached", "see rootlink status")
    case .busy(let device, let users):
      return (
        "\(device.printable) is busy: " + describeUse(owner: nil, users: users),
        "end that first; --force cuts the connection and loses what is not written"
      )
    case .netlink(let device, let error):
      return (
        "\(device.printable) cannot be detached: \(error.reason)",
        error.errno == 1 ? "run it as root" : "look at the kernel log"
      )
    case .ioctl(let device, let step, let error):
      return (
        "\(device.printable): \(step.text): \(error.text)",
        error.errno == 1 || error.errno == 13 ? "run it as root" : "look at the kernel log"
      )
    case .stillThere(let device, let users):
      return (
        "\(device.printable) is disconnected, but the kernel still keeps it: "
          + describeUse(owner: nil, users: users), "end that; the device goes away then"
      )
    }
  }
}

extension NBDDevice {
  static let goneMilliseconds: UInt64 = 5000

  /// Detaches and waits until the kernel has let go of the device. With `isForced` nobody is asked
  /// whether it is in use, and what is in flight fails.
  public func detach(isForced: Bool) throws(DetachError) {
    guard exists else { throw .noSuchDevice(node) }
    guard isAttached else { throw .notAttached(node) }
    if !isForced {
      let users = users
      guard users.isEmpty else { throw .busy(device: node, users: users) }
    }
    try disconnect()
    let deadline = Deadline.milliseconds(Self.goneMilliseconds)
    while isAttached {
      if deadline.hasPassed { throw .stillThere(device: node, users: users) }
      pause(milliseconds: 2)
    }
    removeRecord()
    forgetPartitions()
  }

  /// The kernel keeps the partitions of a disk that is gone until somebody has it scanned again.
  private func forgetPartitions() {
    if let file = try? FileDescriptor.open(node) {
      _ = clinux_ioctl_value(file.rawValue, clinux_BLKRRPART, 0)  // What stays does no harm.
    }
    announceChange()
  }

  /// Sends the server its farewell and shuts the sockets down.
  func disconnect() throws(DetachError) {
    if interface == .ioctl, fileExists(node) { return try disconnectByControl() }
    do {
      if var family = try NBDFamilySocket.open(until: .milliseconds(Self.netlinkMilliseconds)) {
        _ = try family.request(
          NBDDisconnectMessage(index: index).payload,
          until: .milliseconds(Self.netlinkMilliseconds))
        return
      }
    } catch { throw .netlink(device: node, error) }
    try disconnectByControl()
  }

  private func disconnectByControl() throws(DetachError) {
    let file: FileDescriptor
    do { file = try FileDescriptor.open(node, .readOnly) } catch {
      throw .ioctl(device: node, step: "open", error)
    }
    do { _ = try checked(clinux_ioctl_value(file.rawValue, ControlRequest.disconnect, 0)) } catch {
      throw .ioctl(device: node, step: "NBD_DISCONNECT", error)
    }
    do { _ = try checked(clinux_ioctl_value(file.rawValue, ControlRequest.clearSocket, 0)) } catch {
      throw .ioctl(device: node, step: "NBD_CLEAR_SOCK", error)
    }
  }
}

extension NBDDevice {
  /// The largest READ or WRITE that the kernel sends, in bytes.
  public var requestByteCountMaximum: UInt64 {
    (attribute("queue/max_sectors_kb")?.decimal(maximum: 1 << 22) ?? 0) * 1024
  }

  /// How often the kernel looks at a request that is not answered. Waits for all that are in flight.
  public func setRequestTimer(milliseconds: UInt64) throws(SystemError) {
    try writeExistingFile(directory + "/queue/io_timeout", ByteString("\(milliseconds)"))
  }

  /// How long requests wait from here on when no connection is left; 0: they fail at once. Says
  /// nothing when it cannot be done: the caller has no other way either.
  public func setDeadTime(seconds: UInt64, backendIdentifier: ByteString) {
    guard let opened = try? NBDFamilySocket.open(until: .milliseconds(Self.netlinkMilliseconds))
    else { return }
    var family = opened
    let message = NBDReconfigureMessage(
      index: index, deadTimeoutSeconds: seconds, sockets: [], backendIdentifier: backendIdentifier)
    _ = try? family.request(message.payload, until: .milliseconds(Self.netlinkMilliseconds))
  }
}

// SPDX-License-Identifier: Apache-2.0
// The part of an attempt that makes a ublk device of sockets.

import BootPlanning
import LinuxSystem
import NBDClient
import NBDDriver
import NBDProtocol
import UblkDriver
import WireFormat

/// A device of either driver.
enum AttachedDevice: Equatable {
  case nbd(NBDDevice)
  case ublk(UblkDevice)

  var node: ByteString {
    switch self {
    case .nbd(let device): device.node
    case .ublk(let device): device.node
    }
  }
}

extension TargetAttempt {
  /// Starts the process that carries the data and looks at the device for the first time.
  func carry(
    _ connections: [LiveConnection], of first: borrowing NBDConnection, _ plan: KeeperPlan
  ) throws(AttemptError) -> AttachedTarget {
    let export = first.export
    var plan = plan
    if target.accessMode == .readOnly { plan.flags.insert(.readOnly) }
    var minimum = export.blockSizes?.minimum ?? 1
    if let asked = target.blockSize { minimum = max(minimum, asked) }
    let start = MonotonicTime.now
    let device: UblkDevice
    do {
      device = try UblkDevice.attach(
        .nbd(plan), indices: [target.device?.number],
        export: UblkExport(
          export.byteCount, flags: plan.flags, sizes: export.blockSizes,
          minimumBlockByteCount: minimum),
        connections: connections)[0]
    } catch { throw .ublk(error) }
    let attachMilliseconds = MonotonicTime.now.milliseconds(since: start)
    let looked = MonotonicTime.now
    do {
      var head: [UInt8] = []
      _ = try FileDescriptor.open(device.node).read(into: &head, maximum: 4096)
    } catch {
      try? device.end(isForced: true)
      throw .firstRead(device: device.node, error)
    }
    let record = AttachmentRecord(
      server: first.address.text, export: export.name, attachedSeconds: wallClockSeconds(),
      ownerThread: 0, backendIdentifier: "", connectionCount: UInt32(connections.count))
    try? replaceFile(device.recordPath, with: record.encoded)  // For `rootlink status`.
    linkPlannedNames(to: device)
    return AttachedTarget(
      device: .ublk(device), export: export, server: first.address,
      local: first.address.isUnix ? nil : first.socket.localAddress,
      connectionCount: connections.count, connectMilliseconds: first.connectMilliseconds,
      negotiateMilliseconds: first.negotiateMilliseconds, attachMilliseconds: attachMilliseconds,
      firstReadMilliseconds: MonotonicTime.now.milliseconds(since: looked),
      partitions: device.partitions, keeperError: nil)
  }

  /// In place of a missing nbd driver: what looks for /dev/nbdN finds this device there.
  private func linkPlannedNames(to device: UblkDevice) {
    guard let planned = target.device, planned.driver == .nbd else { return }
    let node = ByteString(planned.path)
    guard !fileExists(node) else { return }
    try? replaceLink(node, target: device.name)
    for partition in device.partitions {
      guard let rest = partition.dropping(prefix: device.name) else { continue }
      try? replaceLink(node + rest, target: partition)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a process behind ublk devices must know, over whichever protocol it carries them.

import UblkDriver
import WireFormat

/// One device of a process.
struct UblkMember: Sendable {
  let device: UblkDevice
  /// As the driver made it.
  var information: DeviceInformation
  let page: UblkStatePage
}

enum UblkPlan: Sendable {
  case nbd(KeeperPlan)
  #if ROOTLINK_RDMA
    case rnbd(RNBDPlan)
  #endif

  /// Nil when `text` is no such file, whole.
  init?(decoding text: ByteString) {
    #if ROOTLINK_RDMA
      if let plan = RNBDPlan(decoding: text) {
        self = .rnbd(plan)
        return
      }
    #endif
    guard let plan = KeeperPlan(decoding: text) else { return nil }
    self = .nbd(plan)
  }

  var encoded: ByteString {
    switch self {
    case .nbd(let plan): plan.encoded
    #if ROOTLINK_RDMA
      case .rnbd(let plan): plan.encoded
    #endif
    }
  }

  /// Of every device that one process carries.
  var indices: [UInt32] {
    switch self {
    case .nbd(let plan): return [plan.deviceIndex]
    #if ROOTLINK_RDMA
      case .rnbd(let plan):
        var indices: [UInt32] = []
        for disk in plan.disks { indices.append(disk.index) }
        return indices
    #endif
    }
  }

  /// How long the process may take to have its devices from the server.
  var openMilliseconds: UInt64 {
    switch self {
    case .nbd: 0
    #if ROOTLINK_RDMA
      case .rnbd: RNBDProcess.openMilliseconds
    #endif
    }
  }

  /// How each device is to be made: the requests that it has out, and the longest.
  var sizes: (queueDepth: UInt16, requestByteCountMaximum: UInt32) {
    switch self {
    case .nbd: (UblkLimits.queueDepth, UblkLimits.requestByteCountMaximum)
    #if ROOTLINK_RDMA
      case .rnbd(let plan):
        (
          RNBDProcess.queueDepth(diskCount: plan.disks.count),
          RNBDProcess.requestByteCountMaximum
        )
    #endif
    }
  }

  /// Takes over what is known of the devices now: their numbers and sizes. Returns what the driver is
  /// to know of them.
  mutating func learn(
    _ exports: [UblkExport], of members: [UblkMember]
  ) throws(UblkAttachError) -> [DeviceParameters] {
    var all: [DeviceParameters] = []
    for (number, member) in members.enumerated() {
      let parameters: DeviceParameters
      do throws(UblkGeometryError) {
        parameters = try DeviceParameters(
          exports[number],
          requestByteCountMaximum: member.information.requestByteCountMaximum)
      } catch { throw .driver(.geometry(error)) }
      all.append(parameters)
      let payloadByteCount = UInt64(parameters.requestSectorCountMaximum) * 512
      switch self {
      case .nbd(var plan):
        plan.deviceIndex = member.device.index
        plan.blockByteCount = 1 << UInt64(parameters.logicalBlockShift)
        plan.payloadByteCount = payloadByteCount
        self = .nbd(plan)
      #if ROOTLINK_RDMA
        case .rnbd(var plan):
          plan.disks[number].index = member.device.index
          plan.disks[number].byteCount = exports[number].byteCount
          plan.disks[number].payloadByteCount = payloadByteCount
          self = .rnbd(plan)
      #endif
      }
    }
    return all
  }
}

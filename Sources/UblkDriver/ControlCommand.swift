// SPDX-License-Identifier: Apache-2.0
// What is said to /dev/ublk-control. All of ublk is in the byte order of the machine. Source of
// every layout in this module: `struct ublksrv_*` and `ublk_param*`, Linux 6.12
// `include/uapi/linux/ublk_cmd.h`; Debian 12's own header is older than the kernels served.

import WireFormat

/// The operations: direction, size of the structure, 'u' and a number, as ioctl(2) makes them.
public enum ControlOperation: UInt32, CaseIterable, Sendable {
  case getDeviceInformation = 0x8020_7502
  case addDevice = 0xc020_7504
  case deleteDevice = 0xc020_7505
  case startDevice = 0xc020_7506
  case stopDevice = 0xc020_7507
  case setParameters = 0xc020_7508
  case getParameters = 0x8020_7509
  case startUserRecovery = 0xc020_7510
  case endUserRecovery = 0xc020_7511
  case getFeatures = 0x8020_7513

  /// As the kernel's header names it, for people.
  public var name: String {
    switch self {
    case .getDeviceInformation: "GET_DEV_INFO"
    case .addDevice: "ADD_DEV"
    case .deleteDevice: "DEL_DEV"
    case .startDevice: "START_DEV"
    case .stopDevice: "STOP_DEV"
    case .setParameters: "SET_PARAMS"
    case .getParameters: "GET_PARAMS"
    case .startUserRecovery: "START_USER_RECOVERY"
    case .endUserRecovery: "END_USER_RECOVERY"
    case .getFeatures: "GET_FEATURES"
    }
  }
}

/// Source: `struct ublksrv_ctrl_cmd`.
public struct ControlCommand: Equatable, Sendable {
  public static let byteCount = 32
  /// A command that is about no queue.
  public static let noQueue: UInt16 = 0xffff

  /// `DeviceInformation.anyDevice` where none is meant, or the driver is to choose.
  public var device: UInt32
  public var queue: UInt16 = noQueue
  public var bufferByteCount: UInt16 = 0
  /// Of the operation's own structure, in this process; 0 without one.
  public var bufferAddress: UInt64 = 0
  /// The process that serves, for START_DEV and END_USER_RECOVERY.
  public var value: UInt64 = 0

  public init(device: UInt32, value: UInt64 = 0) {
    self.device = device
    self.value = value
  }

  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(native: device)
    bytes.append(native: queue)
    bytes.append(native: bufferByteCount)
    bytes.append(native: bufferAddress)
    bytes.append(native: value)
    bytes.append(native: UInt64(0))  // No path: the device is a privileged one.
    return bytes
  }
}

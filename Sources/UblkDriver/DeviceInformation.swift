// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// What the driver can do, and what a device was made with. Test the bits, never the version.
/// Source: `UBLK_F_*`.
public struct UblkFeatures: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The device survives the process that serves it; requests wait for the next one.
  public static let userRecovery = UblkFeatures(rawValue: 1 << 3)
  /// With it: requests in the hands of the process that died are issued again.
  public static let userRecoveryReissue = UblkFeatures(rawValue: 1 << 4)
  /// Data are moved by pread(2) and pwrite(2): no buffer of ours for each tag.
  public static let userCopy = UblkFeatures(rawValue: 1 << 7)
}

/// Source: `struct ublksrv_ctrl_dev_info`. What ADD_DEV granted may differ from what was asked.
public struct DeviceInformation: Equatable, Sendable {
  public static let byteCount = 64
  /// As a device number: let the driver choose.
  public static let anyDevice: UInt32 = 0xffff_ffff

  /// Source: `UBLK_S_DEV_*`.
  public enum State: UInt16, Equatable, Sendable { case dead, live, quiesced }

  /// 1 for every device made here.
  public var queueCount: UInt16
  /// Requests that one queue has out at a time, 1 to 4096.
  public var queueDepth: UInt16
  /// Nil for one that has no name here.
  public var state: State?
  /// The longest request in bytes.
  public var requestByteCountMaximum: UInt32
  public var device: UInt32
  /// Nil while nobody serves it.
  public var serverProcess: UInt32?
  /// Wanted before ADD_DEV, granted after it.
  public var features: UblkFeatures

  public init(
    queueCount: UInt16 = 1, queueDepth: UInt16, requestByteCountMaximum: UInt32,
    device: UInt32 = anyDevice, features: UblkFeatures
  ) {
    self.queueCount = queueCount
    self.queueDepth = queueDepth
    state = .dead
    self.requestByteCountMaximum = requestByteCountMaximum
    self.device = device
    serverProcess = nil
    self.features = features
  }

  /// Throws for any other length than `byteCount`.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    queueCount = bytes.native(UInt16.self, at: 0)
    queueDepth = bytes.native(UInt16.self, at: 2)
    state = State(rawValue: bytes.native(UInt16.self, at: 4))
    requestByteCountMaximum = bytes.native(UInt32.self, at: 8)
    device = bytes.native(UInt32.self, at: 12)
    let process = Int32(bitPattern: bytes.native(UInt32.self, at: 16))
    serverProcess = process > 0 ? UInt32(process) : nil
    features = UblkFeatures(rawValue: bytes.native(UInt64.self, at: 24))
  }

  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(native: queueCount)
    bytes.append(native: queueDepth)
    bytes.append(native: state?.rawValue ?? 0)
    bytes.append(native: UInt16(0))
    bytes.append(native: requestByteCountMaximum)
    bytes.append(native: device)
    bytes.append(native: serverProcess ?? UInt32.max)
    bytes.append(native: UInt32(0))
    bytes.append(native: features.rawValue)
    for _ in 0..<4 { bytes.append(native: UInt64(0)) }  // Server flags, owner, reserved.
    return bytes
  }
}

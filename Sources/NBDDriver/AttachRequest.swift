// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Which device an export is attached as.
public enum DeviceChoice: Equatable, Sendable {
  case index(UInt32)
  case anyFree
}

/// Sockets whose handshake is over, and what the server said of the export.
public struct AttachRequest: Sendable {
  public var device: DeviceChoice
  /// Descriptor numbers. The kernel takes references of its own: the caller still closes them.
  public var sockets: [CInt]
  public var geometry: ExportGeometry
  /// The server's transmission flags, as they were on the wire.
  public var transmissionFlags: UInt16
  /// A request unanswered for so long is sent again on another connection. 0 for never.
  public var timeoutSeconds: UInt64
  /// How long requests wait for a new socket when no connection is left. 0: they fail at once.
  public var deadTimeoutSeconds: UInt64
  /// From `backendIdentifier(server:export:)`; needed again for every reconnection.
  public var backendIdentifier: ByteString
  public var interface: InterfaceChoice

  public init(
    device: DeviceChoice, sockets: [CInt], geometry: ExportGeometry, transmissionFlags: UInt16,
    timeoutSeconds: UInt64 = 0, deadTimeoutSeconds: UInt64 = 0, backendIdentifier: ByteString,
    interface: InterfaceChoice = .automatic
  ) {
    self.device = device
    self.sockets = sockets
    self.geometry = geometry
    self.transmissionFlags = transmissionFlags
    self.timeoutSeconds = timeoutSeconds
    self.deadTimeoutSeconds = deadTimeoutSeconds
    self.backendIdentifier = backendIdentifier
    self.interface = interface
  }

  /// Source: `NBD_FLAG_CAN_MULTI_CONN`, NBD `doc/proto.md`.
  var allowsSeveralConnections: Bool { transmissionFlags & 0x100 != 0 }
}

/// An export bound to a device.
public struct Attachment: Equatable, Sendable {
  public let device: NBDDevice
  /// The one that was used, whatever was asked for.
  public let interface: DriverInterface
  public let geometry: DeviceGeometry
}

// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Who attached a device, as far as the kernel remembers.
public struct DeviceOwner: Equatable, Sendable {
  /// The thread that attached it; with netlink it may be long gone.
  public var thread: UInt32
  /// The name of that thread while it lives. After netlink another one may have its number.
  public var processName: ByteString?
  public var interface: DriverInterface
  public var backendIdentifier: ByteString?

  /// "attached by nbd-client (process 312, ioctl)".
  public var text: String {
    var text = "attached"
    if let processName { text += " by \(processName.printable)" }
    text += " (process \(thread)"
    if processName == nil { text += ", gone" }
    text += ", \(interface.name))"
    if let backendIdentifier, !backendIdentifier.isEmpty {
      text += " to \(backendIdentifier.printable)"
    }
    return text
  }
}

extension NBDDevice {
  /// Nil while the device is not attached.
  public var owner: DeviceOwner? {
    guard let thread = ownerThread, let interface else { return nil }
    return DeviceOwner(
      thread: thread, processName: processName(thread), interface: interface,
      backendIdentifier: backendIdentifier)
  }
}

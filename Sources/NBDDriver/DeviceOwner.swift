// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Who attached a device, as far as the kernel remembers.
public struct DeviceOwner: Equatable, Sendable {
  /// The thread that attached it; with netlink it may be long gone.
  public var thread: UInt32
  /// The name of that thread while it lives. After netlink another one may have its number.
  public var processName: ByteString?
  public var interface: DriverInterface
  /// Empty when none was given; nil with ioctl(2).
  public var backendIdentifier: ByteString?

  /// "attached through netlink to 192.0.2.1:10809/root by process 143 (gone)".
  public var text: String {
    var text = "attached through \(interface.name)"
    if let backendIdentifier, !backendIdentifier.isEmpty {
      text += " to \(backendIdentifier.printable)"
    }
    text += " by process \(thread) (\(processName?.printable ?? "gone"))"
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

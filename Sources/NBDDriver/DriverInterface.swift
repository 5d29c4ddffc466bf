// SPDX-License-Identifier: Apache-2.0

/// The two ways into the kernel's nbd driver.
public enum DriverInterface: Equatable, Sendable {
  /// Generic netlink: no process stays, reconnecting is possible.
  case netlink
  /// ioctl(2): a process of ours stays in the kernel as long as the device is attached.
  case ioctl

  public var name: String {
    switch self {
    case .netlink: "netlink"
    case .ioctl: "ioctl"
    }
  }
}

/// Which of them to use.
public enum InterfaceChoice: Equatable, Sendable {
  /// Netlink, and ioctl where the kernel has no such family.
  case automatic
  case only(DriverInterface)
}

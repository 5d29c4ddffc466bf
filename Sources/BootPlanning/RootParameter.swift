// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// What `root=` means for this program.
enum RootParameter: Equatable {
  case absent
  /// A device of ours, perhaps with a partition.
  case device(DeviceName)
  /// `/dev/nbd` or `/dev/root`: any device, with /dev/root pointing to it.
  case anyDevice
  /// The lease's root-path decides.
  case lease
  /// `nbd:...` or an NBD URI: a server, and the root is the device attached from it.
  case server(KernelParameter)
  /// `overlay:nbd=...`: a server, and the root is a writable layer over its export.
  case overlay(KernelParameter)
  /// Another node, or a tag: attach only, and hand this on.
  case other(ByteString)
  /// Somebody else's: `/dev/nfs`, `live:...`. The device is the one that it names, if any.
  case foreign(DeviceName?)

  static let overlayPrefix = "overlay:nbd="

  init(_ parameter: KernelParameter?) {
    guard let parameter, let value = parameter.value?.bytes[...] else {
      self = .absent
      return
    }
    if value.isEmpty {
      self = .absent
    } else if let device = DeviceName(value), value.hasPrefix("/dev/") {
      self = .device(device)
    } else if value.isEqual(to: "/dev/nbd") || value.isEqual(to: "/dev/root") {
      self = .anyDevice
    } else if Self.meansLease(value) {
      self = .lease
    } else if Self.namesServer(value) {
      self = .server(parameter)
    } else if value.hasPrefix(Self.overlayPrefix) {
      self = .overlay(parameter)
    } else if value.isEqual(to: "/dev/nfs") {
      self = .foreign(nil)
    } else if value.hasPrefix("/dev/") || Self.isTag(value) {
      self = .other(ByteString(value))
    } else if value.hasPrefix("live:") {
      self = .foreign(DeviceName(value.dropFirst(5)))
    } else {
      self = .foreign(nil)
    }
  }

  /// dracut's form or an NBD URI.
  static func namesServer(_ value: Text) -> Bool {
    NBDURI.isNBD(value) || value.hasPrefix("nbd:")
  }

  static func meansLease(_ value: Text) -> Bool {
    value.isEqual(to: "dhcp") || value.isEqual(to: "dhcp6")
  }

  private static func isTag(_ value: Text) -> Bool {
    for tag in ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="] where value.hasPrefix(tag) {
      return true
    }
    return false
  }
}

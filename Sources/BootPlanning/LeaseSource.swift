// SPDX-License-Identifier: Apache-2.0
// Which program wrote a lease file, told by its path, and how much it counts.

import WireFormat

struct LeaseSource {
  enum Format { case netConf, dhcpopts, networkManager, networkd, kernelPnp, dhclient, dhcpcd }

  let format: Format
  /// What the file's name says about the interface; empty when it says nothing.
  var interface = ByteString()
  /// The interface's index, where the name has that.
  var interfaceIndex: UInt32?
  /// The place in the order in which files are believed, the first being 1.
  let rank: Int
  /// It outlives a boot: not to be believed beside a file of this boot.
  var isPersistent = false

  init?(_ path: ByteString) {
    let text = path.bytes[...]
    guard let (directory, name) = text.cutLast(at: .slash) else { return nil }
    if let middle = Self.middle(of: name, after: "net-", before: ".conf") {
      format = .netConf
      rank = directory.isEqual(to: "/run") ? 3 : 4
      interface = ByteString(middle)
    } else if let middle = Self.middle(of: name, after: "dhclient.", before: ".dhcpopts")
      ?? Self.middle(of: name, after: "net.", before: ".dhcpopts")
    {
      format = .dhcpopts
      rank = 5
      interface = ByteString(middle)
    } else if directory.isEqual(to: "/run/NetworkManager/devices") {
      guard let index = name.decimal(maximum: UInt64(UInt32.max)) else { return nil }
      format = .networkManager
      rank = 1
      interfaceIndex = UInt32(truncatingIfNeeded: index)
    } else if directory.isEqual(to: "/run/systemd/netif/leases") {
      guard let index = name.decimal(maximum: UInt64(UInt32.max)) else { return nil }
      format = .networkd
      rank = 2
      interfaceIndex = UInt32(truncatingIfNeeded: index)
    } else if text.isEqual(to: "/proc/net/pnp") {
      format = .kernelPnp
      rank = 6
    } else if let middle = Self.middle(of: name, after: "dhclient.", before: ".lease")
      ?? Self.middle(of: name, after: "net.", before: ".lease")
    {
      format = .dhclient
      rank = 7
      interface = ByteString(middle)
    } else if directory.isEqual(to: "/var/lib/dhcpcd"),
      let middle = Self.middle(of: name, after: "", before: ".lease")
    {
      format = .dhcpcd
      rank = 8
      interface = ByteString(middle)
      isPersistent = true
    } else if Self.middle(of: name, after: "", before: ".leases") != nil {
      format = .dhclient
      rank = 7
      isPersistent = true
    } else {
      return nil
    }
  }

  private static func middle(of name: Text, after prefix: String, before suffix: String) -> Text? {
    guard name.hasPrefix(prefix), name.count > prefix.utf8.count + suffix.utf8.count else {
      return nil
    }
    let rest = name.dropFirst(prefix.utf8.count)
    guard rest.suffix(suffix.utf8.count).elementsEqual(suffix.utf8) else { return nil }
    return rest.dropLast(suffix.utf8.count)
  }

  /// The environment's own file goes before all others.
  func rank(in environment: PlanningInput.Environment) -> Int {
    switch (environment, format) {
    case (.dracut, .dhcpopts) where rank == 5: 0
    case (.initramfsTools, .netConf) where rank == 3: 0
    default: rank
    }
  }
}

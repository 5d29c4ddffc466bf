// SPDX-License-Identifier: Apache-2.0
// Whether the kernel has configured an interface before anybody else could: `ip=` of a kernel with
// CONFIG_IP_PNP. Told by files, so that it can be tried on any machine.

import LinuxSystem
public import WireFormat

/// What the kernel left of its own `ip=`: an interface that needs nobody any more.
public struct KernelConfiguration: Equatable, Sendable {
  /// The first in the kernel's table of routes that has no lease of ours.
  public let interface: ByteString

  /// Nil when the kernel cannot do it (no /proc/net/pnp), has not done it (no route leads
  /// anywhere), or the route is one that this program made (it left a lease).
  public init?(root: ByteString = ByteString()) {
    guard fileExists(root + "/proc/net/pnp"),
      let table = try? readFile(root + "/proc/net/route", limit: 65_536)
    else { return nil }
    // A heading, then `eth0 0002000A 00000000 0001 ...`: to the network that it is in.
    for line in table.fields(separatedBy: 0x0a).dropFirst() {
      guard let name = line.cut(at: 0x09)?.head.trimmed, !name.isEmpty, name != "lo" else {
        continue
      }
      guard !fileExists(root + Self.leasePath(name)) else { continue }
      interface = name
      return
    }
    return nil
  }

  static func leasePath(_ interface: ByteString) -> ByteString { "/run/net-" + interface + ".conf" }
}

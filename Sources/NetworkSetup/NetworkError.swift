// SPDX-License-Identifier: Apache-2.0
public import LinuxSystem
public import WireFormat

/// Why this machine has no network.
public indirect enum NetworkError: Error, Equatable, Sendable {
  case system(step: StaticFieldName, SystemError)
  case netlink(step: StaticFieldName, NetlinkError)
  /// Of `seconds`, without a result; what was waited for last.
  case gaveUp(seconds: UInt64, NetworkWait)

  public var report: (reason: String, advice: String) {
    switch self {
    case .system(let step, let error):
      ("\(step): \(error.text)", "check that the kernel has what the image was built for")
    case .netlink(let step, let error):
      ("\(step): \(error.reason)", "check ip= and the kernel's network configuration")
    case .gaveUp(let seconds, let wait):
      ("no network after \(seconds) s: \(wait.report.reason)", wait.report.advice)
    }
  }
}

/// What bringing up the network waits for.
public enum NetworkWait: Equatable, Sendable {
  /// No interface that could be used; `present` are the names of those that are there.
  case interface(wanted: ByteString?, present: [ByteString])
  case carrier([ByteString])
  case dhcpServer([ByteString])
  case router([ByteString])
  case dhcpv6Server([ByteString])
  /// Whether somebody else has the address.
  case duplicateCheck([ByteString])

  public var report: (reason: String, advice: String) {
    switch self {
    case .interface(let wanted, let present):
      (
        (wanted.map { "there is no interface \($0.printable)" } ?? "there is no network interface")
          + (present.isEmpty ? "" : ", only " + present.printableList),
        wanted == nil
          ? "the image needs the module of the network card"
          : "check the name in ip= and the modules in the image"
      )
    case .carrier(let names):
      ("no carrier on " + names.printableList, "check the cable and the switch")
    case .dhcpServer(let names):
      ("no DHCP server answers on " + names.printableList, "check the server and the VLAN")
    case .router(let names):
      (
        "no IPv6 router speaks on " + names.printableList,
        "check the router, or give ip= an address"
      )
    case .dhcpv6Server(let names):
      ("no DHCPv6 server answers on " + names.printableList, "check the server and the VLAN")
    case .duplicateCheck(let names):
      (
        "an address of " + names.printableList + " is being checked for duplicates",
        "look for another machine that has it"
      )
    }
  }
}

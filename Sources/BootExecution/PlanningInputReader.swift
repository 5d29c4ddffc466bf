// SPDX-License-Identifier: Apache-2.0
// Collects what a plan depends on: the command line, the leases, the interfaces, and who runs the
// initramfs. Every path is looked up below a prefix, so that a plan can be tried on any machine.

public import BootPlanning
public import LinuxSystem
public import WireFormat

public struct PlanningInputReader: Sendable {
  /// Put before every path; empty for this machine itself. Never with a slash at its end.
  public let root: ByteString

  public init(root: ByteString = ByteString()) {
    self.root = root.hasSuffix("/") ? ByteString(root.bytes.dropLast()) : root
  }

  private static let entryCountMaximum = 256
  private static let configurationCountMaximum = 64

  /// Fails only when there is no command line: neither `commandLineOverride` nor /proc/cmdline.
  public func read(commandLineOverride: ByteString? = nil) throws(SystemError) -> PlanningInput {
    let environment = environment
    var input = PlanningInput(
      commandLines: try commandLines(in: environment, override: commandLineOverride))
    input.environment = environment
    for path in leasePaths() { readLease(path, into: &input) }
    input.interfaces = interfaces()
    return input
  }

  /// A dracut image has the hook directories; an installed dracut has modules instead. An image of
  /// initramfs-tools has its functions and configuration at the top.
  public var environment: PlanningInput.Environment {
    for path: ByteString in [
      "/usr/lib/dracut/hooks", "/lib/dracut/hooks", "/var/lib/dracut/hooks", "/dracut-state.sh",
      "/lib/dracut-lib.sh", "/usr/lib/dracut-lib.sh",
    ] where exists(path) {
      return .dracut
    }
    if exists("/usr/lib/dracut"), !exists("/usr/lib/dracut/modules.d") { return .dracut }
    if exists("/scripts/functions"), exists("/conf/initramfs.conf") { return .initramfsTools }
    return .bare
  }

  private func commandLines(
    in environment: PlanningInput.Environment, override: ByteString?
  ) throws(SystemError) -> [ByteString] {
    if let override { return [override] }
    let kernel = try readFile(
      root + "/proc/cmdline", limit: PlanningInput.commandLineByteCountMaximum)
    guard environment == .dracut else { return [kernel] }
    return configuration(in: "/etc/cmdline.d") + small("/etc/cmdline") + [kernel]
      + configuration(in: "/run/initramfs/cmdline.d")
  }

  private func configuration(in directory: ByteString) -> [ByteString] {
    var texts: [ByteString] = []
    for name in list(directory) where name.hasSuffix(".conf") {
      guard texts.count < Self.configurationCountMaximum else { break }
      texts += small(directory + "/" + name)
    }
    return texts
  }

  /// The file, or nothing when it is not there or cannot be read.
  private func small(_ path: ByteString) -> [ByteString] {
    guard
      let text = try? readFile(root + path, limit: PlanningInput.commandLineByteCountMaximum)
    else { return [] }
    return [text]
  }

  private func leasePaths() -> [ByteString] {
    var paths: [ByteString] = []
    for name in list("/tmp") + list("/run") where name.hasPrefix("net-") || isDracutLease(name) {
      for directory: ByteString in ["/run/", "/tmp/"] where exists(directory + name) {
        if !paths.contains(directory + name) { paths.append(directory + name) }
      }
    }
    for name in list("/run/initramfs") where isDracutLease(name) {
      paths.append("/run/initramfs/" + name)
    }
    for directory: ByteString in ["/run/NetworkManager/devices", "/run/systemd/netif/leases"] {
      for name in list(directory) { paths.append(directory + "/" + name) }
    }
    paths.append("/proc/net/pnp")
    for directory: ByteString in [
      "/var/lib/dhclient", "/var/lib/dhcp", "/var/lib/dhcp3", "/var/lib/dhcpcd",
    ] {
      for name in list(directory) where name.hasSuffix(".leases") || name.hasSuffix(".lease") {
        paths.append(directory + "/" + name)
      }
    }
    return paths
  }

  private func isDracutLease(_ name: ByteString) -> Bool {
    (name.hasPrefix("dhclient.") || name.hasPrefix("net."))
      && (name.hasSuffix(".dhcpopts") || name.hasSuffix(".lease"))
  }

  private func readLease(_ path: ByteString, into input: inout PlanningInput) {
    guard let status = try? fileStatus(root + path), status.kind == .regular else { return }
    do throws(SystemError) {
      let bytes = try readFile(root + path, limit: LeaseFile.byteCountMaximum)
      input.leaseFiles.append(
        LeaseFile(path: path, bytes: bytes, modificationTime: status.modifiedSeconds))
    } catch {
      if error == .fileTooLarge { input.oversizedLeasePaths.append(path) }
    }
  }

  private func interfaces() -> [InterfaceDescription] {
    var interfaces: [InterfaceDescription] = []
    for name in list("/sys/class/net") {
      let directory = "/sys/class/net/" + name
      guard let text = attribute(directory + "/ifindex"),
        let index = text.decimal(maximum: UInt64(UInt32.max))
      else { continue }
      interfaces.append(
        InterfaceDescription(
          name: name, index: UInt32(truncatingIfNeeded: index),
          hardwareAddress: Self.hardwareAddress(attribute(directory + "/address") ?? "")))
    }
    return interfaces
  }

  /// A file of /sys, which has one page at most.
  private func attribute(_ path: ByteString) -> ByteString? {
    (try? readFile(root + path, limit: 4096))?.trimmed
  }

  /// `52:54:00:12:34:56`; empty for anything else.
  static func hardwareAddress(_ text: ByteString) -> [UInt8] {
    var address: [UInt8] = []
    for field in text.fields(separatedBy: 0x3a) {
      guard field.count == 2, address.count < 32, let high = digit(field.bytes[0]),
        let low = digit(field.bytes[1])
      else { return [] }
      address.append(high << 4 | low)
    }
    return address
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x57
    case 0x41...0x46: byte - 0x37
    default: nil
    }
  }

  private func exists(_ path: ByteString) -> Bool { fileExists(root + path) }

  private func list(_ directory: ByteString) -> [ByteString] {
    (try? listDirectory(root + directory, limit: Self.entryCountMaximum)) ?? []
  }
}

/// What a plan for this machine, or for the tree below `root`, depends on.
public func readPlanningInput(
  root: ByteString = ByteString(), commandLineOverride: ByteString? = nil
) throws(SystemError) -> PlanningInput {
  try PlanningInputReader(root: root).read(commandLineOverride: commandLineOverride)
}

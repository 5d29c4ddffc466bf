// SPDX-License-Identifier: Apache-2.0
// All that a plan depends on. Whoever fills this in reads files; the planner does not.

import WireFormat

/// A file that a DHCP client or the kernel left behind.
public struct LeaseFile: Equatable, Sendable {
  /// Without the `--root` prefix; it says which program wrote the file.
  public let path: ByteString
  public let bytes: ByteString
  /// Seconds since 1970.
  public let modificationTime: Int64

  /// A longer file is passed over with a warning.
  public static let byteCountMaximum = 64 * 1024

  public init(path: ByteString, bytes: ByteString, modificationTime: Int64) {
    self.path = path
    self.bytes = bytes
    self.modificationTime = modificationTime
  }
}

/// A network interface of this machine.
public struct InterfaceDescription: Equatable, Sendable {
  public let name: ByteString
  /// By which networkd names its files.
  public let index: UInt32
  /// Six bytes on Ethernet; other lengths elsewhere, empty without one.
  public let hardwareAddress: [UInt8]

  public init(name: ByteString, index: UInt32, hardwareAddress: [UInt8]) {
    self.name = name
    self.index = index
    self.hardwareAddress = hardwareAddress
  }
}

/// The command line, the leases, the interfaces: the same input gives the same plan.
public struct PlanningInput: Equatable, Sendable {
  /// Who runs the initramfs. It decides what the second field of `ip=` means and whose lease counts.
  public enum Environment: Equatable, Sendable { case initramfsTools, dracut, bare }

  /// In reading order; later words win. One text: /proc/cmdline. Under dracut: /etc/cmdline.d/*,
  /// /etc/cmdline, /proc/cmdline, /run/initramfs/cmdline.d/*.
  public var commandLines: [ByteString]
  public var environment = Environment.bare
  public var leaseFiles: [LeaseFile] = []
  /// Lease files longer than `LeaseFile.byteCountMaximum`, which were not read.
  public var oversizedLeasePaths: [ByteString] = []
  public var interfaces: [InterfaceDescription] = []
  /// Plan before the network is up: what only a lease can say is pending instead of an error.
  public var allowsMissingLease = false

  /// Linux takes 2048 or 4096 bytes; joined files may be longer.
  public static let commandLineByteCountMaximum = 64 * 1024
  /// Further files are passed over with a warning.
  public static let leaseFileCountMaximum = 64

  public init(commandLines: [ByteString]) { self.commandLines = commandLines }
  public init(commandLine: ByteString) { self.init(commandLines: [commandLine]) }
}

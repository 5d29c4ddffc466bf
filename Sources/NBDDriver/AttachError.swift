// SPDX-License-Identifier: Apache-2.0
public import LinuxSystem
public import WireFormat

/// Why an export did not become a device.
public indirect enum AttachError: Error, Equatable, Sendable {
  case geometry(GeometryError)
  case indexOutOfRange(UInt32)
  case socketCount(Int)
  case multiConnectionNotOffered(socketCount: Int)
  /// Longer than 1024 bytes, or with a NUL.
  case backendIdentifier(byteCount: Int)
  case inUse(device: ByteString, owner: DeviceOwner?, users: [DeviceUser])
  /// Neither the netlink family nor a device node; the module did not load.
  case driverMissing
  /// Netlink was demanded, and this kernel's driver has no such family.
  case familyMissing
  case netlink(device: ByteString?, NetlinkError)
  /// The ioctl interface makes no devices.
  case noSuchDevice(ByteString)
  case noFreeDevice
  case ioctl(device: ByteString, step: StaticFieldName, SystemError)
  case node(ByteString, SystemError)
  /// `queue/max_sectors_kb` could not be lowered to what the server takes.
  case requestLimit(device: ByteString, kibibytes: UInt32, SystemError)

  public var report: (reason: String, advice: String) {
    switch self {
    case .geometry(let error): return error.report
    case .indexOutOfRange(let index):
      return (
        "there is no nbd device \(index): the highest is \(NBDDevice.indexMaximum)",
        "name a lower one"
      )
    case .socketCount(let count):
      return ("\(count) connections are not between 1 and 256", "ask for fewer connections")
    case .multiConnectionNotOffered(let count):
      return (
        "\(count) connections were opened, but the server does not offer several to one export",
        "use one connection"
      )
    case .backendIdentifier(let count):
      return ("a backend identifier of \(count) bytes does not fit", "use a shorter one")
    case .inUse(let device, let owner, let users):
      return (
        device.printable + " is in use: " + describeUse(owner: owner, users: users),
        "name another with --device, or free it with rootlink detach " + device.printable
      )
    case .driverMissing:
      return (
        "this kernel has no nbd driver, and the module nbd did not load",
        "put nbd.ko and modprobe, or the driver itself, into the initramfs"
      )
    case .familyMissing:
      return (
        "the kernel's nbd driver has no netlink interface", "leave out --interface netlink"
      )
    case .netlink(let device, let error):
      let what = device?.printable ?? "a free device"
      return ("\(what) cannot be attached: \(error.reason)", Self.advice(error))
    case .noSuchDevice(let device):
      return (
        "there is no \(device.printable), and only the netlink interface makes devices",
        "load the module nbd with a greater nbds_max"
      )
    case .noFreeDevice:
      return ("every nbd device is in use", "load the module nbd with a greater nbds_max")
    case .ioctl(let device, let step, let error):
      return (
        "\(device.printable): \(step.text): \(error.text)",
        error.errno == 1 || error.errno == 13 ? "run it as root" : "look at the kernel log"
      )
    case .node(let path, let error):
      return (
        "the device is attached, but there is no \(path.printable): \(error.text)",
        "mount a devtmpfs on /dev"
      )
    case .requestLimit(let device, let kibibytes, let error):
      return (
        "\(device.printable): requests cannot be limited to the \(kibibytes) KiB that the server"
          + " takes: \(error.text)", "raise the server's maximum payload"
      )
    }
  }

  private static func advice(_ error: NetlinkError) -> String {
    switch error.errno {
    case 1: "run it as root"
    case 16: "name another with --device"
    default: "look at the kernel log"
    }
  }
}

/// "attached by ...; mounted on /mnt, swap on /dev/nbd0p2".
func describeUse(owner: DeviceOwner?, users: [DeviceUser]) -> String {
  var text = owner?.text ?? ""
  for user in users {
    if !text.isEmpty { text += ", " }
    text += user.text
  }
  return text.utf8.isEmpty ? "somebody has it open" : text
}

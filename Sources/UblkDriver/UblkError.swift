// SPDX-License-Identifier: Apache-2.0
public import LinuxSystem
public import WireFormat

/// Why the ublk driver did not do what it was asked for.
public indirect enum UblkError: Error, Equatable, Sendable {
  /// The module is not there and did not load.
  case driverMissing
  /// /dev/ublk-control is there and cannot be opened.
  case control(SystemError)
  /// No ring: the kernel has none, or forbids it.
  case ring(SystemError)
  /// What the driver lacks of what we need.
  case features(UblkFeatures)
  case geometry(UblkGeometryError)
  case command(ControlOperation, device: ByteString?, SystemError)
  /// START_DEV or END_USER_RECOVERY did not end in time: nobody serves the queue.
  case unanswered(ControlOperation, device: ByteString, seconds: UInt64)
  case node(ByteString, SystemError)
  case malformed(ControlOperation, WireError)
  /// Another process already has that number.
  case inUse(device: ByteString)
  case noSuchDevice(ByteString)
  /// To be ended, and in use: mounted, swap, or below another device.
  case busy(device: ByteString)
  /// To be taken up again, and somebody serves it.
  case isServed(device: ByteString, process: UInt32)
  /// Made by somebody else, in a way that we cannot serve.
  case foreign(device: ByteString)

  public var report: (reason: String, advice: String) {
    switch self {
    case .driverMissing:
      return (
        "this kernel has no ublk driver, and the module ublk_drv did not load",
        "put ublk_drv.ko and modprobe, or the driver itself, into the initramfs"
      )
    case .control(let error):
      return (
        "/dev/ublk-control: \(error.text)",
        error == .permissionDenied ? "run it as root" : "look at the kernel log"
      )
    case .ring(let error):
      return (
        "io_uring: \(error.text)",
        "a ublk device needs io_uring: check kernel.io_uring_disabled and the kernel's"
          + " configuration"
      )
    case .features:
      return (
        "the kernel's ublk driver is too old: it lacks user recovery or user copy",
        "use Linux 6.6 or later, or driver=nbd"
      )
    case .geometry(let error): return error.report
    case .command(let operation, let device, let error):
      return (
        "\(device?.printable ?? "ublk"): \(operation.name): \(error.text)", Self.advice(error)
      )
    case .unanswered(let operation, let device, let seconds):
      return (
        "\(device.printable): \(operation.name) has not ended after \(seconds) s",
        "look at the kernel log"
      )
    case .node(let path, let error):
      return ("there is no \(path.printable): \(error.text)", "mount a devtmpfs on /dev")
    case .malformed(let operation, let error):
      return ("\(operation.name): \(error.reason)", "this kernel's ublk driver is not known to us")
    case .inUse(let device):
      return (
        "\(device.printable) is in use",
        "name another with --device, or free it with rootlink detach " + device.printable
      )
    case .busy(let device):
      return (
        "\(device.printable) is busy: it is mounted, swap, or part of another device",
        "end that first; --force loses what is not written"
      )
    case .noSuchDevice(let device):
      return ("there is no \(device.printable)", "see rootlink status")
    case .isServed(let device, let process):
      return (
        "\(device.printable) is served by process \(process)",
        "nothing needs to be done; to replace it, end that process first"
      )
    case .foreign(let device):
      return (
        "\(device.printable) was made by another program", "let that program take it up again"
      )
    }
  }

  private static func advice(_ error: SystemError) -> String {
    switch error.errno {
    case 1, 13: "run it as root"
    case 16: "somebody still uses it"
    default: "look at the kernel log"
    }
  }
}

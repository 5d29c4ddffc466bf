// SPDX-License-Identifier: Apache-2.0
// `rootlink attach --keep DEVICE`: a keeper for a device that has lost its own, or another one in
// its place. The device goes on working meanwhile.

public import LinuxSystem
import NBDDriver
import UblkDriver
public import WireFormat

public enum KeepCommand {
  /// The exit status: 0 somebody keeps it now, 1 it could not be done, 2 not a device's name.
  public static func run(device name: ByteString, log: Log) -> CInt {
    if let device = UblkDevice(named: name) { return takeUp(device, log) }
    guard let device = NBDDevice(named: name) else {
      log.write(
        .error, "'\(name.printable)' is not the name of an nbd or ublk device",
        next: "a name is /dev/nbd0, nbd0 or ublkb0")
      return ExitStatus.wrongRequest
    }
    guard device.isAttached else {
      log.write(.error, "\(device.node.printable) is not attached", next: "see rootlink status")
      return ExitStatus.failed
    }
    guard let text = try? readFile(device.keeperFilePath, limit: KeeperPlan.byteCountMaximum),
      let plan = KeeperPlan(decoding: text), plan.deviceIndex == device.index,
      plan.backendIdentifier == device.backendIdentifier
    else {
      log.write(
        .error,
        "\(device.node.printable) cannot be kept: \(device.keeperFilePath.printable) does not "
          + "belong to its attachment", next: "only what rootlink attached can be reconnected")
      return ExitStatus.failed
    }
    do {
      try KeeperProcess.start(plan, connections: [])
      return ExitStatus.done
    } catch {
      log.write(
        .error, "\(device.node.printable) cannot be kept: \(error.reason)",
        next: "see rootlink status and the kernel log")
      return ExitStatus.failed
    }
  }

  /// Requests of a ublk device wait until somebody carries them again; mostly its standby is faster.
  private static func takeUp(_ device: UblkDevice, _ log: Log) -> CInt {
    do {
      let process = try device.takeUp()
      log.write(.notice, "\(device.node.printable) is carried by process \(process)")
      return ExitStatus.done
    } catch {
      log.write(.error, error.report.reason, next: error.report.advice)
      return ExitStatus.failed
    }
  }
}

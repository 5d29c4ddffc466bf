// SPDX-License-Identifier: Apache-2.0
// `rootlink detach`: ends an attachment, whoever made it.

public import LinuxSystem
import NBDDriver
import UblkDriver
public import WireFormat

public enum DetachCommand {
  /// The exit status: 0 done, 1 in use or not attached, 2 not a device's name.
  public static func run(device name: ByteString, isForced: Bool, log: Log) -> CInt {
    if let device = UblkDevice(named: name) {
      do {
        try device.detach(isForced: isForced)
        return 0
      } catch {
        log.write(.error, error.report.reason, next: error.report.advice)
        return 1
      }
    }
    guard let device = NBDDevice(named: name) else {
      log.write(
        .error, "'\(name.printable)' is not the name of an nbd or ublk device",
        next: "a name is /dev/nbd0, nbd0 or ublkb0")
      return 2
    }
    do {
      try device.detach(isForced: isForced)
      return 0
    } catch {
      log.write(.error, error.report.reason, next: error.report.advice)
      return 1
    }
  }
}

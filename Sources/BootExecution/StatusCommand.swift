// SPDX-License-Identifier: Apache-2.0
// `rootlink status`: every device of the nbd and ublk drivers that is attached, whoever did; or the
// one device that is named.

public import LinuxSystem
import NBDDriver
import UblkDriver
public import WireFormat

public enum StatusCommand {
  /// The exit status (0 done, 1 no such device, 2 not a device's name) and what goes to standard
  /// output. `root` stands before every path that is read; empty for this machine. Without a
  /// name, text shows attached devices and devices in use, and JSON shows all.
  public static func run(
    device name: ByteString?, asJSON: Bool, root: ByteString, log: Log
  ) -> (status: CInt, output: ByteString) {
    var devices: [DeviceStatus] = []
    var carried: [UblkStatus] = []
    if let name, let device = UblkDevice(named: name, root: root) {
      guard device.exists else {
        let report = UblkError.noSuchDevice(device.node).report
        log.write(.error, report.reason, next: report.advice)
        return (1, "")
      }
      carried = [UblkStatus(device)]
    } else if let name {
      guard let device = NBDDevice(named: name, root: root) else {
        log.write(
          .error, "'\(name.printable)' is not the name of an nbd or ublk device",
          next: "a name is /dev/nbd0, nbd0 or ublkb0")
        return (2, "")
      }
      guard device.exists else {
        let report = DetachError.noSuchDevice(device.node).report
        log.write(.error, report.reason, next: report.advice)
        return (1, "")
      }
      devices = [DeviceStatus(device)]
    } else {
      for device in NBDDevice.all(root: root) { devices.append(DeviceStatus(device)) }
      for device in UblkDevice.all(root: root) { carried.append(UblkStatus(device)) }
    }
    if asJSON {
      var json = JSONWriter()
      json.beginObject()
      json.key("devices")
      json.beginArray()
      for device in devices { device.write(to: &json) }
      for device in carried { device.write(to: &json) }
      json.endArray()
      json.endObject()
      return (0, ByteString(json.bytes) + "\n")
    }
    var text: ByteString = ""
    for device in devices where name != nil || device.isAttached || !device.users.isEmpty {
      text += device.text
    }
    for device in carried { text += device.text }
    if text.isEmpty { text = "no device is attached\n" }
    return (0, text)
  }
}

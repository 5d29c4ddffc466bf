// SPDX-License-Identifier: Apache-2.0
// Nodes in /dev for devices that sysfs shows: devtmpfs makes them, and where there is none we do.

import CLinux
public import WireFormat

/// What mknod(2) makes of the numbers.
public enum DeviceNodeKind: Sendable { case block, character }

/// The number in the name of a disk, `/dev/nbd0` or `nbd0` with the driver's prefix `nbd`; nil for
/// anything else, a partition too.
public func diskIndex(named text: ByteString, prefix: ByteString, maximum: UInt32) -> UInt32? {
  let name = text.dropping(prefix: "/dev/") ?? text
  guard let digits = name.dropping(prefix: prefix),
    let index = digits.decimal(maximum: UInt64(maximum)),
    digits.count == 1 || digits.bytes[0] != 0x30
  else { return nil }
  return UInt32(index)
}

/// Waits until devtmpfs has made `node`, at most `milliseconds`; where /dev is no devtmpfs, makes
/// it from the `MAJOR:MINOR` that the file `numberPath` holds. ETIMEDOUT when it does not appear,
/// ENOENT when sysfs does not show the device.
public func ensureDeviceNode(
  _ node: ByteString, _ kind: DeviceNodeKind, numberPath: ByteString, milliseconds: UInt64
) throws(SystemError) {
  let deadline = Deadline.milliseconds(milliseconds)
  while true {
    if fileExists(node) { return }
    if let text = try? readFile(numberPath, limit: 64),
      let (major, minor) = text.trimmed.cut(at: 0x3a),
      let majorValue = major.decimal(maximum: 4095),
      let minorValue = minor.decimal(maximum: 0xfffff),
      !isDevtmpfs
    {
      do {
        _ = try unsafe withCString(node) { path in
          // SAFETY: a terminated copy that outlives the call.
          unsafe clinux_mknod_device(
            path, kind == .block ? 1 : 0, 0o600, UInt32(majorValue), UInt32(minorValue))
        }
        return
      } catch .exists {
      } catch { throw error }
    }
    if deadline.hasPassed { throw fileExists(numberPath) ? .timedOut : .noSuchFile }
    pause(milliseconds: 2)
  }
}

/// Whether the mount on /dev makes its nodes itself.
private var isDevtmpfs: Bool {
  let table = (try? readFile("/proc/self/mountinfo", limit: 1 << 20)) ?? ""
  var isDevtmpfs = false
  for line in table.fields(separatedBy: 0x0a) {
    let fields = line.fields(separatedBy: 0x20)
    guard fields.count > 6, fields[4] == "/dev" else { continue }
    // The last mount on a place covers those before it.
    for position in 6..<(fields.count - 1) where fields[position] == "-" {
      isDevtmpfs = fields[position + 1] == "devtmpfs"
      break
    }
  }
  return isDevtmpfs
}

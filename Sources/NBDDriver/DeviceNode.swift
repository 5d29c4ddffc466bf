// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem
import WireFormat

extension NBDDevice {
  /// Waits for devtmpfs to make the node; makes it ourselves where /dev is no devtmpfs.
  func makeNode() throws(AttachError) {
    let deadline = Deadline.milliseconds(Self.nodeMilliseconds)
    while true {
      if let status = try? fileStatus(node), status.kind == .blockDevice { return }
      if !Self.devIsDevtmpfs {
        guard let number = deviceNumber, let (major, minor) = number.cut(at: 0x3a),
          let majorValue = major.decimal(maximum: 4095),
          let minorValue = minor.decimal(maximum: 0xfffff)
        else { throw .node(node, .noSuchFile) }
        do {
          _ = try unsafe withCString(node) { path in
            // SAFETY: a terminated copy that outlives the call.
            unsafe clinux_mknod_block(path, 0o600, UInt32(majorValue), UInt32(minorValue))
          }
          return
        } catch {
          if error != .exists { throw .node(node, error) }
        }
      }
      if deadline.hasPassed { throw .node(node, .timedOut) }
      pause(milliseconds: 2)
    }
  }

  private static var devIsDevtmpfs: Bool {
    let table = (try? readFile("/proc/self/mountinfo", limit: tableLimit)) ?? ""
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
}

/// Ours, as /proc names it.
func currentProcessIdentifier() -> UInt32 { UInt32(bitPattern: clinux_process_id()) }

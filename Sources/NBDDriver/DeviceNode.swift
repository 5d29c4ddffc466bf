// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem
import WireFormat

extension NBDDevice {
  /// Waits for devtmpfs to make the node; makes it ourselves where /dev is no devtmpfs.
  func makeNode() throws(AttachError) {
    do {
      try ensureDeviceNode(
        node, .block, numberPath: directory + "/dev", milliseconds: Self.nodeMilliseconds)
    } catch { throw .node(node, error) }
  }
}

/// Ours, as /proc names it.
func currentProcessIdentifier() -> UInt32 { UInt32(bitPattern: clinux_process_id()) }

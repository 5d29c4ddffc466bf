// SPDX-License-Identifier: Apache-2.0
// A file of a file system in memory, mapped, so that its bytes go to a socket and come from one
// without a copy between.
//
// The program itself never touches the mapping: somebody may cut the file, and then that is SIGBUS. A
// system call that is handed the address says EFAULT instead. A hole would take memory by being read
// through the mapping, so a file that has any is not for this.

import CLinux
import LinuxSystem

@safe final class FileMapping: @unchecked Sendable {
  // Unchecked: the address never changes; what lies there is the kernel's to order.
  /// Valid as long as the object lives.
  let base: UnsafeMutableRawPointer
  let byteCount: UInt64
  let isWritable: Bool
  private let descriptor: CInt

  /// Nil when the system has no room for it. The descriptor stays open as long as the object lives.
  init?(of descriptor: CInt, byteCount: UInt64, isWritable: Bool) {
    guard byteCount > 0, let count = Int(exactly: byteCount),
      let base = unsafe clinux_map_file(descriptor, count, isWritable ? 1 : 0)
    else { return nil }
    unsafe self.base = unsafe base
    self.byteCount = byteCount
    self.isWritable = isWritable
    self.descriptor = descriptor
  }

  deinit { unsafe clinux_unmap(base, Int(byteCount)) }  // SAFETY: mapped by `init`.

  /// Whether all of it is there now: neither cut nor holes.
  var isWhole: Bool { clinux_file_is_whole(descriptor, byteCount) == 1 }
}

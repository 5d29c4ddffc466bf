// SPDX-License-Identifier: Apache-2.0
// A file of a file system in memory, mapped, so that its bytes go to a socket and come from one
// without a copy between.
//
// Nobody touches the mapping but by `BackendMapping.write`: somebody may cut the file, and then that
// is SIGBUS. A system call that is handed the address says EFAULT instead. A hole would take memory
// by being read through the mapping, so a file that has any is not for this.
//
// The first touch of each page through a mapping costs more than the copy that it spares. A thread
// touches all of them, many in one call, once somebody uses the mapping.

import CLinux
import LinuxSystem
import Synchronization

@safe final class FileMapping: @unchecked Sendable {
  // Unchecked: the address never changes; what lies there is the kernel's to order.
  /// Valid as long as the object lives.
  let base: UnsafeMutableRawPointer
  let byteCount: UInt64
  let isWritable: Bool
  private let descriptor: CInt
  private let isComplete = Atomic(false)
  /// The descriptor is about to be closed.
  private let isOver = Atomic(false)

  /// Nil when the system has no room for it. The descriptor stays open until `end`.
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

  /// Before the descriptor is closed.
  func end() { isOver.store(true, ordering: .relaxed) }

  /// Has the pages of a whole file entered into the process's tables, once; returns at once.
  func complete() {
    guard !isComplete.load(ordering: .relaxed),
      !isComplete.exchange(true, ordering: .relaxed)
    else { return }
    let box = unsafe Unmanaged.passRetained(self)
    // SAFETY: the object is the thread's from here on.
    let result = unsafe clinux_start_thread(
      Self.stackByteCount,
      { argument in
        // SAFETY: retained above for this thread alone.
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<FileMapping>.fromOpaque(argument).takeRetainedValue().touch()
        return nil
      }, box.toOpaque())
    if result < 0 { unsafe box.release() }  // SAFETY: the thread that would take it does not exist.
  }

  private static let stackByteCount = 64 << 10
  /// The tables take 2 MiB for a GiB: 32 MiB at most.
  private static let touchedByteCountMaximum: UInt64 = 16 << 30
  /// What is done between two looks at whether the file is still whole: a millisecond or so.
  private static let touchedByteCount: UInt64 = 8 << 20

  private func touch() {
    var offset: UInt64 = 0
    while offset < min(byteCount, Self.touchedByteCountMaximum),
      !isOver.load(ordering: .relaxed), isWhole
    {
      let count = min(Self.touchedByteCount, byteCount - offset)
      // SAFETY: inside the mapping, which lives as long as this object. A file that has been cut
      // meanwhile is an error of the call.
      guard unsafe clinux_enter_pages(base + Int(offset), Int(count)) == 0 else { return }
      offset += count
    }
  }
}

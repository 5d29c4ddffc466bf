// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem

/// Memory that the system gives page by page when it is first touched, and takes back on demand:
/// room for the longest request costs nothing to a session that makes short ones.
@safe struct MappedMemory: ~Copyable, @unchecked Sendable {
  // Unchecked: an address that never changes; what lies there is the owner's business.
  /// Valid as long as the value lives.
  let buffer: UnsafeMutableRawBufferPointer

  /// `inHugePages`: of 2 MiB, as far as the system has them.
  init(byteCount: Int, inHugePages: Bool = false) throws(SystemError) {
    let map = unsafe inHugePages ? clinux_map_memory_in_huge_pages : clinux_map_memory
    guard let base = unsafe map(byteCount) else { throw .noMemory }
    // SAFETY: as long as was asked for, and unmapped by nobody else.
    unsafe buffer = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
  }

  deinit { unsafe clinux_unmap_memory(buffer.baseAddress, buffer.count) }  // SAFETY: mapped above.

  /// What lies beyond the first `kept` bytes is given back to the system.
  func discard(beyond kept: Int) {
    unsafe discard(kept..<buffer.count)
  }

  /// From the start of a page on.
  func discard(_ range: Range<Int>) {
    precondition(
      unsafe range.lowerBound % 4096 == 0 && range.lowerBound >= 0
        && range.upperBound <= buffer.count)
    // SAFETY: inside the mapping, and at the start of a page.
    unsafe clinux_discard_memory(buffer.baseAddress! + range.lowerBound, range.count)
  }
}

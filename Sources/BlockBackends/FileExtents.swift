// SPDX-License-Identifier: Apache-2.0
// What is known of the bytes of a file without reading them, and what is in memory already.

import CLinux
import LinuxSystem
import Synchronization

extension FileBackend {
  /// SEEK_DATA and SEEK_HOLE. Source: linux/fs.h.
  private static let seekData: CInt = 3
  private static let seekHole: CInt = 4

  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    var list = ExtentList(maximum: maximum)
    var at = range.lowerBound
    // The descriptor's position is moved by this and read by nobody.
    while at < range.upperBound, geometry == nil {
      let data = clinux_lseek(file.rawValue, Int64(at), Self.seekData)
      // ENXIO: nothing but a hole follows. Any other error: what is there cannot be told.
      guard data >= 0 || data == -6 else { break }
      let holeEnd = data < 0 ? range.upperBound : min(UInt64(data), range.upperBound)
      if holeEnd > at {
        guard list.append(holeEnd - at, isHole: true, readsAsZeroes: true) else {
          return list.extents
        }
        at = holeEnd
        continue
      }
      let hole = clinux_lseek(file.rawValue, Int64(at), Self.seekHole)
      guard hole > Int64(at) else { break }  // Somebody else has changed it in between.
      let dataEnd = min(UInt64(hole), range.upperBound)
      guard list.append(dataEnd - at, isHole: false, readsAsZeroes: false) else {
        return list.extents
      }
      at = dataEnd
    }
    _ = list.append(range.upperBound - at, isHole: false, readsAsZeroes: false)
    return list.extents
  }

  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    isDirect ? nil : BackendFileRange(descriptor: file.rawValue, offset: range.lowerBound)
  }

  public func directRange(of range: Range<UInt64>) -> BackendDirectRange? {
    isDirect
      ? BackendDirectRange(
        descriptor: file.rawValue, offset: range.lowerBound, isSync: isSync) : nil
  }

  public func mapping() -> BackendMapping? {
    guard let mapped, mapped.isWhole else { return nil }
    mapped.complete()
    // SAFETY: the mapping lives as long as this object.
    return unsafe BackendMapping(
      base: mapped.base, byteCount: mapped.byteCount, isWritable: mapped.isWritable)
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    guard canReadWithoutWaiting.load(ordering: .relaxed) else {
      // A file of a file system in memory does not wait, whatever it says of RWF_NOWAIT.
      guard isInMemory else { return false }
      try unsafe read(into: buffer, at: offset)
      return true
    }
    // SAFETY: the buffer's own address and length.
    let count = unsafe clinux_read_without_waiting(
      file.rawValue, buffer.baseAddress, buffer.count, Int64(offset))
    if count == buffer.count { return true }
    if count == -95 {  // EOPNOTSUPP: this file system never can.
      canReadWithoutWaiting.store(false, ordering: .relaxed)
      return try unsafe readWithoutWaiting(into: buffer, at: offset)
    }
    // Fewer bytes: some pages are not in memory, or the file has been cut. `read` finds out, and
    // meets again what was an error.
    return false
  }

  public func prefetch(_ range: Range<UInt64>) {
    guard !isDirect, range.upperBound <= byteCount, !range.isEmpty else { return }
    _ = clinux_prefetch(
      file.rawValue, Int64(range.lowerBound), Int64(range.upperBound - range.lowerBound))
  }
}

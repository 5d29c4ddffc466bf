// SPDX-License-Identifier: Apache-2.0
// What BLOCK_STATUS answers for base:allocation, made of what the backend knows.

import BlockBackends
import NBDProtocol

enum AllocationStatus {
  /// Of one answer: the client asks for the rest. 64 KiB on the wire at most.
  static let extentCountMaximum = 4096
  /// Head and extents.
  static let replyByteCountMaximum =
    ReplyStyle.headByteCountMaximum + 8 + 16 * extentCountMaximum

  /// What lies in `range`, which is not empty, from its start on. At least one extent, neighbours
  /// differ, and all but the end of the export are multiples of `alignment`: blocks that are not
  /// of one kind are data. `isOne`: only the first.
  static func extents(
    of range: Range<UInt64>, isOne: Bool, alignment: UInt64, in backend: any BlockBackend
  ) throws(BackendError) -> [ExtentStatus] {
    let found = try backend.extents(in: range, maximum: isOne ? 1 : extentCountMaximum)
    return align(found, in: range, to: alignment, isOne: isOne)
  }

  /// `alignment` is a power of two; `range` begins at a multiple of it.
  static func align(
    _ found: [BackendExtent], in range: Range<UInt64>, to alignment: UInt64, isOne: Bool = false
  ) -> [ExtentStatus] {
    let mask = alignment - 1
    var list: [ExtentStatus] = []
    list.reserveCapacity(found.count)
    func append(_ byteCount: UInt64, _ flags: AllocationFlags) {
      guard byteCount > 0 else { return }
      if list.last?.flags == flags {
        list[list.count - 1].byteCount += byteCount
      } else {
        list.append(ExtentStatus(byteCount: byteCount, flags: flags))
      }
    }

    // Where the next extent begins, and up to where the list goes: a multiple of the alignment, not
    // before it.
    var start = range.lowerBound
    var done = range.lowerBound
    for extent in found {
      let end = start + min(extent.byteCount, range.upperBound - start)
      let inner = end == range.upperBound ? end : end & ~mask
      if inner > done {
        append(inner - done, AllocationFlags(extent))
        done = inner
      }
      if end > done {
        // A block of two kinds.
        let blockEnd = done + min(alignment, range.upperBound - done)
        append(blockEnd - done, [])
        done = blockEnd
      }
      start = end
    }
    // Nothing known is data.
    if list.isEmpty { append(range.upperBound - range.lowerBound, []) }
    return isOne ? Array(list.prefix(1)) : Array(list.prefix(extentCountMaximum))
  }
}

extension AllocationFlags {
  init(_ extent: BackendExtent) {
    var flags: AllocationFlags = []
    if extent.isHole { flags.insert(.hole) }
    if extent.readsAsZeroes { flags.insert(.zero) }
    self = flags
  }
}

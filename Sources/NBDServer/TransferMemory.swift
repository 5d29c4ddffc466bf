// SPDX-License-Identifier: Apache-2.0
// Where the data of requests lie that a disk is at work on: each has a place of its own, which begins
// with a page.
//
// Long transfers lie in huge pages. A disk is told of every piece of memory that is not next to the
// one before: a mebibyte in pages of 4 KiB is 256 pieces, more than a virtio disk takes at once
// (254), so that it went as two requests. In huge pages such a disk read and wrote up to twice as
// much. Where the system gives none, they are ordinary pages.
//
//   |--short: a place for each slot--|--long: blocks of 2 MiB, each of 32 units--|

import LinuxSystem

@safe struct TransferMemory: ~Copyable {
  /// The longest transfer: what qemu-img(1) asks for.
  static let longestByteCount = 2 << 20
  /// Up to here a transfer lies in the place of its slot, in ordinary pages: otherwise a queue of
  /// short ones would take a huge page to begin with.
  static let shortByteCount = 16 << 10
  private static let unitByteCount = longestByteCount / UInt32.bitWidth
  private static let blockCount = 8
  /// The blocks behind these go back to the system when no long transfer is left.
  private static let keptBlockCount = 4

  /// What it takes at most.
  static func byteCountMaximum(slotCount: Int) -> Int {
    slotCount * shortByteCount + blockCount * longestByteCount
  }

  /// Of one transfer. What lies there is its own from `take` until `giveBack`.
  @safe struct Place {
    @unsafe fileprivate(set) var buffer = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)
    var byteCount: Int { unsafe buffer.count }
  }

  private let short: MappedMemory
  private let long: MappedMemory
  /// Of each block, a bit for each unit that is taken.
  private var taken = [UInt32](repeating: 0, count: blockCount)
  private var takenPlaceCount = 0
  /// Blocks that may have memory.
  private var usedBlockCount = 0

  init(slotCount: Int) throws(SystemError) {
    let short = try MappedMemory(byteCount: slotCount * Self.shortByteCount)
    let long = try MappedMemory(
      byteCount: Self.blockCount * Self.longestByteCount, inHugePages: true)
    self.short = short
    self.long = long
  }

  /// For a transfer of so many bytes, at most `longestByteCount`, in this slot; nil when there is no
  /// room now.
  mutating func take(_ byteCount: Int, slot: Int) -> Place? {
    if byteCount <= Self.shortByteCount {
      return part(of: short, at: slot * Self.shortByteCount, byteCount)
    }
    let units = Self.units(byteCount)
    for block in 0..<Self.blockCount {
      for first in stride(from: 0, to: UInt32.bitWidth, by: units.count) {
        guard taken[block] & units.mask << first == 0 else { continue }
        taken[block] |= units.mask << first
        takenPlaceCount += 1
        usedBlockCount = max(usedBlockCount, block + 1)
        return part(
          of: long, at: block * Self.longestByteCount + first * Self.unitByteCount, byteCount)
      }
    }
    return nil
  }

  /// What `take` gave.
  mutating func giveBack(_ place: Place) {
    guard place.byteCount > Self.shortByteCount else { return }
    // SAFETY: both are addresses in the same mapping.
    let offset = unsafe place.buffer.baseAddress! - long.buffer.baseAddress!
    let units = Self.units(place.byteCount)
    let first = offset % Self.longestByteCount / Self.unitByteCount
    taken[offset / Self.longestByteCount] &= ~(units.mask << first)
    takenPlaceCount -= 1
    if takenPlaceCount == 0, usedBlockCount > Self.keptBlockCount {
      long.discard(beyond: Self.keptBlockCount * Self.longestByteCount)
      usedBlockCount = Self.keptBlockCount
    }
  }

  /// How many units a long transfer takes, a power of two, and a bit for each. They begin at a
  /// multiple of their number.
  private static func units(_ byteCount: Int) -> (count: Int, mask: UInt32) {
    precondition(byteCount <= longestByteCount)
    var count = 1
    while count * unitByteCount < byteCount { count *= 2 }
    return (count, UInt32.max >> (UInt32.bitWidth - count))
  }

  private func part(of memory: borrowing MappedMemory, at offset: Int, _ byteCount: Int) -> Place {
    // SAFETY: the range is checked.
    unsafe Place(
      buffer: UnsafeMutableRawBufferPointer(
        rebasing: memory.buffer[offset..<(offset + byteCount)]))
  }
}

// SPDX-License-Identifier: Apache-2.0
// Bits that any number of threads read and change without a lock: which blocks an overlay has
// taken over, which regions of a mirror are being written.
//
// Zeroed pages of the system that nobody has touched take no memory, so a map of a huge medium
// costs what has been set in it. What is seen set was set before, with everything that happened
// before that (acquire and release).

import CLinux
import LinuxSystem
import Synchronization

@safe struct AtomicBits: ~Copyable, @unchecked Sendable {
  // Unchecked: the words are atomics, and the pointer to them never changes.
  typealias Word = Atomic<UInt64>

  /// 512 MiB of bits.
  static let countMaximum: UInt64 = 1 << 32
  /// What comes from the allocator rather than in pages of its own; a process has 65530 mappings.
  private static let allocatedByteCountMaximum = 65536

  let wordCount: Int
  private let words: UnsafeMutablePointer<Word>
  private var byteCount: Int { wordCount * 8 }

  /// `count` bits, all 0. EFBIG above `countMaximum`.
  init(count: UInt64) throws(SystemError) {
    guard count <= Self.countMaximum else { throw .fileTooLarge }
    let wordCount = Int((count + 63) / 64) + 1
    let byteCount = wordCount * 8
    let words: UnsafeMutablePointer<Word>
    if byteCount <= Self.allocatedByteCountMaximum {
      unsafe words = UnsafeMutablePointer<Word>.allocate(capacity: wordCount)
      // SAFETY: as many words as were allocated.
      for index in 0..<wordCount { unsafe (words + index).initialize(to: Atomic(0)) }
    } else {
      guard let memory = unsafe clinux_map_memory(byteCount) else { throw .noMemory }
      // SAFETY: zeroed pages, which are atomics of value 0: an atomic has its value's layout.
      unsafe words = memory.bindMemory(to: Word.self, capacity: wordCount)
    }
    self.wordCount = wordCount
    unsafe self.words = words
  }

  deinit {
    // SAFETY: given back the way it was taken, by the only owner. An atomic needs no end.
    if byteCount <= Self.allocatedByteCountMaximum {
      unsafe words.deallocate()
    } else {
      unsafe clinux_unmap_memory(words, byteCount)
    }
  }

  func contains(_ bit: UInt64) -> Bool { word(Int(bit / 64)) >> (bit % 64) & 1 == 1 }

  /// Whether the bit was 0.
  @discardableResult func insert(_ bit: UInt64) -> Bool {
    formUnion(1 << (bit % 64), inWord: Int(bit / 64)) >> (bit % 64) & 1 == 0
  }

  func remove(_ bit: UInt64) {
    let index = Int(bit / 64)
    precondition(index < wordCount)
    let mask: UInt64 = 1 << (bit % 64)
    // SAFETY: inside the words.
    unsafe _ = words[index].bitwiseAnd(~mask, ordering: .acquiringAndReleasing)
  }

  /// Bits `64 * index` to `64 * index + 63`, least significant first.
  func word(_ index: Int) -> UInt64 {
    precondition(index >= 0 && index < wordCount)
    return unsafe words[index].load(ordering: .acquiring)  // SAFETY: inside the words.
  }

  /// Sets bits of a word and says what it was.
  @discardableResult func formUnion(_ bits: UInt64, inWord index: Int) -> UInt64 {
    precondition(index >= 0 && index < wordCount)
    // SAFETY: inside the words.
    return unsafe words[index].bitwiseOr(bits, ordering: .acquiringAndReleasing).oldValue
  }

  /// Takes the bits out of a word and leaves 0.
  func takeWord(_ index: Int) -> UInt64 {
    precondition(index >= 0 && index < wordCount)
    // SAFETY: inside the words.
    return unsafe words[index].exchange(0, ordering: .acquiringAndReleasing)
  }

  /// Whether each bit of the range has the value.
  func all(_ bits: ClosedRange<UInt64>, are value: Bool) -> Bool {
    let first = Int(bits.lowerBound / 64)
    let last = Int(bits.upperBound / 64)
    for index in first...last {
      let mask = Self.mask(of: bits, inWord: index)
      if word(index) & mask != (value ? mask : 0) { return false }
    }
    return true
  }

  func insert(_ bits: ClosedRange<UInt64>) {
    for index in Int(bits.lowerBound / 64)...Int(bits.upperBound / 64) {
      formUnion(Self.mask(of: bits, inWord: index), inWord: index)
    }
  }

  /// How many of the bits from `bit` on have its value, up to and with `last`.
  func runLength(from bit: UInt64, through last: UInt64) -> UInt64 {
    let value = contains(bit)
    var at = bit
    while at <= last {
      // What differs from the first, from `at`'s own place in its word on.
      let differing = (value ? ~word(Int(at / 64)) : word(Int(at / 64))) >> (at % 64)
      guard differing == 0 else {
        return min(at + UInt64(differing.trailingZeroBitCount), last + 1) - bit
      }
      at = (at / 64 + 1) * 64
    }
    return last + 1 - bit
  }

  /// The first bit from `bit` on that is 1; nil when there is none.
  func first(from bit: UInt64) -> UInt64? {
    var index = Int(bit / 64)
    guard index < wordCount else { return nil }
    var rest = word(index) & (.max << (bit % 64))
    while rest == 0 {
      index += 1
      guard index < wordCount else { return nil }
      rest = word(index)
    }
    return UInt64(index * 64 + rest.trailingZeroBitCount)
  }

  /// How many are 1.
  var population: UInt64 {
    var sum: UInt64 = 0
    for index in 0..<wordCount { sum += UInt64(word(index).nonzeroBitCount) }
    return sum
  }

  private static func mask(of bits: ClosedRange<UInt64>, inWord index: Int) -> UInt64 {
    var mask = UInt64.max
    if index == Int(bits.lowerBound / 64) { mask &= .max << (bits.lowerBound % 64) }
    if index == Int(bits.upperBound / 64) { mask &= .max >> (63 - bits.upperBound % 64) }
    return mask
  }
}

/// Locks for what is told apart by number; two things may share one.
struct StripedLocks: ~Copyable, Sendable {
  private let locks = InlineArray<16, Mutex<Void>> { _ in Mutex(()) }

  func withLock<Failure: Error>(
    of number: UInt64, _ body: () throws(Failure) -> Void
  ) throws(Failure) {
    try locks[Int(number % 16)].withLock { _ throws(Failure) in try body() }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Which of two copies of a request is the newer, and which may run: for a client that repeats a
// request on another connection while the first copy may still be on its way. No lock: all
// connections of an attachment ask at once, for every request.
//
// For each tag one word has the newest counter that was seen, and whether one copy is being executed.
//
//   1  Of one tag at most one copy is executed at a time.
//   2  A copy that is older than one seen is never begun.

import Synchronization

/// Which request this is: of one tag there is one request at a time, and the counter grows each
/// time that the tag is sent again, for a new request or for a repeat of the old one.
public struct RequestMark: Equatable, Sendable {
  /// Below 4096 for a request of the client's queue; others are in no order, and never fenced.
  public var tag: UInt32
  /// Wraps at 2^32: the newer of two is the one that is less than 2^31 ahead.
  public var counter: UInt32

  public init(tag: UInt32, counter: UInt32) {
    self.tag = tag
    self.counter = counter
  }
}

final class RequestFence: Sendable {
  /// Tags from here on are in no order: what a client sends beside its queue. Source: a ublk queue
  /// has at most 4096 entries, `UBLK_MAX_QUEUE_DEPTH` in Linux `include/uapi/linux/ublk_cmd.h`.
  static let tagCount: UInt32 = 4096

  enum Verdict: Equatable {
    /// Execute it, then call `finished`.
    case proceed
    /// An older copy is being executed: ask again when it has finished.
    case wait
    /// A newer copy has been seen: forget this one.
    case superseded
  }

  /// What is known of one tag: its newest counter, and two flags above it.
  private struct Entry {
    private static let seen: UInt64 = 1 << 32
    private static let executing: UInt64 = 1 << 33
    let word: UInt64
    var isSeen: Bool { word & Self.seen != 0 }
    var isExecuting: Bool { word & Self.executing != 0 }
    var newest: UInt32 { UInt32(truncatingIfNeeded: word) }

    init(word: UInt64) { self.word = word }
    init(newest: UInt32, isExecuting: Bool) {
      word = UInt64(newest) | Self.seen | (isExecuting ? Self.executing : 0)
    }
  }

  /// A page of memory for as many tags as queues usually have; a longer queue gets the rest.
  private static let firstTagCount = 512
  private let first = Words(count: firstTagCount)
  private let rest = AtomicLazyReference<Words>()

  private func word(of tag: UInt32) -> (Words, Int)? {
    guard tag < Self.tagCount else { return nil }
    if tag < Self.firstTagCount { return (first, Int(tag)) }
    let rest =
      rest.load() ?? rest.storeIfNil(Words(count: Int(Self.tagCount) - Self.firstTagCount))
    return (rest, Int(tag) - Self.firstTagCount)
  }

  /// Asked before each part of a request that changes or reads anything.
  func admit(_ mark: RequestMark) -> Verdict {
    guard let (words, index) = word(of: mark.tag) else { return .proceed }
    var old = words.load(index)
    while true {
      let entry = Entry(word: old)
      // The counter wraps.
      if entry.isSeen, Int32(bitPattern: mark.counter &- entry.newest) < 0 { return .superseded }
      let new = Entry(newest: mark.counter, isExecuting: true)
      guard let other = words.exchange(index, expected: old, new.word) else {
        return entry.isExecuting ? .wait : .proceed
      }
      old = other
    }
  }

  /// False when a newer copy has come meanwhile, which will be answered instead.
  func finished(_ mark: RequestMark) -> Bool {
    guard let (words, index) = word(of: mark.tag) else { return true }
    var old = words.load(index)
    while true {
      let entry = Entry(word: old)
      guard entry.isSeen else { return true }
      let new = Entry(newest: entry.newest, isExecuting: false)
      guard let other = words.exchange(index, expected: old, new.word) else {
        return entry.newest == mark.counter
      }
      old = other
    }
  }

  /// Forgets everything; nobody may ask meanwhile.
  func reset() {
    first.reset()
    rest.load()?.reset()
  }
}

/// An array of words that many threads change.
@safe private final class Words: @unchecked Sendable {
  // Unchecked: the pointer never changes, and what it points to is atomic.
  @unsafe private let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let count: Int

  init(count: Int) {
    self.count = count
    // SAFETY: as many are initialized as were allocated; `deinit` frees them.
    unsafe words = .allocate(capacity: count)
    for index in 0..<count { unsafe (words + index).initialize(to: Atomic(0)) }
  }

  deinit {
    unsafe words.deinitialize(count: count)  // SAFETY: made by `init`, and used by nobody any more.
    unsafe words.deallocate()
  }

  func load(_ index: Int) -> UInt64 {
    precondition(index < count)
    return unsafe words[index].load(ordering: .sequentiallyConsistent)  // SAFETY: checked above.
  }

  /// Nil when it was `expected`, and is `new` now; or else what it is.
  func exchange(_ index: Int, expected: UInt64, _ new: UInt64) -> UInt64? {
    precondition(index < count)
    // SAFETY: checked above.
    let (done, old) = unsafe words[index].compareExchange(
      expected: expected, desired: new, ordering: .sequentiallyConsistent)
    return done ? nil : old
  }

  func reset() {
    // SAFETY: below the count.
    for index in 0..<count { unsafe words[index].store(0, ordering: .sequentiallyConsistent) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Which of two copies of a request is the newer, and which may run: for a client that repeats a
// request on another connection while the first copy may still be on its way. Touches nothing.
//
// For each tag the newest counter that was seen is kept, and whether one copy is being executed.
//
//   1  Of one tag at most one copy is executed at a time.
//   2  A copy that is older than one seen is never begun.

/// Which request this is: of one tag there is one request at a time, and the counter grows each
/// time that the tag is sent again, for a new request or for a repeat of the old one.
public struct RequestMark: Equatable, Sendable {
  public var tag: UInt32
  public var counter: UInt32

  public init(tag: UInt32, counter: UInt32) {
    self.tag = tag
    self.counter = counter
  }
}

struct RequestFence {
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

  private struct Entry {
    var newest: UInt32
    var isExecuting: Bool
  }
  private var entries: [UInt32: Entry] = [:]

  /// Asked before each part of a request that changes or reads anything.
  mutating func admit(_ mark: RequestMark) -> Verdict {
    guard mark.tag < Self.tagCount else { return .proceed }
    guard var entry = entries[mark.tag] else {
      entries[mark.tag] = Entry(newest: mark.counter, isExecuting: true)
      return .proceed
    }
    // The counter wraps.
    guard Int32(bitPattern: mark.counter &- entry.newest) >= 0 else { return .superseded }
    let isBusy = entry.isExecuting
    entry.newest = mark.counter
    entry.isExecuting = true
    entries[mark.tag] = entry
    return isBusy ? .wait : .proceed
  }

  /// False when a newer copy has come meanwhile, which will be answered instead.
  mutating func finished(_ mark: RequestMark) -> Bool {
    guard let entry = entries[mark.tag] else { return true }
    entries[mark.tag]?.isExecuting = false
    return entry.newest == mark.counter
  }
}

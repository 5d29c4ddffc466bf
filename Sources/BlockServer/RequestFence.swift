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

  /// The mark in the same eight bytes read in the other order.
  var swapped: RequestMark {
    RequestMark(tag: counter.byteSwapped, counter: tag.byteSwapped)
  }
}

struct RequestFence {
  /// More than Linux has: 16 queues of 128 requests. Source: `nbd_add_socket`'s users and
  /// `queue_depth` in Linux `drivers/block/nbd.c`.
  static let tagCountMaximum = 4096
  /// A tag's upper half is its queue, the lower half a number in it.
  static let queueCountMaximum: UInt32 = 16
  static let queueDepthMaximum: UInt32 = 4096

  enum Verdict: Equatable {
    /// Execute it, then call `finished`.
    case proceed
    /// An older copy is being executed: ask again when it has finished.
    case wait
    /// A newer copy has been seen: forget this one.
    case superseded
    /// Execute it, and call nothing: it cannot be told yet in which order its bytes are.
    case unordered
    /// This is not how Linux numbers its requests: nothing can be told about them.
    case notTags
  }

  private struct Entry {
    var newest: UInt32
    var isExecuting: Bool
  }
  private var entries: [UInt32: Entry] = [:]
  /// Whether the client's kernel puts the bytes in the other order; nil until a mark that is one in
  /// one order only has told. A counter is hardly ever a tag when it is read backwards.
  private var isSwapped: Bool?

  private static func isTag(_ value: UInt32) -> Bool {
    value >> 16 < queueCountMaximum && value & 0xffff < queueDepthMaximum
  }

  /// Asked before each part of a request that changes or reads anything.
  mutating func admit(_ sent: RequestMark) -> Verdict {
    if isSwapped == nil {
      switch (Self.isTag(sent.tag), Self.isTag(sent.swapped.tag)) {
      case (true, false): isSwapped = false
      case (false, true): isSwapped = true
      case (true, true): return .unordered
      case (false, false): return .notTags
      }
    }
    let mark = isSwapped == true ? sent.swapped : sent
    guard var entry = entries[mark.tag] else {
      guard Self.isTag(mark.tag), entries.count < Self.tagCountMaximum else { return .notTags }
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
  mutating func finished(_ sent: RequestMark) -> Bool {
    let mark = isSwapped == true ? sent.swapped : sent
    guard let entry = entries[mark.tag] else { return true }
    entries[mark.tag]?.isExecuting = false
    return entry.newest == mark.counter
  }

  var tagCount: Int { entries.count }
}

// SPDX-License-Identifier: Apache-2.0
// Who runs the engine. Its runner may execute a short request itself, which saves two changes of
// threads; if the disk lets it wait, another thread that stands by runs the engine meanwhile.
//
//   runner: ... step, lend, execute, take back ─(in time)─► step ...
//                                          └─(too late)─► hand the job over, stand by
//   other:  stand by ────────────(lent for too long)─────► step ...
//
//   1  One thread runs the engine: whoever exchanged the lent time for 0, or lent nothing.
//   2  The engine is lent only while somebody stands by.

import Foundation
import LinuxSystem
import Synchronization

final class Baton: Sendable {
  /// How long a runner may be inside an operation before another one takes over.
  private let patienceNanoseconds: UInt64
  /// Since when, 0 when it is not lent.
  private let lent = Atomic<UInt64>(0)
  private let standbyCount = Atomic(0)
  /// Nobody looks at `lent`: wake somebody.
  private let isDormant = Atomic(false)
  private let isOver = Atomic(false)
  private let condition = NSCondition()
  /// Looks that found nothing lent before nobody looks any more.
  private static let lookCount = 20

  init(patienceMilliseconds: UInt64 = 5) { patienceNanoseconds = patienceMilliseconds * 1_000_000 }

  var hasStandby: Bool { standbyCount.load(ordering: .acquiring) > 0 }

  /// By the runner, which touches nothing of the engine until `takeBack`. `now` is not 0.
  func lend(at now: MonotonicTime) -> UInt64 {
    lent.store(now.nanoseconds, ordering: .sequentiallyConsistent)
    if isDormant.load(ordering: .sequentiallyConsistent) {
      condition.lock()
      condition.signal()
      condition.unlock()
    }
    return now.nanoseconds
  }

  /// False when another one runs the engine by now.
  func takeBack(_ token: UInt64) -> Bool {
    lent.compareExchange(expected: token, desired: 0, ordering: .acquiringAndReleasing).exchanged
  }

  /// Until the engine is this thread's to run; false when it has ended.
  func standBy() -> Bool {
    standbyCount.add(1, ordering: .acquiringAndReleasing)
    defer { standbyCount.subtract(1, ordering: .acquiringAndReleasing) }
    var idleLooks = 0
    while true {
      condition.lock()
      if idleLooks >= Self.lookCount {
        isDormant.store(true, ordering: .sequentiallyConsistent)
        while !isOver.load(ordering: .acquiring),
          lent.load(ordering: .sequentiallyConsistent) == 0
        { condition.wait() }
        isDormant.store(false, ordering: .sequentiallyConsistent)
        idleLooks = 0
      } else if !isOver.load(ordering: .acquiring) {
        _ = condition.wait(
          until: Date(timeIntervalSinceNow: Double(patienceNanoseconds) / 1_000_000_000))
      }
      condition.unlock()
      if isOver.load(ordering: .acquiring) { return false }
      let since = lent.load(ordering: .acquiring)
      guard since != 0 else {
        idleLooks += 1
        continue
      }
      let now = MonotonicTime.now.nanoseconds
      if now > since, now - since >= patienceNanoseconds, takeBack(since) { return true }
    }
  }

  /// The engine has ended: nobody needs to stand by.
  func end() {
    condition.lock()
    isOver.store(true, ordering: .releasing)
    condition.broadcast()
    condition.unlock()
  }
}

// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Synchronization
import TestSupport
import Testing

@testable import BlockServer

@Suite("The fence of requests")
struct RequestFenceTests {
  private func mark(_ tag: UInt32, _ counter: UInt32) -> RequestMark {
    RequestMark(tag: tag, counter: counter)
  }

  @Test("lets a tag pass again and again while its counter grows")
  func growing() {
    let fence = RequestFence()
    for counter: UInt32 in [1, 2, 2, 3, 1000] {
      #expect(fence.admit(mark(7, counter)) == .proceed)
      #expect(fence.finished(mark(7, counter)))
    }
    #expect(fence.admit(mark(8, 1)) == .proceed)
  }

  @Test("forgets what is older than a copy that has been seen, finished or not")
  func older() {
    let fence = RequestFence()
    #expect(fence.admit(mark(7, 5)) == .proceed)
    #expect(fence.admit(mark(7, 4)) == .superseded)
    #expect(fence.finished(mark(7, 5)))
    #expect(fence.admit(mark(7, 4)) == .superseded)
    #expect(fence.admit(mark(7, 5)) == .proceed)
  }

  @Test("lets a repeat wait for the older copy, whose answer nobody wants then")
  func repeats() {
    let fence = RequestFence()
    #expect(fence.admit(mark(7, 1)) == .proceed)
    #expect(fence.admit(mark(7, 2)) == .wait)
    // A newer one yet: of those that wait only the newest is executed.
    #expect(fence.admit(mark(7, 3)) == .wait)
    #expect(!fence.finished(mark(7, 1)))
    #expect(fence.admit(mark(7, 2)) == .superseded)
    #expect(fence.admit(mark(7, 3)) == .proceed)
    #expect(fence.finished(mark(7, 3)))
    // The second half of the oldest copy, whose first half was executed.
    #expect(fence.admit(mark(7, 1)) == .superseded)
  }

  @Test("knows that the counter begins anew after its end")
  func wrapping() {
    let fence = RequestFence()
    #expect(fence.admit(mark(1, .max)) == .proceed)
    #expect(fence.finished(mark(1, .max)))
    #expect(fence.admit(mark(1, 0)) == .proceed)
    #expect(fence.finished(mark(1, 0)))
    #expect(fence.admit(mark(1, .max)) == .superseded)
  }

  @Test(
    "has no order for tags that are of no queue", arguments: [4096, 0x0001_0000, .max] as [UInt32])
  func unordered(tag: UInt32) {
    let fence = RequestFence()
    for counter: UInt32 in [5, 4, 5, 0] { #expect(fence.admit(mark(tag, counter)) == .proceed) }
    #expect(fence.finished(mark(tag, 4)))
    #expect(fence.admit(mark(4095, 5)) == .proceed)
    #expect(fence.admit(mark(4095, 4)) == .superseded)
  }

  /// A connection admits and finishes, or is lost in between; whatever the marks are, of one tag
  /// one copy runs at a time, and never one that is older than one that ran.
  @Test("keeps its promises for any marks in any order")
  func randomMarks() {
    var random = SeededGenerator(printingAs: "marks")
    let fence = RequestFence()
    var running: [UInt32: UInt32] = [:]
    var newest: [UInt32: UInt32] = [:]
    for _ in 0..<50_000 {
      if let (tag, counter) = running.randomElement(using: &random),
        Bool.random(using: &random)
      {
        running[tag] = nil
        let isNewest = fence.finished(mark(tag, counter))
        #expect(isNewest == (newest[tag] == counter))
        continue
      }
      let wild = Int.random(in: 0..<50, using: &random) == 0
      let tag = UInt32.random(in: 0...(wild ? RequestFence.tagCount - 1 : 8), using: &random)
      let counter = UInt32.random(in: 0...(wild ? .max : 100), using: &random)
      let isOlder = newest[tag].map { Int32(bitPattern: counter &- $0) < 0 } ?? false
      switch fence.admit(mark(tag, counter)) {
      case .proceed:
        #expect(running[tag] == nil && !isOlder)
        running[tag] = counter
        newest[tag] = counter
      case .wait:
        #expect(running[tag] != nil && !isOlder)
        newest[tag] = counter
      case .superseded: #expect(isOlder)
      }
    }
  }

  private final class Counts: Sendable {
    let given = Atomic<UInt32>(0)
    let running = Atomic(0)
    let run = Atomic(0)
    let overlapping = Atomic(0)
  }

  /// What a lock would do: here one word does it.
  @Test("lets one copy run at a time, however many threads ask at once")
  func manyThreads() {
    let fence = RequestFence()
    let counts = Counts()
    DispatchQueue.concurrentPerform(iterations: 4) { _ in
      for _ in 0..<50_000 {
        let counter = counts.given.add(1, ordering: .relaxed).newValue
        let mark = RequestMark(tag: 600, counter: counter)
        guard fence.admit(mark) == .proceed else { continue }
        if counts.running.add(1, ordering: .relaxed).newValue != 1 {
          counts.overlapping.add(1, ordering: .relaxed)
        }
        counts.running.subtract(1, ordering: .relaxed)
        counts.run.add(1, ordering: .relaxed)
        _ = fence.finished(mark)
      }
    }
    #expect(counts.run.load(ordering: .relaxed) > 0)
    #expect(counts.overlapping.load(ordering: .relaxed) == 0)
    // Whatever the order was, in the end nothing runs, and the newest is known.
    let newest = counts.given.load(ordering: .relaxed)
    #expect(fence.admit(mark(600, newest &- 1)) == .superseded)
    #expect(fence.admit(mark(600, newest)) == .proceed)
  }
}

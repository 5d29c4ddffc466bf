// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import BlockServer

/// The fence behind a reference: an expectation cannot change a value.
private final class Fence {
  private var fence = RequestFence()
  func admit(_ mark: RequestMark) -> RequestFence.Verdict { fence.admit(mark) }
  func finished(_ mark: RequestMark) -> Bool { fence.finished(mark) }
  var tagCount: Int { fence.tagCount }
}

@Suite("The fence of requests")
struct RequestFenceTests {
  private func mark(_ tag: UInt32, _ counter: UInt32) -> RequestMark {
    RequestMark(tag: tag, counter: counter)
  }

  @Test("lets a tag pass again and again while its counter grows")
  func growing() {
    let fence = Fence()
    for counter: UInt32 in [1, 2, 2, 3, 1000] {
      #expect(fence.admit(mark(7, counter)) == .proceed)
      #expect(fence.finished(mark(7, counter)))
    }
    #expect(fence.admit(mark(8, 1)) == .proceed)
    #expect(fence.tagCount == 2)
  }

  @Test("forgets what is older than a copy that has been seen, finished or not")
  func older() {
    let fence = Fence()
    #expect(fence.admit(mark(7, 5)) == .proceed)
    #expect(fence.admit(mark(7, 4)) == .superseded)
    #expect(fence.finished(mark(7, 5)))
    #expect(fence.admit(mark(7, 4)) == .superseded)
    #expect(fence.admit(mark(7, 5)) == .proceed)
  }

  @Test("lets a repeat wait for the older copy, whose answer nobody wants then")
  func repeats() {
    let fence = Fence()
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
    let fence = Fence()
    #expect(fence.admit(mark(1, .max)) == .proceed)
    #expect(fence.finished(mark(1, .max)))
    #expect(fence.admit(mark(1, 0)) == .proceed)
    #expect(fence.finished(mark(1, 0)))
    #expect(fence.admit(mark(1, .max)) == .superseded)
  }

  @Test("knows tags of Linux and no others, and a limited number of them")
  func limits() {
    let fence = Fence()
    #expect(fence.admit(mark(0x000f_0fff, 1)) == .proceed)
    for tag: UInt32 in [0x0010_0000, 0x0000_1000, 0x0100_0000, .max] {
      #expect(fence.admit(mark(tag, 1)) == .notTags)
    }
    for tag in 0..<UInt32(RequestFence.tagCountMaximum - 1) {
      #expect(fence.admit(mark(tag, 1)) == .proceed)
    }
    #expect(fence.admit(mark(0x0001_0000, 1)) == .notTags)
    #expect(fence.tagCount == RequestFence.tagCountMaximum)
  }
}

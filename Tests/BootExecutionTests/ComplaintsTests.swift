// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import Testing

@testable import BootExecution

@Suite("The reason why a connection does not come back")
struct ComplaintsTests {
  private func at(_ seconds: UInt64) -> MonotonicTime {
    MonotonicTime(nanoseconds: (1000 + seconds) * 1_000_000_000)
  }

  @Test("is said at once, and again while it lasts: after 10 s, 20 s more, at last every 600 s")
  func lasting() {
    var complaints = Complaints()
    var said: [UInt64] = []
    for second: UInt64 in 0...3000 where complaints.isDue(.differentContent, at: at(second)) {
      said.append(second)
    }
    #expect(said == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430])
  }

  @Test("is said at once when it is another one, or when the connection was there in between")
  func changing() {
    var complaints = Complaints()
    let first = complaints.isDue(.system(.connectionRefused), at: at(0))
    let same = complaints.isDue(.system(.connectionRefused), at: at(1))
    let other = complaints.isDue(.differentContent, at: at(1))
    complaints.forget()
    let again = complaints.isDue(.differentContent, at: at(2))
    #expect([first, same, other, again] == [true, false, true, true])
  }
}

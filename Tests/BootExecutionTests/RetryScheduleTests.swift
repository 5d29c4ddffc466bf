// SPDX-License-Identifier: Apache-2.0
import BootExecution
import TestSupport
import Testing

@Suite("The pauses between attempts")
struct RetryScheduleTests {
  @Test("double up to their limit, and are drawn from their upper half")
  func growth() {
    var shortest = RetrySchedule()
    var longest = RetrySchedule()
    for whole: UInt64 in [500, 1000, 2000, 4000, 8000, 8000, 8000] {
      #expect(shortest.pauseMilliseconds(random: 0) == whole / 2)
      #expect(longest.pauseMilliseconds(random: whole / 2) == whole)
    }
  }

  @Test("stay within bounds whatever the random number is")
  func bounds() {
    var random = SeededGenerator(printingAs: "pauses")
    var schedule = RetrySchedule()
    for _ in 0..<1000 {
      let pause = schedule.pauseMilliseconds(random: random.next())
      #expect(pause >= 250 && pause <= RetrySchedule.longestMilliseconds)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// One line for each kind of failure, however often it happens: the first is printed at once, the
// rest are counted, and the count is printed now and then and when something else happens.

import LinuxSystem
import WireFormat

struct FailureReport {
  /// Somebody in front of the console wants to see that it still tries.
  static let reminderMilliseconds: UInt64 = 30_000

  private let log: Log
  private var last: ByteString = ""
  private var repeatCount: UInt64 = 0
  private var lastPrinted = MonotonicTime.now

  init(_ log: Log) { self.log = log }

  mutating func add(_ reason: String, advice: String) {
    let text = ByteString(reason)
    guard text == last else {
      flush()
      last = text
      lastPrinted = MonotonicTime.now
      log.write(.error, reason, next: advice)
      return
    }
    repeatCount += 1
    if MonotonicTime.now.milliseconds(since: lastPrinted) >= Self.reminderMilliseconds { flush() }
  }

  /// Prints what was only counted.
  mutating func flush() {
    guard repeatCount > 0 else { return }
    log.write(
      .error, "\(String(decoding: last.bytes, as: UTF8.self)) (\(repeatCount) times more)")
    repeatCount = 0
    lastPrinted = MonotonicTime.now
  }
}

// SPDX-License-Identifier: Apache-2.0
import LinuxSystem

/// When the reason why a connection does not come back is said: at once when it is a new one, and
/// again while it lasts, at growing pauses. Once is not enough: the kernel takes ten lines in five
/// seconds from one writer and drops the others without a word. Source: `devkmsg_write`, Linux
/// `kernel/printk/printk.c`.
struct Complaints {
  static let firstPauseMilliseconds: UInt64 = 10_000
  static let longestPauseMilliseconds: UInt64 = 600_000

  private var last: ReconnectionError?
  private var saidAt = MonotonicTime(nanoseconds: 0)
  private var pauseMilliseconds = firstPauseMilliseconds

  /// Whether to say it now; it counts as said then.
  mutating func isDue(_ error: ReconnectionError, at now: MonotonicTime) -> Bool {
    if error == last {
      guard now.milliseconds(since: saidAt) >= pauseMilliseconds else { return false }
      pauseMilliseconds = min(pauseMilliseconds * 2, Self.longestPauseMilliseconds)
    } else {
      pauseMilliseconds = Self.firstPauseMilliseconds
    }
    last = error
    saidAt = now
    return true
  }

  /// The connection is there: the next reason is a new one.
  mutating func forget() { last = nil }
}

// SPDX-License-Identifier: Apache-2.0
import CLinux

/// A moment of CLOCK_MONOTONIC.
public struct MonotonicTime: Comparable, Sendable {
  /// Since a moment near the boot; time in which the machine sleeps does not count.
  public let nanoseconds: UInt64
  public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  public static var now: MonotonicTime {
    MonotonicTime(nanoseconds: clinux_monotonic_nanoseconds())
  }
  public static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

  /// 0 when `earlier` is later.
  public func milliseconds(since earlier: MonotonicTime) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? (nanoseconds - earlier.nanoseconds) / 1_000_000 : 0
  }

  /// Saturates at the end of time.
  public func advanced(byMilliseconds milliseconds: UInt64) -> MonotonicTime {
    let (product, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
    let (sum, carry) = nanoseconds.addingReportingOverflow(product)
    return MonotonicTime(nanoseconds: overflow || carry ? .max : sum)
  }
}

/// When something must have happened. `never` is the end of time.
public struct Deadline: Sendable {
  /// The first moment that is too late.
  public let time: MonotonicTime
  public init(at time: MonotonicTime) { self.time = time }
  /// `pollMilliseconds` is then -1, and `hasPassed` false for ever.
  public static let never = Deadline(at: MonotonicTime(nanoseconds: .max))

  /// So many from now on.
  public static func milliseconds(_ count: UInt64) -> Deadline {
    Deadline(at: MonotonicTime.now.advanced(byMilliseconds: count))
  }

  public var isNever: Bool { time.nanoseconds == .max }
  public var hasPassed: Bool { !isNever && MonotonicTime.now >= time }

  /// For poll(2): rounded up, -1 for never, at most a day.
  public var pollMilliseconds: CInt {
    if isNever { return -1 }
    let now = MonotonicTime.now
    guard time > now else { return 0 }
    return CInt(min((time.nanoseconds - now.nanoseconds) / 1_000_000 + 1, 86_400_000))
  }

  /// The one that passes first.
  public func earlier(of other: Deadline) -> Deadline {
    other.time < time ? other : self
  }
}

/// Sleeps; for pauses between attempts, never to wait for a fact.
public func pause(milliseconds: UInt64) {
  clinux_sleep_nanoseconds(
    MonotonicTime(nanoseconds: 0).advanced(byMilliseconds: milliseconds).nanoseconds)
}

/// From the kernel's generator.
public func randomValue(below bound: UInt64) -> UInt64 {
  bound == 0 ? 0 : clinux_random() % bound
}

/// Seconds since 1970; 0 while the clock of this machine has not been set (boards without a
/// battery begin in 1970).
public func wallClockSeconds() -> UInt64 {
  let seconds = clinux_realtime_seconds()
  return seconds > 1_000_000_000 ? UInt64(seconds) : 0
}

// SPDX-License-Identifier: Apache-2.0

/// How long to pause between attempts: each pause is twice the one before, up to a limit, and is
/// drawn from its upper half, so that a rack of boards does not knock all at once.
public struct RetrySchedule: Sendable {
  /// A server that is being restarted is back within a second or two.
  public static let firstMilliseconds: UInt64 = 500
  /// A server that stays away for long is found within this time of its return.
  public static let longestMilliseconds: UInt64 = 8_000

  private var nextMilliseconds = firstMilliseconds

  public init() {}

  /// `random` is any number; the pause depends on it and on how often this was called.
  public mutating func pauseMilliseconds(random: UInt64) -> UInt64 {
    let longest = nextMilliseconds
    nextMilliseconds = min(longest * 2, Self.longestMilliseconds)
    return longest / 2 + random % (longest / 2 + 1)
  }
}

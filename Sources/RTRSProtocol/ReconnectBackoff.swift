// SPDX-License-Identifier: Apache-2.0
/// How long to wait before a path is tried again: twice as long each time up to a limit, drawn
/// from the upper half, so that a rack of boards does not knock all at once. (Linux's client waits
/// 31 s each time; nothing in the protocol asks for that.)
public struct ReconnectBackoff: Equatable, Sendable {
  /// A server that is being restarted is back within a second or two.
  public static let firstNanoseconds: UInt64 = 500_000_000
  /// A server that stays away for long is found within this time of its return.
  public static let longestNanoseconds: UInt64 = 8_000_000_000

  private var nextNanoseconds = firstNanoseconds

  /// As after `reset`.
  public init() {}

  /// `random` is any number.
  public mutating func pause(random: UInt64) -> UInt64 {
    let longest = nextNanoseconds
    nextNanoseconds = min(longest * 2, Self.longestNanoseconds)
    return longest / 2 + random % (longest / 2 + 1)
  }

  /// The path was up: the next loss begins anew.
  public mutating func reset() { nextNanoseconds = Self.firstNanoseconds }
}

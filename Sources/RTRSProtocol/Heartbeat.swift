// SPDX-License-Identifier: Apache-2.0
// Liveness of one path. Reads no clock, owns no connection: a test runs an hour at once.
//
// Both halves do the same, each with a timer of its own. With Linux's limits a peer that dies is
// noticed 30 to 35 s later: the first tick after its last sign asks, six more go by.

/// Source: `hb_work()` in Linux 6.12 `rtrs.c`.
public struct Heartbeat: Equatable, Sendable {
  /// How often the peer is asked, and for how long it may be silent.
  public struct Limits: Equatable, Sendable {
    /// Between two ticks.
    public var intervalNanoseconds: UInt64
    /// Ticks that may pass unanswered; the one after them ends the path.
    public var missedMaximum: Int

    public init(intervalNanoseconds: UInt64, missedMaximum: Int) {
      self.intervalNanoseconds = intervalNanoseconds
      self.missedMaximum = missedMaximum
    }

    /// Source: `RTRS_HB_INTERVAL_MS` and `RTRS_HB_MISSED_MAX`.
    public static let linux = Limits(intervalNanoseconds: 5_000_000_000, missedMaximum: 5)
    /// A root device waits for nothing as long as that: a dead peer is noticed in 6 to 7 s. Any
    /// peer acknowledges at once, however often it is asked.
    public static let brisk = Limits(intervalNanoseconds: 1_000_000_000, missedMaximum: 5)
  }

  /// What to do after a tick; `endPath` comes again until somebody does it.
  public enum Action: Equatable, Sendable { case wait, sendHeartbeat, endPath }

  private let limits: Limits
  private var missedCount = 0
  private var sentNanoseconds: UInt64 = 0
  /// When `tick` has something to do next.
  public private(set) var tickNanoseconds: UInt64
  /// From the last heartbeat to its acknowledgement; 0 until there was one.
  public private(set) var latencyNanoseconds: UInt64 = 0

  /// The first tick comes one interval after `nanoseconds`, which is when the path came up.
  public init(_ limits: Limits, at nanoseconds: UInt64) {
    self.limits = limits
    tickNanoseconds = nanoseconds &+ limits.intervalNanoseconds
  }

  /// Anything came from the peer.
  public mutating func heard() { missedCount = 0 }

  /// The heartbeat that was sent last is acknowledged, at this moment.
  public mutating func acknowledged(at nanoseconds: UInt64) {
    missedCount = 0
    guard nanoseconds >= sentNanoseconds, sentNanoseconds > 0 else { return }
    latencyNanoseconds = nanoseconds - sentNanoseconds
  }

  /// Nothing to do before `tickNanoseconds`. A process that was stopped for long finds one tick
  /// waiting and not many: what came in the meantime is to be handled before.
  public mutating func tick(at nanoseconds: UInt64) -> Action {
    guard nanoseconds >= tickNanoseconds else { return .wait }
    guard missedCount <= limits.missedMaximum else { return .endPath }
    tickNanoseconds = nanoseconds &+ limits.intervalNanoseconds
    missedCount += 1
    guard missedCount == 1 else { return .wait }
    sentNanoseconds = nanoseconds
    return .sendHeartbeat
  }
}

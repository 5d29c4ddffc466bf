// SPDX-License-Identifier: Apache-2.0
// Brings the connections of a ublk device back, one attempt after another, each a step at a time:
// a way to the server, its handshake, and a look whether it is still the same export.

import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

struct UblkReconnects: ReconnectSource, ~Copyable {
  /// Steps of a handshake are looked for at this interval.
  static let stepNanoseconds: UInt64 = 4_000_000
  /// Pauses between attempts grow from here, drawn from the upper half, so that a rack of boards
  /// does not knock all at once.
  static let firstPauseMilliseconds: UInt64 = 100
  static let longestPauseMilliseconds: UInt64 = 1000
  /// A copy on another server is asked for when the server stays away so long.
  static let otherSiteNanoseconds: UInt64 = 5_000_000_000

  private final class Slot {
    enum State { case live, pausing, attempting }
    var state = State.live
    var path: Int
    let attempt: Reconnection
    var pauseMilliseconds = firstPauseMilliseconds
    var lostNanoseconds: UInt64 = 0
    init(_ attempt: Reconnection, path: Int) {
      self.attempt = attempt
      self.path = path
    }
  }

  private let plan: KeeperPlan
  private var slots: [Slot] = []
  private var log: KeeperLog
  private let deviceName: [UInt8]
  private var pathTexts: [[UInt8]] = []
  private var site: UInt32
  private var lastError: ReconnectionError?

  init(_ plan: KeeperPlan, device: ByteString, log: consuming KeeperLog) {
    self.plan = plan
    self.log = log
    deviceName = device.bytes
    for path in plan.paths { pathTexts.append(path.address.text.bytes) }
    site = plan.paths[0].site
    for number in 0..<Int(plan.connectionCount) {
      slots.append(
        Slot(Reconnection(plan, slot: UInt16(number)), path: number % plan.paths.count))
    }
  }

  mutating func isLost(_ slot: Int, _ reason: LossReason, at nanoseconds: UInt64) {
    let one = slots[slot]
    one.state = .pausing
    one.pauseMilliseconds = Self.firstPauseMilliseconds
    one.lostNanoseconds = nanoseconds
    guard reason != .notYet else { return }
    log.begin(.warning, deviceName)
    log.add("connection ")
    log.add(UInt64(slot))
    log.add(" to ")
    log.add(pathTexts[one.path])
    log.add(" is lost: ")
    log.add(reason.text)
    log.add("; reconnecting, requests wait")
    log.end()
  }

  mutating func step(_ slot: Int, at nanoseconds: UInt64) -> ReconnectStep {
    let one = slots[slot]
    switch one.state {
    case .live, .pausing:
      do throws(ReconnectionError) {
        try one.attempt.start(plan.paths[one.path])
      } catch { return failed(one, error, at: nanoseconds) }
      one.state = .attempting
      return advance(one, slot, at: nanoseconds)
    case .attempting:
      return advance(one, slot, at: nanoseconds)
    }
  }

  private mutating func advance(
    _ one: Slot, _ slot: Int, at nanoseconds: UInt64
  ) -> ReconnectStep {
    do throws(ReconnectionError) {
      guard case .ready = try one.attempt.advance() else {
        return .later(nanoseconds: nanoseconds &+ Self.stepNanoseconds)
      }
    } catch { return failed(one, error, at: nanoseconds) }
    one.state = .live
    site = plan.paths[one.path].site
    lastError = nil
    log.begin(.notice, deviceName)
    log.add("connection ")
    log.add(UInt64(slot))
    log.add(" to ")
    log.add(pathTexts[one.path])
    log.add(" is there after ")
    log.add(milliseconds: (nanoseconds &- one.lostNanoseconds) / 1_000_000)
    log.end()
    return .connected(one.attempt.release())
  }

  private mutating func failed(
    _ one: Slot, _ error: ReconnectionError, at nanoseconds: UInt64
  ) -> ReconnectStep {
    one.state = .pausing
    if lastError != error {
      lastError = error
      log.begin(error.isDifferentExport ? .error : .warning, deviceName)
      log.add(pathTexts[one.path])
      log.add(": ")
      log.add(error.text)
      log.add("; trying again")
      log.end()
    }
    // The next way; one to another copy only when this server has stayed away for long.
    let mayLeaveSite = nanoseconds &- one.lostNanoseconds > Self.otherSiteNanoseconds
    for _ in 0..<plan.paths.count {
      one.path = (one.path + 1) % plan.paths.count
      if mayLeaveSite || plan.paths[one.path].site == site { break }
    }
    let longest = one.pauseMilliseconds
    one.pauseMilliseconds = min(longest * 2, Self.longestPauseMilliseconds)
    let pause = longest / 2 + randomValue(below: longest / 2 + 1)
    return .later(nanoseconds: nanoseconds &+ pause &* 1_000_000)
  }
}

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

  private final class Slot {
    enum State { case live, pausing, attempting }
    var state: State
    var path: Int
    let homePath: Int
    let attempt: Reconnection
    var pauseMilliseconds = KeeperTimes.firstPauseMilliseconds
    var lostNanoseconds: UInt64 = 0
    init(_ attempt: Reconnection, path: Int, homePath: Int, isLive: Bool) {
      self.attempt = attempt
      self.path = path
      self.homePath = homePath
      state = isLive ? .live : .pausing
    }
  }

  private let plan: KeeperPlan
  private var slots: [Slot] = []
  private var log: KeeperLog
  private let deviceName: [UInt8]
  private var pathTexts: [[UInt8]] = []
  private var site: UInt32
  private var complaints = Complaints()

  /// `connections`: those that work already, in the order of their slots.
  init(
    _ plan: KeeperPlan, _ connections: [LiveConnection], device: ByteString,
    log: consuming KeeperLog
  ) {
    self.plan = plan
    self.log = log
    deviceName = device.bytes
    for path in plan.paths { pathTexts.append(path.address.text.bytes) }
    site = plan.paths[connections.first?.path ?? 0].site
    for number in 0..<Int(plan.connectionCount) {
      let home = plan.homePath(ofConnection: number, site: site)
      let isLive = number < connections.count
      slots.append(
        Slot(
          Reconnection(plan, slot: UInt16(number), isCounted: true),
          path: isLive ? connections[number].path : home, homePath: home, isLive: isLive))
    }
  }

  mutating func isLost(_ slot: Int, _ reason: LossReason, at nanoseconds: UInt64) {
    let one = slots[slot]
    one.state = .pausing
    one.pauseMilliseconds = KeeperTimes.firstPauseMilliseconds
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

  func goTheSameWay(_ slot: Int, _ other: Int) -> Bool { slots[slot].path == slots[other].path }

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
      // Two servers with copies of one image must not be written to at the same time.
      if plan.paths[one.path].site != site, isServed { throw .otherSiteInUse }
    } catch { return failed(one, error, at: nanoseconds) }
    one.state = .live
    site = plan.paths[one.path].site
    complaints.forget()
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
    if complaints.isDue(error, at: MonotonicTime(nanoseconds: nanoseconds)) {
      log.begin(error.isDifferentExport ? .error : .warning, deviceName)
      log.add(pathTexts[one.path])
      log.add(": ")
      log.add(error.text)
      log.add(
        error.isDifferentExport ? "; not attached, waiting for the right one" : "; trying again")
      log.end()
    }
    one.attempt.close()
    one.path = nextPath(after: one, at: nanoseconds)
    let longest = one.pauseMilliseconds
    one.pauseMilliseconds = min(longest * 2, KeeperTimes.longestPauseMilliseconds)
    let pause = longest / 2 + randomValue(below: longest / 2 + 1)
    return .later(nanoseconds: nanoseconds &+ pause &* 1_000_000)
  }

  /// Whether some connection works; requests go on then.
  private var isServed: Bool {
    for slot in slots where slot.state == .live { return true }
    return false
  }

  /// The connection's own way while others work, so that a lost path is found again; else the next
  /// one, to a copy on another server only when this one has stayed away for long.
  private func nextPath(after one: Slot, at nanoseconds: UInt64) -> Int {
    if isServed, plan.paths[one.homePath].site == site { return one.homePath }
    let lostMilliseconds = (nanoseconds &- one.lostNanoseconds) / 1_000_000
    let mayLeaveSite = !isServed && lostMilliseconds > KeeperTimes.otherSiteMilliseconds
    var path = one.path
    for _ in 0..<plan.paths.count {
      path = (path + 1) % plan.paths.count
      if mayLeaveSite || plan.paths[path].site == site { return path }
    }
    return one.path
  }
}

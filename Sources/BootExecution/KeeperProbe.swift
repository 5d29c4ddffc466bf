// SPDX-License-Identifier: Apache-2.0
// What a keeper does about a server that owes answers on the device's only connection: it asks over
// another one, on the same way and then on the others. Whoever answers takes over; when nobody
// does nothing is cut, for a server that was stopped goes on where it was.
//
//   live ──nothing received, something owed──► ask way after way ──► ready: cut the old one, hand
//     ▲                                             │                        the new one over
//     └──────────── something was received ◄────────┘
//
// To enter the export with the token of the device makes rootlinkd end the old connection; that one
// is lost then like any other, and what was in flight on it is sent again.

import CLinux
import LinuxSystem
import NBDDriver
import WireFormat

/// Nothing in here is allocated.
struct KeeperProbe {
  var watch: AnswerWatch
  /// /sys/block/NAME/stat, or -1.
  let statistics: CInt
  var nextLook = MonotonicTime.now
  var isAsking = false
  /// Of the way that is asked, among the plan's paths.
  var path = 0
  /// poll(2) events for which the question waits.
  var awaited: CShort = 0
  /// Ways that were asked in this silence.
  var askedCount = 0
  var isTold = false
}

extension Keeper {
  static func probe(_ plan: KeeperPlan, statistics: CInt) -> KeeperProbe? {
    plan.detection.probeMilliseconds(
      plan.requestTimeoutSeconds, connectionCount: plan.connectionCount
    ).map { KeeperProbe(watch: AnswerWatch(limitMilliseconds: $0), statistics: statistics) }
  }

  /// The question's part of poll(2).
  func questionEntry(_ next: inout MonotonicTime) -> pollfd {
    var entry = pollfd(fd: -1, events: 0, revents: 0)
    guard let probe, slots[0].state == .live else { return entry }
    next = min(next, probe.nextLook)
    if probe.isAsking {
      entry.fd = slots[0].attempt.descriptor
      entry.events = probe.awaited
      next = min(next, slots[0].attempt.deadline.time)
    }
    return entry
  }

  /// Another socket carries the data from now on; nothing is out on it.
  mutating func beginWatch(_ connection: LiveConnection) {
    var counts = connection.counts
    counts.disk = diskCounts()
    probe?.watch.begin(counts)
  }

  mutating func watchAnswers() {
    guard probe != nil, slots[0].state == .live else { return }
    let now = MonotonicTime.now
    if let look = probe?.nextLook, look <= now { lookForAnswers(now) }
    if probe?.isAsking == true { goOnAsking(now) }
  }

  mutating func stopAsking() {
    if probe?.isAsking == true { slots[0].attempt.close() }
    probe?.isAsking = false
    probe?.askedCount = 0
    probe?.isTold = false
  }

  private mutating func lookForAnswers(_ now: MonotonicTime) {
    let slot = slots[0]
    // A socket that the kernel may have dropped says nothing.
    var counts =
      slot.isUncertain
      ? AnswerCounts() : LiveConnection(descriptor: slot.descriptor, path: slot.path).counts
    counts.disk = diskCounts()
    guard let pause = probe?.watch.lookMilliseconds,
      let isSilent = probe?.watch.look(counts, at: now)
    else { return }
    probe?.nextLook = now.advanced(byMilliseconds: pause)
    guard isSilent else {
      if probe?.isTold == true {
        log.begin(.notice, deviceName)
        log.add(pathTexts[slot.path])
        log.add(" answers again")
        log.end()
      }
      return stopAsking()
    }
    if probe?.isAsking == false { ask(now) }
  }

  private mutating func ask(_ now: MonotonicTime) {
    let slot = slots[0]
    let count = probe?.askedCount ?? 0
    let path = (slot.path + count % plan.paths.count) % plan.paths.count
    probe?.path = path
    do throws(ReconnectionError) {
      try slot.attempt.start(plan.paths[path])
      probe?.isAsking = true
      probe?.awaited = CShort(clinux_POLLOUT)
    } catch { hasNoAnswer(error, now) }
  }

  private mutating func goOnAsking(_ now: MonotonicTime) {
    do throws(ReconnectionError) {
      switch try slots[0].attempt.advance() {
      case .pending(let events): probe?.awaited = events
      case .ready: replaceSilent(now)
      }
    } catch { hasNoAnswer(error, now) }
  }

  private mutating func hasNoAnswer(_ error: ReconnectionError, _ now: MonotonicTime) {
    guard let path = probe?.path, let before = probe?.askedCount else { return }
    probe?.isAsking = false
    probe?.askedCount = before + 1
    if error.isDifferentExport { complain(error, path) }
    guard (before + 1) % plan.paths.count == 0 else {
      probe?.nextLook = now  // The next way is asked at once.
      return
    }
    guard probe?.isTold == false else { return }
    probe?.isTold = true
    beginSilence(now)
    log.add("; nobody else does, requests wait for it")
    log.end()
  }

  /// The other connection is there: what waits on the old one is sent again.
  private mutating func replaceSilent(_ now: MonotonicTime) {
    guard let probe else { return }
    let slot = slots[0]
    beginSilence(now)
    log.add("; changing to a new connection to ")
    log.add(pathTexts[probe.path])
    log.end()
    lostSince = probe.watch.owedSince ?? now
    attemptsSinceLoss = UInt64(probe.askedCount) + 1
    complaints.forget()
    // Nothing that was sent may arrive later, when it has been sent again.
    clinux_cut_connection(slot.descriptor)
    forget(slot)
    slot.descriptor = slot.attempt.release()
    slot.path = probe.path
    slot.attemptCount = 0
    slot.pauseMilliseconds = KeeperTimes.firstPauseMilliseconds
    slot.state = .offering(until: now.advanced(byMilliseconds: KeeperTimes.noticeMilliseconds))
    self.probe?.watch.growPatient()
    self.probe?.isAsking = false
    stopAsking()
  }

  private mutating func beginSilence(_ now: MonotonicTime) {
    let since = probe?.watch.owedSince ?? now
    log.begin(.warning, deviceName)
    log.add(pathTexts[slots[0].path])
    log.add(" has not answered for ")
    log.add(milliseconds: now.milliseconds(since: since))
  }

  /// Read anew into memory and over a descriptor that are there; nothing but zeroes without them.
  private func diskCounts() -> DiskCounts {
    guard let statistics = probe?.statistics, statistics >= 0 else { return DiskCounts() }
    // SAFETY: the buffer's own storage.
    let count = unsafe clinux_pread(statistics, datagram.baseAddress!, datagram.count, 0)
    guard count > 0, unsafe count <= datagram.count else { return DiskCounts() }
    return DiskCounts(decoding: unsafe datagram.span.extracting(first: count))
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a keeper does about each connection, and what it says.

import CLinux
import LinuxSystem
import NBDDriver
import NetlinkProtocol
import WireFormat

extension Keeper {
  /// Whether some connection works; requests go on then.
  func isServed(besides index: Int = -1) -> Bool {
    for other in slots.indices where other != index {
      switch slots[other].state {
      case .live, .foreign: return true
      case .waiting, .attempting, .offering: continue
      }
    }
    return false
  }

  /// While none works only the first asks for the server: the others follow when it is found, to
  /// where it was found.
  func mayAttempt(_ index: Int) -> Bool {
    if isServed(besides: index) { return true }
    for earlier in 0..<index {
      switch slots[earlier].state {
      case .waiting, .attempting, .offering: return false
      case .live, .foreign: continue
      }
    }
    return true
  }

  mutating func step(_ index: Int) {
    let slot = slots[index]
    switch slot.state {
    case .foreign: return
    case .live:
      // SAFETY: one entry a slot behind the first two.
      let seen = unsafe pollSet[index + 2]
      guard seen.fd == slot.descriptor else { return }
      let ended = CShort(clinux_POLLHUP) | CShort(clinux_POLLERR)
      if seen.revents & (ended | CShort(clinux_POLLRDHUP)) != 0 {
        lose(index, isAborted: seen.revents & ended != 0)
      }
    case .waiting(let time):
      if time <= MonotonicTime.now, mayAttempt(index) { attempt(index) }
    case .attempting:
      do throws(ReconnectionError) {
        switch try slot.attempt.advance() {
        case .pending(let events): slot.awaited = events
        case .ready:
          slot.descriptor = slot.attempt.release()
          slot.state = .offering(
            until: MonotonicTime.now.advanced(byMilliseconds: KeeperTimes.noticeMilliseconds))
          offer(index)
        }
      } catch { fail(index, error) }
    case .offering:
      if isHungUp(slot.descriptor) { fail(index, .closed) } else { offer(index) }
    }
  }

  // MARK: - Loss

  private mutating func lose(_ index: Int, isAborted: Bool) {
    let slot = slots[index]
    // Nothing that was sent may arrive later, when it has been sent again on another connection.
    if isAborted { clinux_cut_connection(slot.descriptor) }
    forget(slot)
    stopAsking()
    slot.isUncertain = false
    let now = MonotonicTime.now
    slot.state = .waiting(
      now.advanced(
        byMilliseconds: randomValue(below: KeeperTimes.firstJitterMilliseconds)))
    slot.attemptCount = 0
    slot.pauseMilliseconds = KeeperTimes.firstPauseMilliseconds
    // A device that was detached loses its connections, too.
    askWhetherAttached()
    if isOver { return }
    if lostSince == nil {
      lostSince = now
      attemptsSinceLoss = 0
      complaints.forget()
    }
    log.begin(.warning, deviceName)
    log.add("the connection to ")
    log.add(pathTexts[slot.path])
    log.add(isServed() ? " is lost; the others carry on" : " is lost; requests wait for it")
    log.end()
    cutSiblings(of: slot)
  }

  /// Others on the same way that hear nothing either: the kernel would find them out one after the
  /// other, each by a request that waits for its time to pass.
  private func cutSiblings(of lost: KeeperSlot) {
    for slot in slots where slot.state == .live && slot.path == lost.path {
      if clinux_tcp_repeats(slot.descriptor) >= KeeperTimes.silentRepeatCount {
        _ = clinux_shutdown(slot.descriptor)
      }
    }
  }

  func forget(_ slot: KeeperSlot) {
    if slot.descriptor >= 0 { _ = clinux_close(slot.descriptor) }
    slot.descriptor = -1
  }

  // MARK: - Attempts

  private mutating func attempt(_ index: Int) {
    let slot = slots[index]
    slot.path = nextPath(index)
    slot.attemptCount &+= 1
    attemptsSinceLoss &+= 1
    do throws(ReconnectionError) {
      try slot.attempt.start(plan.paths[slot.path])
      slot.awaited = CShort(clinux_POLLOUT)
      slot.state = .attempting
    } catch { fail(index, error) }
  }

  /// The connection's own path while others work, so that a lost path is found again; else one
  /// after the other, those to other servers only when this one stays away.
  private func nextPath(_ index: Int) -> Int {
    let slot = slots[index]
    let count = plan.paths.count
    let isServed = isServed(besides: index)
    var allowsOthers = false
    if !isServed, let lostSince {
      allowsOthers =
        MonotonicTime.now.milliseconds(since: lostSince) >= KeeperTimes.otherSiteMilliseconds
    }
    let turn = isServed ? 0 : Int(truncatingIfNeeded: slot.attemptCount % UInt64(count))
    for step in 0..<count {
      let path = (slot.homePath + turn + step) % count
      if allowsOthers || plan.paths[path].site == site { return path }
    }
    return slot.path
  }

  private mutating func fail(_ index: Int, _ error: ReconnectionError) {
    let slot = slots[index]
    forget(slot)
    complain(error, slot.path)
    let longest = slot.pauseMilliseconds
    slot.pauseMilliseconds = min(longest * 2, KeeperTimes.longestPauseMilliseconds)
    let pause = longest / 2 + randomValue(below: longest / 2 + 1)
    slot.state = .waiting(MonotonicTime.now.advanced(byMilliseconds: pause))
  }

  /// What is different is loud, what is only away waits a moment.
  mutating func complain(_ error: ReconnectionError, _ path: Int) {
    let now = MonotonicTime.now
    if !error.isDifferentExport, let lostSince,
      now.milliseconds(since: lostSince) < KeeperTimes.complaintMilliseconds
    {
      return
    }
    guard complaints.isDue(error, at: now) else { return }
    log.begin(error.isDifferentExport ? .error : .warning, deviceName)
    log.add(pathTexts[path])
    log.add(": ")
    log.add(error.text)
    log.add(
      error.isDifferentExport ? "; not attached, waiting for the right one" : "; trying again")
    log.end()
  }

  // MARK: - Handing over

  /// A socket that is handed over takes the place of one that the kernel calls dead; when there is
  /// none the kernel drops it and says nothing.
  private mutating func offer(_ index: Int) {
    let slot = slots[index]
    guard case .offering(let end) = slot.state else { return }
    let isLate = end <= MonotonicTime.now
    guard deadCount > 0 || isLate else { return }
    // Two servers with copies of one image must not be written to at the same time.
    if plan.paths[slot.path].site != site, isServed(besides: index) {
      return fail(index, .otherSiteInUse)
    }
    sequence &+= 1
    handOver.set(sequence: sequence, socket: slot.descriptor)
    beginWatch(LiveConnection(descriptor: slot.descriptor, path: slot.path))
    witness.begin()
    let error = ask(handOver.bytes)
    if error == SystemError.invalidArgument.errno { return detached() }
    guard error == 0 else { return fail(index, .system(SystemError(errno: error))) }
    switch unsafe witness.verdict(datagram) {
    case .taken: slot.isUncertain = false
    case .dropped:
      guard isLate else { return }  // Offered again soon.
      slot.isUncertain = true
    case .unknown: slot.isUncertain = deadCount == 0
    }
    if deadCount > 0 { deadCount -= 1 }
    if slot.isUncertain, isAdopting {
      // Another one lives in this place, which nothing of ours could end.
      forget(slot)
      slot.state = .foreign
    } else {
      slot.state = .live
    }
    site = plan.paths[slot.path].site
    announce(slot)
    if isAdopting { adoptNext(after: index) }
  }

  private mutating func adoptNext(after index: Int) {
    isAdopting = index + 1 < slots.count
    if isAdopting { slots[index + 1].state = .waiting(MonotonicTime.now) }
  }

  private mutating func announce(_ slot: KeeperSlot) {
    for other in slots.indices where slots[other].state != .live && slots[other].state != .foreign {
      return
    }
    guard let start = lostSince else { return }
    log.begin(.notice, deviceName)
    log.add("connected to ")
    log.add(pathTexts[slot.path])
    log.add(" again after ")
    log.add(milliseconds: MonotonicTime.now.milliseconds(since: start))
    log.add(", attempts: ")
    log.add(attemptsSinceLoss)
    log.end()
    lostSince = nil
  }

  // MARK: - The kernel

  mutating func askWhetherAttached() {
    sequence &+= 1
    settle.set(sequence: sequence)
    if ask(settle.bytes) == SystemError.invalidArgument.errno { detached() }
  }

  private mutating func detached() {
    isOver = true
    for slot in slots {
      slot.attempt.close()
      forget(slot)
    }
  }

  /// The errno of the kernel's answer; ETIMEDOUT without one.
  func ask(_ message: borrowing [UInt8]) -> CInt {
    let sent = unsafe message.withUnsafeBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_send(kernel, raw.baseAddress!, raw.count, 0)
    }
    if sent < 0 { return CInt(truncatingIfNeeded: 0 &- sent) }
    let deadline = Deadline.milliseconds(KeeperTimes.netlinkMilliseconds)
    while !deadline.hasPassed {
      var port: UInt32 = 0
      // SAFETY: the buffer's own storage, and an integer of ours.
      let count = unsafe clinux_netlink_receive(
        kernel, datagram.baseAddress!, datagram.count, &port)
      if count < 0 {
        _ = clinux_poll(kernel, CShort(clinux_POLLIN), deadline.pollMilliseconds)
        continue
      }
      guard port == 0, unsafe count <= datagram.count else { continue }
      // SAFETY: `count` bytes were received.
      let bytes = unsafe datagram.span.extracting(first: count)
      if let errno = NetlinkMessage.acknowledgement(of: sequence, in: bytes) { return errno }
    }
    return SystemError.timedOut.errno
  }

  /// One event for each connection that died by itself.
  mutating func hearKernel() {
    while true {
      var port: UInt32 = 0
      // SAFETY: the buffer's own storage, and an integer of ours.
      let count = unsafe clinux_netlink_receive(
        events, datagram.baseAddress!, datagram.count, &port)
      if count < 0 { return }
      guard port == 0, unsafe count <= datagram.count else { continue }
      // SAFETY: `count` bytes were received.
      let bytes = unsafe datagram.span.extracting(first: count)
      guard NBDFamily.isLinkDead(of: plan.deviceIndex, bytes) else { continue }
      deadCount += 1
      findUnseen()
    }
  }

  /// A connection has died: is it one that this process cannot see?
  private mutating func findUnseen() {
    var lost: UInt64 = 0
    for slot in slots {
      switch slot.state {
      case .waiting, .attempting, .offering: lost += 1
      case .live where isHungUp(slot.descriptor): lost += 1
      case .live, .foreign: continue
      }
    }
    guard lost < deadCount else { return }
    for index in slots.indices
    where slots[index].state == .foreign || slots[index].isUncertain {
      return lose(index, isAborted: false)
    }
  }

  private func isHungUp(_ descriptor: CInt) -> Bool {
    clinux_poll(descriptor, CShort(clinux_POLLRDHUP), 0) > 0
  }

  // MARK: - Questions

  /// Only to the superuser: `s` for the state, `q` to make place for another keeper.
  mutating func answerQuestion() {
    var from = clinux_address()
    let peer = unsafe clinux_accept(control, &from)  // SAFETY: a structure of ours.
    guard peer >= 0 else { return }
    defer { _ = clinux_close(peer) }
    var user: UInt32 = 1
    var process: CInt = 0
    // SAFETY: two integers of ours.
    guard unsafe clinux_peer_process(peer, &user, &process) == 0, user == 0 else { return }
    guard clinux_poll(peer, CShort(clinux_POLLIN), 200) > 0 else { return }
    var question: UInt8 = 0
    // SAFETY: one byte of ours.
    guard unsafe clinux_recv(peer, &question, 1, 0) == 1 else { return }
    log.beginAnswer()
    for index in slots.indices {
      let slot = slots[index]
      log.add(UInt64(index))
      switch slot.state {
      case .live: log.add(" live ")
      case .foreign: log.add(" unseen ")
      case .waiting, .attempting, .offering: log.add(" lost ")
      }
      log.add(pathTexts[slot.path])
      log.add("\n")
    }
    log.send(to: peer)
    if question == 0x71 { isOver = true }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Carries the requests of one ublk queue over NBD connections. One thread, one ring: it takes
// requests, sends them, hands data over and commits, without waiting for any one of them.
//
//   ublk queue ─fetched─► ledger: waiting ─► the connection with the fewest out ─► send
//       ▲                     ▲                                                      │
//       └─── commit ◄─────────┼──────────── replies, matched by their cookie ◄───────┘
//                             └── a connection that ends, is silent or talks nonsense
//
// From `run` on nothing allocates, nothing is opened and nothing is logged: whoever brings
// connections back is asked, and never waited for.

import CLinux
import LinuxSystem
import NBDProtocol
import UblkDriver
import WireFormat

/// What a completion's number says: the kind in the upper half, the tag or slot in the lower.
private enum Kind {
  static let tag: UInt64 = 0
  static let receive: UInt64 = 1
  static let writable: UInt64 = 2
}

@safe struct UblkEngine<Source: ReconnectSource & ~Copyable>: ~Copyable {
  private static var completionCount: Int { 256 }

  private let queue: UblkQueue
  private let ring: IORing
  private var source: Source
  private var ledger: RequestLedger
  private var connections: [UblkConnection]
  private let page: UblkStatePage
  private let limits: UblkLimits
  // SAFETY: taken once and never given back: it lives as long as the process.
  private let completions: UnsafeMutableBufferPointer<clinux_completion>
  private var now: UInt64 = 0
  private var looksAgain: UInt64 = 0
  /// Tags whose fetch the driver has ended for good.
  private var endedTagCount = 0
  private var liveCount = 0
  /// Since when no connection is live; what waits fails once the dead time has passed.
  private var deadNanoseconds: UInt64 = 0
  private var isGivenUp = false
  private var shutdown: ShutdownWatch
  /// The system ends without its server: nothing is brought back any more.
  private var isEnding = false
  /// Grows with each silence that no answer followed: a server that needs long gets long.
  private var silenceFactor: UInt64 = 1

  /// `ring` must have been opened by the thread that runs: `ringOptions`, `ringEntryCount`.
  init(
    _ queue: consuming UblkQueue, ring: consuming IORing, slotCount: Int,
    source: consuming Source, page: UblkStatePage, limits: UblkLimits,
    shutdown: consuming ShutdownWatch
  ) {
    let depth = queue.depth
    ledger = RequestLedger(depth: depth, slotCount: slotCount)
    for tag in 0..<depth { ledger.resume(tag: tag, counter: page.counter(of: tag)) }
    connections = []
    for _ in 0..<slotCount { connections.append(UblkConnection()) }
    unsafe completions = UnsafeMutableBufferPointer<clinux_completion>.allocate(
      capacity: Self.completionCount)
    unsafe completions.initialize(repeating: clinux_completion())
    self.page = page
    self.limits = limits
    self.ring = ring
    self.queue = queue
    self.source = source
    self.shutdown = shutdown
  }

  /// Takes the sockets, and fetches every tag: the device may be started.
  mutating func start(_ sockets: [CInt]) throws(SystemError) {
    now = MonotonicTime.now.nanoseconds
    deadNanoseconds = now
    page.liveCount = 0
    for slot in 0..<connections.count {
      if slot < sockets.count {
        try begin(slot, sockets[slot])
      } else {
        source.isLost(slot, .notYet, at: now)
      }
    }
    for tag in 0..<queue.depth {
      try queue.queueFetch(tag, on: ring, data: Kind.tag << 32 | UInt64(tag))
    }
    _ = try ring.submitAndWait(nanoseconds: 0)
  }

  /// Until the device is stopped. Throws only what no device could live with.
  mutating func run() throws(SystemError) {
    while endedTagCount < Int(queue.depth) {
      try TaskGuard.submitAndWaitOrdinarily(on: ring, nanoseconds: wait)
      now = MonotonicTime.now.nanoseconds
      while true {
        let count = unsafe ring.take(into: completions)
        for index in 0..<count { try handle(unsafe completions[index]) }
        if count < Self.completionCount { break }
      }
      if liveCount < connections.count, !isEnding { try reconnect() }
      try lookForShutdown()
      if ledger.outstandingCount > 0, now >= looksAgain { try lookForSilence() }
      if ledger.waitingCount > 0 { try dispatch() }
    }
    farewell()
  }

  /// How long nothing needs to be done; nil until something happens.
  private var wait: UInt64? {
    var until = UInt64.max
    if ledger.outstandingCount > 0 { until = looksAgain }
    if liveCount == 0 { until = min(until, shutdown.next.nanoseconds) }
    if liveCount < connections.count, !isEnding {
      for connection in connections where connection.state == .absent {
        until = min(until, connection.stepNanoseconds)
      }
    }
    if until == .max { return nil }
    return until > now ? until &- now : 0
  }

  private mutating func handle(_ completion: clinux_completion) throws(SystemError) {
    let index = Int(completion.data & 0xffff_ffff)
    switch completion.data >> 32 {
    case Kind.tag: try take(UInt16(truncatingIfNeeded: index), completion.result)
    case Kind.receive: try received(index, completion.result)
    default:
      connections[index].isBlocked = false
      if connections[index].state == .live {
        connections[index].heardNanoseconds = now
        try send(index)
      } else {
        finishEnding(index)
      }
    }
  }

  // MARK: - Requests of the device

  private mutating func take(_ tag: UInt16, _ result: CInt) throws(SystemError) {
    guard result == 0 else {
      endedTagCount &+= 1  // -ENODEV: the device is stopping.
      return
    }
    let wanted = queue.descriptor(tag)
    guard let operation = wanted.operation else { return try commit(tag, -95) }  // EOPNOTSUPP
    // A flush is about no sectors, and what it says of them means nothing.
    guard
      operation == .flush
        || wanted.sectorCount <= UInt32.max >> 9 && wanted.firstSector <= UInt64.max >> 9
    else { return try commit(tag, -22) }  // EINVAL
    if isGivenUp { return try commit(tag, -5) }  // EIO
    var flags: CommandFlags = wanted.flags.contains(.fua) && limits.takesFUA ? .fua : []
    let command: CommandCode
    switch operation {
    case .read:
      command = .read
      flags = []
    case .write: command = .write
    case .flush:
      command = .flush
      flags = []
    case .discard: command = .trim
    case .writeZeroes:
      command = .writeZeroes
      if wanted.flags.contains(.noUnmap) { flags.insert(.noHole) }
    }
    if ledger.outstandingCount == 0 { looksAgain = now &+ UblkLimits.lookNanoseconds }
    ledger.accept(
      tag, command, flags: flags, offset: operation == .flush ? 0 : wanted.firstSector << 9,
      length: operation == .flush ? 0 : wanted.sectorCount << 9)
  }

  private mutating func commit(_ tag: UInt16, _ result: Int32) throws(SystemError) {
    try queue.queueCommit(tag, result: result, on: ring, data: Kind.tag << 32 | UInt64(tag))
  }

  /// What waits goes to the connection that has the fewest requests out.
  private mutating func dispatch() throws(SystemError) {
    while ledger.waitingCount > 0 {
      var chosen = -1
      var fewest = Int.max
      for slot in 0..<connections.count where connections[slot].takesRequests {
        let count = ledger.sentCount(on: slot)
        if count < fewest {
          fewest = count
          chosen = slot
        }
      }
      guard chosen >= 0 else { break }
      if connections[chosen].room < Request.byteCount + 8 {
        try send(chosen)
        continue
      }
      guard let request = ledger.send(on: chosen, at: now) else { break }
      let tag = UInt16(truncatingIfNeeded: request.cookie)
      page.setCounter(of: tag, ledger.counter(of: tag))
      connections[chosen].append(request)
      guard request.command == .write, request.length > 0 else {
        ledger.isSent(tag)
        continue
      }
      connections[chosen].sendingTag = tag
      connections[chosen].sendingDone = 0
      connections[chosen].sendingLength = request.length
      try fill(chosen)
      if connections[chosen].sendingTag != nil { try send(chosen) }
    }
    for slot in 0..<connections.count
    where connections[slot].state == .live && !connections[slot].isBlocked
      && connections[slot].hasOutput
    {
      try send(slot)
    }
  }

  private mutating func fill(_ slot: Int) throws(SystemError) {
    guard let tag = connections[slot].sendingTag else { return }
    guard connections[slot].fill(from: queue) else {
      // The device took the request away. Its header is out: the stream cannot go on.
      ledger.finish(tag)
      try commit(tag, -5)
      return end(slot, .ended(errno: 125))  // ECANCELED
    }
    if connections[slot].sendingDone == connections[slot].sendingLength {
      connections[slot].sendingTag = nil
      ledger.isSent(tag)
    }
  }

  /// Sends what there is, until the kernel takes no more.
  private mutating func send(_ slot: Int) throws(SystemError) {
    while connections[slot].state == .live, connections[slot].hasOutput {
      let start = connections[slot].outputStart
      let count = connections[slot].outputEnd &- start
      if count == 0 {
        connections[slot].outputStart = 0
        connections[slot].outputEnd = 0
        try fill(slot)
        continue
      }
      // SAFETY: inside the connection's buffer, whose bytes up to `outputEnd` are written.
      let result = unsafe clinux_send(
        connections[slot].socket, connections[slot].output.baseAddress! + start, count, 0)
      if result == -Int(SystemError.tryAgain.errno) {
        connections[slot].isBlocked = true
        try ring.queueWritable(
          connections[slot].socket, data: Kind.writable << 32 | UInt64(slot))
        return
      }
      if result == -Int(SystemError.interrupted.errno) { continue }
      guard result > 0 else {
        return end(slot, .ended(errno: CInt(truncatingIfNeeded: 0 &- result)))
      }
      connections[slot].outputStart &+= result
    }
    connections[slot].outputStart = 0
    connections[slot].outputEnd = 0
  }

  // MARK: - Replies

  private mutating func received(_ slot: Int, _ result: CInt) throws(SystemError) {
    connections[slot].isReceiving = false
    guard connections[slot].state == .live else { return finishEnding(slot) }
    guard result > 0 else {
      if result == -4 || result == -11 { return try receive(slot) }
      return end(slot, .ended(errno: 0 &- result))
    }
    connections[slot].heardNanoseconds = now
    silenceFactor = 1
    // SAFETY: the ring has written that many bytes, and writes no more until the next receive.
    let input = unsafe connections[slot].inputRoom
    let bytes = unsafe input.span.extracting(first: Int(result))
    var position = 0
    while true {
      let event: ReplyEvent?
      do {
        event = try connections[slot].reader.next(bytes, at: &position, in: ledger, slot: slot)
      } catch { return end(slot, .violation) }
      guard let event else { break }
      switch event {
      case .data(let tag, let offset, let range):
        // A request that the device took away takes no data: its end is told all the same.
        _ = unsafe queue.giveData(
          tag, offset: offset,
          from: UnsafeRawBufferPointer(
            start: input.baseAddress! + range.lowerBound, count: range.count))
      case .finished(_, .eshutdown):
        return end(slot, .serverShutsDown)
      case .finished(let tag, let error):
        let result = UblkLimits.result(error, ledger.command(of: tag), ledger.length(of: tag))
        ledger.finish(tag)
        try commit(tag, result)
      }
    }
    try receive(slot)
  }

  private mutating func receive(_ slot: Int) throws(SystemError) {
    connections[slot].isReceiving = true
    try unsafe ring.queueReceive(
      connections[slot].socket, into: UnsafeMutableRawBufferPointer(connections[slot].inputRoom),
      data: Kind.receive << 32 | UInt64(slot))
  }

  // MARK: - Connections that come and go

  private mutating func begin(_ slot: Int, _ socket: CInt) throws(SystemError) {
    connections[slot].begin(socket, at: now)
    liveCount += 1
    isGivenUp = false
    page.liveCount = UInt32(liveCount)
    try receive(slot)
  }

  /// Cuts a connection; what was out on it waits again.
  private mutating func end(_ slot: Int, _ reason: LossReason) {
    guard connections[slot].state == .live else { return }
    connections[slot].state = .ending(reason)
    connections[slot].forgetOutput()
    clinux_cut_connection(connections[slot].socket)
    let count = ledger.lose(slot: slot)
    liveCount -= 1
    if liveCount == 0 { deadNanoseconds = now }
    page.liveCount = UInt32(liveCount)
    page.countLoss(repeated: UInt64(count))
    finishEnding(slot)
    // Requests would go to others on the same way that hear nothing either, and wait there.
    for other in 0..<connections.count
    where connections[other].state == .live && source.goTheSameWay(slot, other)
      && clinux_tcp_repeats(connections[other].socket) >= KeeperTimes.silentRepeatCount
    {
      end(other, reason)
    }
  }

  /// The descriptor is closed when the ring has nothing left to do with it.
  private mutating func finishEnding(_ slot: Int) {
    guard case .ending(let reason) = connections[slot].state, !connections[slot].isReceiving,
      !connections[slot].isBlocked
    else { return }
    _ = clinux_close(connections[slot].socket)
    connections[slot].socket = -1
    connections[slot].state = .absent
    connections[slot].stepNanoseconds = now
    source.isLost(slot, reason, at: now)
  }

  private mutating func reconnect() throws(SystemError) {
    for slot in 0..<connections.count
    where connections[slot].state == .absent && connections[slot].stepNanoseconds <= now {
      switch source.step(slot, at: now) {
      case .later(let nanoseconds): connections[slot].stepNanoseconds = nanoseconds
      case .connected(let socket): try begin(slot, socket)
      }
    }
  }

  /// Connections that owe an answer for too long, and requests that nobody can take any more.
  private mutating func lookForSilence() throws(SystemError) {
    looksAgain = now &+ UblkLimits.lookNanoseconds
    let limit = limits.silenceNanoseconds &* silenceFactor
    for slot in 0..<connections.count where connections[slot].state == .live {
      guard let oldest = ledger.oldestNanoseconds(on: slot) else { continue }
      let heard = max(oldest, connections[slot].heardNanoseconds)
      let isSilent = now > heard && now &- heard > limit
      // Others are answered and this one is not: it was lost at the server.
      let isForgotten = now > oldest && (now &- oldest) / UblkLimits.forgottenFactor > limit
      guard isSilent || isForgotten else { continue }
      silenceFactor = min(silenceFactor &* 2, UblkLimits.silenceFactorMaximum)
      end(slot, .silent(seconds: (now &- heard) / 1_000_000_000))
    }
    guard limits.deadNanoseconds > 0, liveCount == 0, now > deadNanoseconds,
      now &- deadNanoseconds > limits.deadNanoseconds
    else { return }
    try giveUp()
  }

  private mutating func giveUp() throws(SystemError) {
    isGivenUp = true
    while let tag = ledger.firstWaiting {
      ledger.finish(tag)
      try commit(tag, -5)
    }
  }

  private mutating func lookForShutdown() throws(SystemError) {
    guard shutdown.look(isServed: liveCount > 0, at: MonotonicTime(nanoseconds: now)) else {
      return
    }
    isEnding = true
    try giveUp()
  }

  /// The device is gone: says so to every server. Source: NBD_CMD_DISC, NBD `doc/proto.md`.
  private mutating func farewell() {
    for slot in 0..<connections.count where connections[slot].state == .live {
      connections[slot].forgetOutput()
      connections[slot].append(Request(command: .disconnect, cookie: 0))
      // SAFETY: the request just written.
      _ = unsafe clinux_send(
        connections[slot].socket,
        connections[slot].output.baseAddress! + connections[slot].outputStart, Request.byteCount,
        0)
    }
  }
}

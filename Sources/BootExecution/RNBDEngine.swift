// SPDX-License-Identifier: Apache-2.0
// Carries the requests of one ublk queue over an RNBD session. One thread, one ring: it takes
// requests, moves data between the device and registered memory, and commits, without waiting for any
// one of them. The twin of UblkEngine, which does the same over NBD.
//
//   ublk queue ─fetched─► data into registered memory ─► session ─► a path ─► server
//       ▲                                                                     │
//       └─── commit ◄─── data out of registered memory ◄─── completed ◄───────┘
//
// From `run` on a request allocates nothing, and nothing is opened. What a path that comes back
// allocates is taken from the reserve.

#if ROOTLINK_RDMA
  import CLinux
  import LinuxSystem
  import RDMAVerbs
  import RNBDClient
  import RNBDProtocol
  import RTRSProtocol
  import UblkDriver
  import WireFormat

  /// What a completion's number says: the kind in the upper half, the tag or path in the lower.
  private enum Kind {
    static let tag: UInt64 = 0
    static let channel: UInt64 = 1
    static let path: UInt64 = 2
  }

  /// Why a session has not opened its device, for people.
  struct RNBDFailure: Error {
    var reason: String
    var advice: String
  }

  @safe struct RNBDEngine: ~Copyable {
    private static var completionCount: Int { 256 }

    private let queue: UblkQueue
    private let ring: IORing
    private var session: RNBDSession<RDMATransport>
    private let plan: RNBDPlan
    private let page: UblkStatePage
    private var log: KeeperLog
    private let deviceName: [UInt8]
    private let pathTexts: [[UInt8]]
    private var shutdown: ShutdownWatch
    // SAFETY: taken once and never given back: it lives as long as the process.
    private let completions: UnsafeMutableBufferPointer<clinux_completion>
    private var now: UInt64 = 0
    private var isChannelWatched = false
    /// The descriptor of each path's completions that the ring looks at; -1 for none.
    private var watched: [CInt]
    private var lastLosses: [PathLoss?]
    private var lossCount = 0
    /// Since when no path is connected.
    private var deadNanoseconds: UInt64 = 0
    private var isGivenUp = false
    private var isEnding = false
    private var endedTagCount = 0
    private var failure: RNBDFailure?
    /// The device is there, or about to be: what goes wrong is a line in the log.
    private var isStarted = false

    init(
      _ plan: RNBDPlan, queue: consuming UblkQueue, transport: consuming RDMATransport,
      session: ClientSession, ring: consuming IORing, page: UblkStatePage,
      shutdown: consuming ShutdownWatch, log: consuming KeeperLog, device: ByteString
    ) {
      unsafe completions = UnsafeMutableBufferPointer<clinux_completion>.allocate(
        capacity: Self.completionCount)
      unsafe completions.initialize(repeating: clinux_completion())
      var texts: [[UInt8]] = []
      for path in plan.paths {
        let source = path.source.map { $0.hostAndPort.host.bytes + Array("@".utf8) } ?? []
        texts.append(source + path.destination.text.bytes)
      }
      pathTexts = texts
      watched = [CInt](repeating: -1, count: plan.paths.count)
      lastLosses = [PathLoss?](repeating: nil, count: plan.paths.count)
      self.session = RNBDSession(
        session, devices: [OpenRequest(plan.deviceName, plan.accessMode)], transport: transport
      ) { clinux_random() }
      self.plan = plan
      self.queue = queue
      self.ring = ring
      self.page = page
      self.shutdown = shutdown
      self.log = log
      deviceName = device.bytes
    }

    // MARK: - Before there is a device

    /// A device that is taken up again: right after the last process died the server may still have
    /// its session, and half a minute after the last machine did.
    private var isPatient: Bool { plan.byteCount > 0 }

    /// Until the server has opened the device, every path has failed once, or the time is up.
    mutating func open(until deadline: Deadline) throws(RNBDFailure) -> (OpenAnswer, UInt32) {
      now = MonotonicTime.now.nanoseconds
      deadNanoseconds = now
      page.liveCount = 0
      while true {
        do { try turnSession() } catch { throw ring(error) }
        if let failure, !isPatient { throw failure }
        if session.isOpen(0), let answer = session.answer(of: 0),
          let geometry = session.geometry
        {
          return (answer, geometry.dataByteCountMaximum)
        }
        if deadline.hasPassed {
          throw failure
            ?? RNBDFailure(
              reason: "the server does not open '\(plan.deviceName.text.printable)' in time",
              advice: "look at the server's log")
        }
        do {
          let until = min(session.wakeNanoseconds, deadline.time.nanoseconds)
          _ = try ring.submitAndWait(nanoseconds: until > now ? until &- now : 0)
          now = MonotonicTime.now.nanoseconds
          try takeCompletions()
        } catch { throw ring(error) }
      }
    }

    private func ring(_ error: SystemError) -> RNBDFailure {
      RNBDFailure(reason: "io_uring: \(error.text)", advice: "look at the kernel log")
    }

    // MARK: - The device

    /// Fetches every tag: the device may be started.
    mutating func start() throws(SystemError) {
      isStarted = true
      for tag in 0..<queue.depth {
        try queue.queueFetch(tag, on: ring, data: Kind.tag << 32 | UInt64(tag))
      }
      _ = try ring.submitAndWait(nanoseconds: 0)
    }

    /// Until the device is stopped. Throws only what no device could live with.
    mutating func run() throws(SystemError) {
      while endedTagCount < Int(queue.depth) {
        _ = try ring.submitAndWait(nanoseconds: wait)
        now = MonotonicTime.now.nanoseconds
        try takeCompletions()
        try turnSession()
        try lookForTheEnd()
      }
      session.close()
      while session.next(at: now) != nil {}
    }

    private var wait: UInt64? {
      var until = session.wakeNanoseconds
      if session.connectedPathCount == 0 {
        until = min(until, shutdown.next.nanoseconds)
        if plan.deadTimeSeconds > 0, !isGivenUp, session.outstandingCount > 0 {
          until = min(until, deadNanoseconds &+ deadTimeNanoseconds)
        }
      }
      if until == .max { return nil }
      return until > now ? until &- now : 0
    }

    private var deadTimeNanoseconds: UInt64 {
      min(plan.deadTimeSeconds, 1 << 31) &* 1_000_000_000
    }

    private mutating func takeCompletions() throws(SystemError) {
      while true {
        let count = unsafe ring.take(into: completions)
        for index in 0..<count {
          let completion = unsafe completions[index]
          let number = Int(completion.data & 0xffff_ffff)
          switch completion.data >> 32 {
          case Kind.tag: try take(UInt16(truncatingIfNeeded: number), completion.result)
          case Kind.channel:
            isChannelWatched = false
            session.transport.channelIsReadable()
          default:
            watched[number] = -1
            session.transport.queueIsReadable(of: number)
          }
        }
        if count < Self.completionCount { return }
      }
    }

    private mutating func take(_ tag: UInt16, _ result: CInt) throws(SystemError) {
      guard result == 0 else {
        endedTagCount &+= 1  // -ENODEV: the device is stopping.
        return
      }
      let wanted = queue.descriptor(tag)
      guard let operation = wanted.operation else { return try commit(tag, -95) }  // EOPNOTSUPP
      // A flush is about no sectors, and what it says of them means nothing.
      guard operation == .flush || wanted.sectorCount <= UInt32.max >> 9 else {
        return try commit(tag, -22)  // EINVAL
      }
      if isGivenUp { return try commit(tag, -5) }  // EIO
      let byteCount = operation == .flush ? 0 : wanted.sectorCount << 9
      var request = BlockOperation(
        device: 0, .flush, flags: [.sync, .fua], firstSector: wanted.firstSector,
        byteCount: byteCount)
      switch operation {
      case .flush: break
      case .read:
        request.operation = .read
        request.flags = .sync
      case .write:
        request.operation = .write
        request.flags = wanted.flags.contains(.fua) ? [.sync, .fua] : []
      case .discard:
        request.operation = .discard
        request.flags = []
      case .writeZeroes:
        request.operation = .writeZeroes
        request.flags = wanted.flags.contains(.fua) ? .fua : []
      }
      if operation == .read || operation == .write {
        let room = unsafe session.transport.data(of: tag)
        // The kernel was told of less.
        guard Int(byteCount) <= room.count, byteCount > 0 else {
          return try commit(tag, -22)
        }
        if operation == .write {
          // SAFETY: the tag's own piece of registered memory; nothing is out for the tag.
          let taken = unsafe queue.takeData(
            tag, offset: 0, into: UnsafeMutableRawBufferPointer(rebasing: room[..<Int(byteCount)]))
          // The device took the request away.
          guard taken == Int(byteCount) else { return try commit(tag, -5) }
        }
      }
      session.accept(tag, request)
    }

    private mutating func finish(_ tag: UInt16, _ error: PeerErrno) throws(SystemError) {
      let wanted = queue.descriptor(tag)
      let isRead = wanted.operation == .read
      let count = Int(wanted.sectorCount) << 9
      guard error == .success else { return try commit(tag, Self.result(error)) }
      if isRead {
        let room = unsafe session.transport.data(of: tag)
        // SAFETY: as many bytes as were asked for, checked when they were. A request that the
        // device took away takes no data: its end is told all the same.
        _ = unsafe queue.giveData(
          tag, offset: 0, from: UnsafeRawBufferPointer(rebasing: room[..<min(count, room.count)]))
      }
      try commit(tag, isRead || wanted.operation == .write ? Int32(truncatingIfNeeded: count) : 0)
    }

    /// Of the server's error an errno of this machine that the block layer has a name for.
    static func result(_ error: PeerErrno) -> Int32 {
      switch error {
      case .noSpace: -28
      case .notSupported: -95
      case .outOfMemory: -12
      case .timedOut: -110
      default: -5
      }
    }

    private mutating func commit(_ tag: UInt16, _ result: Int32) throws(SystemError) {
      try queue.queueCommit(tag, result: result, on: ring, data: Kind.tag << 32 | UInt64(tag))
    }

    // MARK: - The session

    private mutating func turnSession() throws(SystemError) {
      while let event = session.next(at: now) {
        switch event {
        case .completed(let request, let error): try finish(request, error)
        case .device(let event): try told(event)
        case .pathIsUp(let path): isUp(path)
        case .pathIsLost(let path, let loss, let count): isLost(path, loss, repeated: count)
        }
      }
      try watch()
    }

    /// Whatever may become readable is looked at by the ring.
    private mutating func watch() throws(SystemError) {
      if !isChannelWatched {
        isChannelWatched = true
        try ring.queueReadable(session.transport.channelDescriptor, data: Kind.channel << 32)
      }
      for path in watched.indices {
        guard let descriptor = session.transport.queueDescriptor(of: path),
          watched[path] != descriptor
        else { continue }
        watched[path] = descriptor
        try ring.queueReadable(descriptor, data: Kind.path << 32 | UInt64(path))
      }
    }

    private mutating func told(_ event: ControlEvent) throws(SystemError) {
      switch event {
      case .opened: break
      case .reopened:
        isGivenUp = isEnding
        note("the server has opened the device again")
      case .refused(_, let error):
        let text = error.name ?? "error \(error.rawValue)"
        fail(
          "the server does not open '\(plan.deviceName.text.printable)' (\(text))",
          error == .notFound
            ? "check device_path= and what the server offers"
            : error == .notPermitted
              ? "another client has it open for writing, or had it half a minute ago"
              : "look at the server's log")
      case .changed:
        fail("the server has another device under the same name", "every request fails")
        try giveUp()
      case .malformed(let error):
        fail("the server broke the protocol: \(error.reason)", "check what listens on that port")
      case .informationRefused(let error):
        fail(
          "the server refuses the session (error \(error.rawValue))", "look at the server's log")
      case .agreed, .closed: break
      }
    }

    /// Before there is a device this ends the attempt; later it is a line in the log.
    private mutating func fail(_ reason: String, _ advice: String) {
      guard isStarted else {
        failure = RNBDFailure(reason: reason, advice: advice)
        return
      }
      log.begin(.warning, deviceName)
      log.add(Array((reason + "; " + advice).utf8))
      log.end()
    }

    private mutating func note(_ text: StaticString) {
      log.begin(.notice, deviceName)
      log.add(text)
      log.end()
    }

    private mutating func isUp(_ path: Int) {
      page.liveCount = UInt32(session.connectedPathCount)
      lastLosses[path] = nil
      log.begin(.notice, deviceName)
      log.add("RDMA transport established: ")
      if let place = session.transport.place(of: path) {
        log.add(place.device.bytes)
        log.add(" port ")
        log.add(UInt64(place.port))
        log.add(", ")
      }
      log.add("path ")
      log.add(pathTexts[path])
      log.end()
    }

    private mutating func isLost(_ path: Int, _ loss: PathLoss, repeated count: Int) {
      lossCount &+= 1
      // Its completions may come from another device, under the same number.
      watched[path] = -1
      if session.connectedPathCount == 0 {
        // Counted from the loss that left none.
        if page.liveCount > 0 { deadNanoseconds = now }
        if !isStarted, lossCount >= plan.paths.count {
          let report = loss.report
          failure = RNBDFailure(
            reason: String(decoding: pathTexts[path], as: UTF8.self) + ": " + report.reason,
            advice: report.advice)
        }
      }
      page.liveCount = UInt32(session.connectedPathCount)
      page.countLoss(repeated: UInt64(count))
      // The same again says nothing new.
      guard isStarted, lastLosses[path] != loss else { return }
      lastLosses[path] = loss
      let report = loss.report
      log.begin(.warning, deviceName)
      log.add("path ")
      log.add(pathTexts[path])
      log.add(": ")
      log.add(Array((report.reason + "; " + report.advice).utf8))
      log.end()
    }

    // MARK: - Nobody answers

    private mutating func lookForTheEnd() throws(SystemError) {
      let isServed = session.connectedPathCount > 0
      if shutdown.look(isServed: isServed, at: MonotonicTime(nanoseconds: now)) {
        isEnding = true
        try giveUp()
      }
      guard plan.deadTimeSeconds > 0, !isServed, !isGivenUp, session.outstandingCount > 0,
        now > deadNanoseconds, now &- deadNanoseconds >= deadTimeNanoseconds
      else { return }
      try giveUp()
    }

    private mutating func giveUp() throws(SystemError) {
      isGivenUp = true
      for tag in 0..<queue.depth where session.has(tag) {
        if session.abandon(tag) { try commit(tag, -5) }
      }
    }
  }
#endif

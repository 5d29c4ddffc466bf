// SPDX-License-Identifier: Apache-2.0
// Carries the requests of ublk devices over one RNBD session. One thread, one ring: it takes
// requests, moves data between a device and registered memory, and commits, without waiting for any
// one of them. The twin of UblkEngine, which does the same for one device over NBD.
//
//   ublk queues ─fetched─► data into registered memory ─► session ─► a path ─► server
//       ▲                                                                      │
//       └─── commit ◄─── data out of registered memory ◄─── completed ◄────────┘
//
// A request has one number everywhere: tag t of device d is d * depth + t. What is lost on the way to
// the server is lost for all devices; each comes and ends by itself.
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

  /// What a completion's number says: the kind in the upper half, the request or path in the lower.
  private enum Kind {
    static let request: UInt64 = 0
    static let channel: UInt64 = 1
    static let path: UInt64 = 2
  }

  /// Why a session has not opened its device, for people.
  struct RNBDFailure: Error {
    var reason: String
    var advice: String
  }

  /// One device of the session, as long as it is there.
  final class RNBDDisk {
    let plan: RNBDPlan.Disk
    let queue: UblkQueue
    let page: UblkStatePage
    /// Of the ublk device.
    let name: ByteString
    fileprivate var endedTagCount = 0
    /// Its requests fail.
    fileprivate var isGivenUp = false

    init(_ plan: RNBDPlan.Disk, _ member: UblkMember, queue: consuming UblkQueue) {
      self.plan = plan
      self.queue = queue
      page = member.page
      name = member.device.name
    }
  }

  @safe struct RNBDEngine: ~Copyable {
    private static var completionCount: Int { 256 }

    /// By their numbers in the session; nil for one that has ended.
    private var disks: [RNBDDisk?]
    private var diskCount: Int
    /// Requests of a device.
    private let depth: UInt16
    private let ring: IORing
    private var session: RNBDSession<RDMATransport>
    private let plan: RNBDPlan
    private var log: KeeperLog
    private let deviceNames: [UInt8]
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
    private var liveCount = 0
    /// Since when no path is connected.
    private var deadNanoseconds: UInt64 = 0
    private var isGivenUp = false
    private var isEnding = false
    private var failure: RNBDFailure?
    /// The devices are there, or about to be: what goes wrong is a line in the log.
    private var isStarted = false

    init(
      _ plan: RNBDPlan, disks: [RNBDDisk], depth: UInt16, transport: consuming RDMATransport,
      session: ClientSession, ring: consuming IORing, shutdown: consuming ShutdownWatch,
      log: consuming KeeperLog
    ) {
      unsafe completions = UnsafeMutableBufferPointer<clinux_completion>.allocate(
        capacity: Self.completionCount)
      unsafe completions.initialize(repeating: clinux_completion())
      var texts: [[UInt8]] = []
      for text in plan.pathTexts { texts.append(text.bytes) }
      pathTexts = texts
      watched = [CInt](repeating: -1, count: plan.paths.count)
      lastLosses = [PathLoss?](repeating: nil, count: plan.paths.count)
      var requests: [OpenRequest] = []
      var names: [UInt8] = []
      for disk in disks {
        requests.append(OpenRequest(disk.plan.name, disk.plan.accessMode))
        names += (names.isEmpty ? [] : [0x2c]) + disk.name.bytes
      }
      self.session = RNBDSession(session, devices: requests, transport: transport) {
        clinux_random()
      }
      self.plan = plan
      self.disks = []
      for disk in disks { self.disks.append(disk) }
      diskCount = disks.count
      self.depth = depth
      self.ring = ring
      self.shutdown = shutdown
      self.log = log
      deviceNames = names
    }

    // MARK: - Before there is a device

    /// A device that is taken up again: right after the last process died the server may still have
    /// its session, and half a minute after the last machine did.
    private var isPatient: Bool { plan.isOfAttached }

    /// Until the server has opened every device, every path has failed once, or the time is up.
    mutating func open(until deadline: Deadline) throws(RNBDFailure) -> RNBDProcess.Opened {
      now = MonotonicTime.now.nanoseconds
      deadNanoseconds = now
      while true {
        do { try turnSession() } catch { throw ring(error) }
        if let failure, !isPatient { throw failure }
        if let opened = try opened() { return opened }
        if deadline.hasPassed {
          throw failure
            ?? RNBDFailure(
              reason: "the server does not open \(deviceText) in time",
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

    /// Nil until every device is open.
    private func opened() throws(RNBDFailure) -> RNBDProcess.Opened? {
      guard let geometry = session.geometry else { return nil }
      var answers: [OpenAnswer] = []
      for (number, disk) in plan.disks.enumerated() {
        guard session.isOpen(number), let answer = session.answer(of: number) else { return nil }
        guard disk.byteCount == 0 || disk.byteCount == answer.sectorCount &* 512 else {
          throw RNBDFailure(
            reason:
              "the server's device '\(disk.name.text.printable)' has another size than before",
            advice: "detach, and attach again")
        }
        answers.append(answer)
      }
      return RNBDProcess.Opened(
        answers: answers,
        dataByteCountMaximum: min(
          geometry.dataByteCountMaximum, RNBDProcess.requestByteCountMaximum))
    }

    /// The names at the server of those that are not open.
    private var deviceText: String {
      var text = ""
      for (number, disk) in plan.disks.enumerated() where !session.isOpen(number) {
        text += (text.isEmpty ? "'" : ", '") + disk.name.text.printable + "'"
      }
      return text
    }

    private func ring(_ error: SystemError) -> RNBDFailure {
      RNBDFailure(reason: "io_uring: \(error.text)", advice: "look at the kernel log")
    }

    // MARK: - The device

    /// Fetches every tag: the devices may be started.
    mutating func start() throws(SystemError) {
      isStarted = true
      for number in disks.indices {
        guard let disk = disks[number] else { continue }
        for tag in 0..<depth {
          let request = UInt64(number) * UInt64(depth) + UInt64(tag)
          try disk.queue.queueFetch(tag, on: ring, data: Kind.request << 32 | request)
        }
        // The ring has room for the tags of one.
        _ = try ring.submitAndWait(nanoseconds: 0)
      }
    }

    /// Until every device is stopped. Throws only what no device could live with.
    mutating func run() throws(SystemError) {
      while diskCount > 0 {
        try TaskGuard.submitAndWaitOrdinarily(on: ring, nanoseconds: wait)
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
          case Kind.request: try take(number, completion.result)
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

    private mutating func take(_ request: Int, _ result: CInt) throws(SystemError) {
      let number = request / Int(depth)
      let tag = UInt16(truncatingIfNeeded: request % Int(depth))
      guard number < disks.count, let disk = disks[number] else { return }
      guard result == 0 else {
        disk.endedTagCount &+= 1  // -ENODEV: the device is stopping.
        if disk.endedTagCount == Int(depth) { end(number) }
        return
      }
      let wanted = disk.queue.descriptor(tag)
      guard let operation = wanted.operation else { return try commit(request, -95) }  // EOPNOTSUPP
      // A flush is about no sectors, and what it says of them means nothing.
      guard operation == .flush || wanted.sectorCount <= UInt32.max >> 9 else {
        return try commit(request, -22)  // EINVAL
      }
      if isGivenUp || disk.isGivenUp { return try commit(request, -5) }  // EIO
      let byteCount = operation == .flush ? 0 : wanted.sectorCount << 9
      var asked = BlockOperation(
        device: number, .flush, flags: [.sync, .fua], firstSector: wanted.firstSector,
        byteCount: byteCount)
      switch operation {
      case .flush: break
      case .read:
        asked.operation = .read
        asked.flags = .sync
      case .write:
        asked.operation = .write
        asked.flags = wanted.flags.contains(.fua) ? [.sync, .fua] : []
      case .discard:
        asked.operation = .discard
        asked.flags = []
      case .writeZeroes:
        asked.operation = .writeZeroes
        asked.flags = wanted.flags.contains(.fua) ? .fua : []
      }
      if operation == .read || operation == .write {
        let room = unsafe session.transport.data(of: UInt16(truncatingIfNeeded: request))
        // The kernel was told of less.
        guard Int(byteCount) <= room.count, byteCount > 0 else {
          return try commit(request, -22)
        }
        if operation == .write {
          // SAFETY: the request's own piece of registered memory; nothing is out for it.
          let taken = unsafe disk.queue.takeData(
            tag, offset: 0, into: UnsafeMutableRawBufferPointer(rebasing: room[..<Int(byteCount)]))
          // The device took the request away.
          guard taken == Int(byteCount) else { return try commit(request, -5) }
        }
      }
      session.accept(UInt16(truncatingIfNeeded: request), asked)
    }

    /// The device has stopped, the last of its tags with it.
    private mutating func end(_ number: Int) {
      guard let disk = disks[number] else { return }
      disk.page.isOver = true
      disk.page.setOpen(false)
      session.close(device: number)
      // Closes /dev/ublkcN, for which the driver waits.
      disks[number] = nil
      diskCount &-= 1
    }

    private mutating func finish(_ request: UInt16, _ error: PeerErrno) throws(SystemError) {
      guard let disk = disks[Int(request / depth)] else { return }
      let tag = request % depth
      let wanted = disk.queue.descriptor(tag)
      let isRead = wanted.operation == .read
      let count = Int(wanted.sectorCount) << 9
      guard error == .success else { return try commit(Int(request), Self.result(error)) }
      if isRead {
        let room = unsafe session.transport.data(of: request)
        // SAFETY: as many bytes as were asked for, checked when they were. A request that the
        // device took away takes no data: its end is told all the same.
        _ = unsafe disk.queue.giveData(
          tag, offset: 0, from: UnsafeRawBufferPointer(rebasing: room[..<min(count, room.count)]))
      }
      try commit(
        Int(request),
        isRead || wanted.operation == .write ? Int32(truncatingIfNeeded: count) : 0)
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

    private mutating func commit(_ request: Int, _ result: Int32) throws(SystemError) {
      guard let disk = disks[request / Int(depth)] else { return }
      try disk.queue.queueCommit(
        UInt16(truncatingIfNeeded: request % Int(depth)), result: result, on: ring,
        data: Kind.request << 32 | UInt64(request))
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
      publish()
      try watch()
    }

    /// For `rootlink status`.
    private func publish() {
      var pathsUp: UInt64 = 0
      for path in watched.indices where session.isConnected(path) { pathsUp |= 1 << UInt64(path) }
      for number in disks.indices {
        guard let disk = disks[number] else { continue }
        disk.page.liveCount = UInt32(truncatingIfNeeded: liveCount)
        disk.page.setPathsUp(pathsUp)
        disk.page.setOpen(pathsUp != 0 && session.isOpen(number))
      }
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
      case .reopened(let number):
        isGivenUp = isEnding
        guard let disk = disks[number] else { return }
        disk.isGivenUp = false
        note(disk, "the server has opened the device again")
      case .refused(let number, let error):
        let text = error.name ?? "error \(error.rawValue)"
        fail(
          "the server does not open '\(plan.disks[number].name.text.printable)' (\(text))",
          error == .notFound
            ? "check device_path= and what the server offers"
            : error == .notPermitted
              ? "another client has it open for writing, or had it half a minute ago"
              : "look at the server's log")
      case .changed(let number, _):
        fail(
          "the server has another device under the name "
            + "'\(plan.disks[number].name.text.printable)'", "every request fails")
        disks[number]?.isGivenUp = true
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
      log.begin(.warning, deviceNames)
      log.add(Array((reason + "; " + advice).utf8))
      log.end()
    }

    private mutating func note(_ disk: RNBDDisk, _ text: StaticString) {
      log.begin(.notice, disk.name.bytes)
      log.add(text)
      log.end()
    }

    private mutating func isUp(_ path: Int) {
      liveCount = session.connectedPathCount
      lastLosses[path] = nil
      log.begin(.notice, deviceNames)
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
        if liveCount > 0 { deadNanoseconds = now }
        // What the next try of the path cures is no reason to begin anew, a second later.
        if !isStarted, loss != .staleConnection, lossCount >= plan.paths.count {
          let report = loss.report
          failure = RNBDFailure(
            reason: String(decoding: pathTexts[path], as: UTF8.self) + ": " + report.reason,
            advice: report.advice)
        }
      }
      liveCount = session.connectedPathCount
      for disk in disks { disk?.page.countLoss(repeated: UInt64(count)) }
      // The same again says nothing new.
      guard isStarted, lastLosses[path] != loss else { return }
      lastLosses[path] = loss
      let report = loss.report
      log.begin(.warning, deviceNames)
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
        isGivenUp = true
        try giveUp()
      }
      guard plan.deadTimeSeconds > 0, !isServed, !isGivenUp, session.outstandingCount > 0,
        now > deadNanoseconds, now &- deadNanoseconds >= deadTimeNanoseconds
      else { return }
      isGivenUp = true
      try giveUp()
    }

    /// Fails what is in hand of devices that are given up, and not out.
    private mutating func giveUp() throws(SystemError) {
      for number in disks.indices {
        guard let disk = disks[number], isGivenUp || disk.isGivenUp else { continue }
        let first = UInt16(truncatingIfNeeded: number) * depth
        for request in first..<(first + depth) where session.has(request) {
          if session.abandon(request) { try commit(Int(request), -5) }
        }
      }
    }
  }
#endif

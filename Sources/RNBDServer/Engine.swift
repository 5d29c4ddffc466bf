// SPDX-License-Identifier: Apache-2.0
// All sessions of a server, on one thread that never waits for a disk: it takes what the transport
// has, asks the machines what to do, hands requests to the sessions' workers and answers what they
// have done.
//
//   connect request ─► EngineAdmission ─► a path ─► received ─► begin ─► worker
//                                                                           │
//                         transport.send ◄─ finish ◄─ FinishedJobs ◄────────┘

import BlockServer
import LinuxSystem
import RNBDProtocol
import RTRSProtocol
import Synchronization
import WireFormat

/// One fact for the log.
public enum RNBDEvent: Equatable, Sendable {
  /// A connect request was rejected, with an error in the answer.
  case refused(client: ByteString, reason: String, advice: String)
  /// A path of a session is connected: from its client's address to the server's, on that RDMA
  /// device.
  case pathUp(session: ByteString, client: ByteString, server: ByteString, device: ByteString)
  /// A path has ended, however far it had come.
  case pathLost(session: ByteString, client: ByteString, ServerPathLoss)
  /// A client is back with a new session of the same name, and its old one is ended.
  case takenOver(session: ByteString, client: ByteString)
  /// The client opened a device, which is `export` here.
  case opened(
    session: ByteString, device: ByteString, export: ByteString, mode: RNBDProtocol.AccessMode)
  /// A device could not be opened, or not in the wanted mode.
  case notOpened(session: ByteString, device: ByteString, reason: String, advice: String)
  /// A device is closed, by the client or with its session; `counters` are all of its requests.
  case closed(session: ByteString, device: ByteString, counters: SessionCounters)
  /// Nothing of the session is left; not told of one that never had a name.
  case sessionEnded(session: ByteString)
}

/// What all sessions share.
struct EngineSurroundings: Sendable {
  var directory: DeviceDirectory
  var access: WriteAccess
  var attachments: Attachments
  var registry: BlockServer.SessionRegistry
  var report: @Sendable (RNBDEvent) -> Void
}

final class Engine<Transport: ServerTransport> {
  typealias Session = EngineSession<Transport.Memory>

  /// Which connection of what.
  struct Place {
    var session: Int
    var path: Int
    var generation: UInt32
    var connection: UInt16
  }
  /// A session that waits for a name which another one has.
  struct NameWait {
    var session: Int
    var token: ServerPathToken
    var name: SessionName
    /// When the one that has it was asked whether it is alive.
    var challenged: MonotonicTime?
  }

  let transport: Transport
  let limits: RNBDServerLimits
  let geometry: ChunkGeometry
  let surroundings: EngineSurroundings
  let finished: FinishedJobs
  var registry: RTRSProtocol.SessionRegistry
  var sessions: [Session?]
  var places: [Int: Place] = [:]
  var nameWaits: [NameWait] = []
  var nextPathKey = 1
  var now = MonotonicTime.now
  var isStopping = false
  /// With one the engine executes short requests itself.
  var baton: Baton?
  /// A request that came alone, to be executed by the engine's own thread.
  private var lone: (job: Job, device: OpenDevice)?
  private var loneCount = 0
  private static var loneCountMaximum: Int { 16 }
  private var done: [Job] = []
  /// Copies of what clients say: they can write to the chunks at any time.
  private var header = [UInt8](repeating: 0, count: RequestMessage.byteCountMaximum)
  private var message = [UInt8](repeating: 0, count: RNBD.messageByteCountMaximum)

  init(
    _ transport: Transport, limits: RNBDServerLimits, surroundings: EngineSurroundings,
    finished: FinishedJobs
  ) throws(WireError) {
    self.transport = transport
    self.limits = limits
    self.surroundings = surroundings
    self.finished = finished
    geometry = try limits.geometry()
    registry = RTRSProtocol.SessionRegistry(sessionCountMaximum: limits.sessionCountMaximum)
    sessions = [Session?](repeating: nil, count: limits.sessionCountMaximum)
    done.reserveCapacity(4096)
  }

  /// Does what there is to do; when something has to be done at the latest.
  func step() -> UInt64 {
    now = .now
    done.removeAll(keepingCapacity: true)
    let (commands, ends) = finished.take(into: &done)
    for command in commands { command() }
    for (number, uuid) in ends {
      guard let session = sessions[number], session.machine.uuid == uuid else { continue }
      session.machine.close(.closed)
      advance(session)
    }
    for job in done { finish(job) }
    while let event = transport.next(isLast: false) { handle(event) }
    // Its answer is worth more than what else there is, unless that has waited for long.
    if lone != nil, loneCount < Self.loneCountMaximum {
      loneCount += 1
      return now.nanoseconds
    }
    loneCount = 0
    while let event = transport.next(isLast: true) { handle(event) }
    now = .now
    var wake = UInt64.max
    for session in sessions {
      guard let session else { continue }
      advance(session)
      if !session.isOver { wake = min(wake, session.machine.wakeNanoseconds) }
    }
    return min(wake, settleNames())
  }

  /// Until `isDone`, and everything that was begun is finished; false when another thread has taken
  /// the engine over meanwhile: the caller touches nothing of it any more.
  func run(until isDone: () -> Bool) -> Bool {
    while true {
      let wake = step()
      if isDone() { return true }
      if let (job, device) = lone {
        lone = nil
        guard execute(job, of: device) else { return false }
        continue
      }
      let now = MonotonicTime.now.nanoseconds
      let wait = wake > now ? min((wake - now) / 1_000_000 + 1, 60_000) : 0
      transport.wait(milliseconds: Int32(wait))
    }
  }

  /// On this thread; false when that took so long that another one runs the engine.
  private func execute(_ job: Job, of device: OpenDevice) -> Bool {
    guard let baton, let session = sessions[job.session] else { return true }
    guard baton.hasStandby else {
      session.workers.run(job)
      return true
    }
    let begun = MonotonicTime.now
    let token = baton.lend(at: begun)
    job.execute()
    guard baton.takeBack(token) else {
      finished.add(job)
      return false
    }
    let took = MonotonicTime.now.nanoseconds &- begun.nanoseconds
    device.workerTurns = took > Self.shortNanoseconds ? Self.workerTurns : 0
    finish(job)
    return true
  }

  /// A device that lets a request wait for longer has its next ones executed by workers.
  private static var shortNanoseconds: UInt64 { 4_000_000 }
  private static var workerTurns: Int { 16 }
  private static var shortByteCount: Int { 16 << 10 }

  /// A short request that comes alone is executed by this thread, the others by workers.
  private func dispatch(
    _ job: Job, _ operation: RNBDProtocol.BlockOperation, _ count: Int, isFUA: Bool,
    _ device: OpenDevice, _ session: Session
  ) {
    if let other = lone {
      lone = nil
      sessions[other.job.session]?.workers.run(other.job)
    } else if baton != nil, session.machine.executingCount == 1,
      operation == .read || operation == .write,
      count <= Self.shortByteCount, !isFUA
    {
      guard device.workerTurns > 0 else {
        lone = (job, device)
        return
      }
      device.workerTurns -= 1
    }
    session.workers.run(job)
  }

  /// Every path is ended now; sessions go when what they execute is done.
  func stop() {
    isStopping = true
    for session in sessions {
      guard let session else { continue }
      session.machine.close(.closed)
      advance(session)
    }
  }

  var sessionCount: Int { sessions.count { $0 != nil } }
  func status() -> [ServerStatus.TransportSession] {
    sessions.compactMap { $0?.status() }.sorted { $0.name < $1.name }
  }

  private func handle(_ event: TransportEvent) {
    switch event {
    case .request(let connection, let privateData): admit(connection, privateData)
    case .established: break
    case .disconnected(let connection):
      guard let (session, place) = find(connection) else { return }
      session.machine.lost(place.path, .disconnected)
      advance(session)
    case .workFailed(let connection, let status):
      guard let (session, place) = find(connection) else { return }
      session.machine.lost(place.path, .workRequestFailed(status: status))
      advance(session)
    case .message(let connection, let bytes):
      guard let (session, place) = find(connection) else { return }
      introduce(session, place, bytes)
    case .received(let connection, let immediate):
      guard let (session, place) = find(connection) else { return }
      received(session, place, connection, immediate)
    }
  }

  func find(_ connection: Int) -> (session: Session, place: Place)? {
    guard let place = places[connection], let session = sessions[place.session],
      session.paths[place.path]?.generation == place.generation
    else { return nil }
    return (session, place)
  }
}

// Requests.
extension Engine {
  private func received(
    _ session: Session, _ place: Place, _ connection: Int, _ immediate: UInt32
  ) {
    session.heard = now
    do { try transport.postReceives(connection, count: 1) } catch {
      session.machine.lost(place.path, .workRequestFailed(status: 0))
      return advance(session)
    }
    var count = 0
    if let (chunk, offset, byteCount) = session.machine.message(of: immediate),
      let path = session.paths[place.path]
    {
      count = byteCount
      copy(path.memory, session.offset(of: chunk) + Int(offset), count, into: &header)
    }
    let receipt = session.machine.received(
      place.path, connection: place.connection, immediate: immediate,
      message: header.span.extracting(first: count))
    switch receipt {
    case .begin(let request): begin(request, session)
    case .answer(let answer): send(answer, session)
    case .acknowledge:
      do {
        try transport.sendImmediate(connection, Immediate.heartbeatAcknowledgement.rawValue)
      } catch {
        session.machine.lost(place.path, .workRequestFailed(status: 0))
        advance(session)
      }
    case .nothing: break
    case .pathLost: advance(session)
    }
  }

  private func copy(
    _ memory: Transport.Memory, _ offset: Int, _ count: Int, into target: inout [UInt8]
  ) {
    let bytes = unsafe memory.bytes
    precondition(count <= target.count && offset + count <= bytes.count)
    unsafe target.withUnsafeMutableBytes { target in
      // SAFETY: both ranges were just checked. The client may write meanwhile: whatever the copy is
      // then, it is what is judged.
      unsafe target.baseAddress!.copyMemory(from: bytes.baseAddress! + offset, byteCount: count)
    }
  }

  private func begin(_ request: ServerRequest, _ session: Session) {
    guard let path = session.path(request.path) else { return finish(request, .io, session) }
    let count = Int(request.userByteCount)
    guard count <= message.count else { return finish(request, .invalid, session) }
    let start = session.offset(of: request.chunk)
    copy(path.memory, start + Int(request.dataByteCount), count, into: &message)
    let decoded: ClientMessage
    do { decoded = try ClientMessage(decoding: message.span.extracting(first: count)) } catch {
      return finish(request, .invalid, session)
    }
    switch decoded {
    case .io(let io): begin(io, request, session, path)
    case .sessionInformation(let information):
      let answer = SessionInformation(
        version: min(information.version, RNBD.version), isAnswer: true)
      finish(request, put(answer, request, session, path), session)
    case .open(let open): begin(open, request, session, path)
    case .close(let close):
      // An unknown number is no error.
      guard close.device < UInt32(session.open.count), let device = session.open[Int(close.device)]
      else { return finish(request, .success, session) }
      let job = session.jobs[Int(request.chunk)]
      job.error = .success
      job.work = .close(device, number: close.device)
      session.workers.run(job)
    }
  }

  private func begin(
    _ io: IORequest, _ request: ServerRequest, _ session: Session, _ path: Session.Path
  ) {
    let carrier: IOCarrier
    switch request.direction {
    case .toServer: carrier = .toServer(dataByteCount: request.dataByteCount)
    case .toClient: carrier = .toClient(roomByteCount: request.destination?.length ?? 0)
    }
    let job = session.jobs[Int(request.chunk)]
    do {
      let block = try session.devices.check(io, carrier)
      guard let device = session.open[block.backend] else {
        return finish(request, .notConnected, session)
      }
      let range = try device.rules.check(
        block.operation.kind, offset: block.offset, length: UInt64(block.byteCount))
      job.work = .io(block.operation, device, range, isFUA: block.isFUA)
    } catch let refusal as IORefusal {
      countError(io.device, session)
      return finish(request, refusal.error, session)
    } catch let refusal as BlockServer.RequestRefusal {
      countError(io.device, session)
      return finish(request, PeerErrno(refusal), session)
    } catch {
      return finish(request, .invalid, session)
    }
    let start = session.offset(of: request.chunk)
    let count = carriesData(io.operation) ? Int(io.dataByteCount) : 0
    // SAFETY: the machine has seen that data and messages fit into the chunk; `check` that the data
    // are as long as the I/O says.
    unsafe job.data = UnsafeMutableRawBufferPointer(
      rebasing: path.memory.bytes[start..<(start + count)])
    job.error = .success
    guard case .io(let operation, let device, _, let isFUA) = job.work else { return }
    dispatch(job, operation, count, isFUA: isFUA, device, session)
  }

  private func carriesData(_ operation: IOOperation) -> Bool {
    operation == .read || operation == .write
  }

  private func countError(_ device: UInt32, _ session: Session) {
    guard device < UInt32(session.open.count) else { return }
    session.open[Int(device)]?.statistics.errorCount.add(1, ordering: .relaxed)
  }

  private func begin(
    _ open: OpenRequest, _ request: ServerRequest, _ session: Session, _ path: Session.Path
  ) {
    if let number = session.devices.find(open.name),
      let device = session.open[Int(number)]
    {
      let answer = device.answer(
        device: number, dataByteCountMaximum: geometry.dataByteCountMaximum)
      return finish(request, put(answer, request, session, path), session)
    }
    let number = session.number
    let uuid = session.machine.uuid
    let finished = finished
    let job = session.jobs[Int(request.chunk)]
    job.error = .success
    job.work = .open(
      open,
      OpenContext(
        directory: surroundings.directory, access: surroundings.access,
        attachments: surroundings.attachments, registry: surroundings.registry,
        session: session.name, client: path.ends.client,
        dataByteCountMaximum: geometry.dataByteCountMaximum,
        token: AttachmentToken(high: uuid.high, low: uuid.low), slot: session.nextSlot(),
        isResuming: path.isReturning,
        stop: { finished.end(number, uuid) }))
    session.workers.run(job)
  }

  /// Puts the answer to a message where the client's data come from; EINVAL when the client has left
  /// no room for it.
  private func put(
    _ answer: some WireEncodable, _ request: ServerRequest, _ session: Session,
    _ path: Session.Path
  ) -> PeerErrno {
    guard let room = request.destination?.length, Int(room) >= answer.encodedByteCount else {
      return .invalid
    }
    let start = session.offset(of: request.chunk)
    let bytes = answer.encoded
    // SAFETY: the machine has seen that the destination is not longer than the chunk's data.
    let target = unsafe UnsafeMutableRawBufferPointer(
      rebasing: path.memory.bytes[start..<(start + Int(room))])
    unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe target.copyBytes(from: bytes)
    return .success
  }

  /// A worker has done it.
  private func finish(_ job: Job) {
    guard let session = sessions[job.session] else { return }
    let work = job.work
    job.work = .none
    var error = job.error
    let request = session.machine.executing(job.chunk)
    switch work {
    case .none: break
    case .io(let operation, let device, let range, _):
      device.count(operation, range, error)
      if let request { count(operation, range, error, request, session) }
    case .open(let open, _):
      if let device = job.opened, let request {
        error = add(device, open, request, session)
      } else if let refusal = job.refusal {
        let report = refusal.report
        surroundings.report(
          .notOpened(
            session: session.name, device: open.name.text, reason: report.reason,
            advice: report.advice))
      }
      job.opened = nil
      job.refusal = nil
    case .close(let device, let number):
      // Not closed by a second message meanwhile.
      guard session.open[Int(number)] === device else { break }
      close(number, session)
    }
    finish(job.chunk, error, session)
    if !session.isOver, session.machine.livePathCount == 0 { advance(session) }
  }

  private func add(
    _ device: OpenDevice, _ open: OpenRequest, _ request: ServerRequest, _ session: Session
  ) -> PeerErrno {
    guard let path = session.path(request.path) else { return .io }
    let number: UInt32
    // The number of the backend is that of the device.
    let free = session.open.firstIndex { $0 == nil } ?? session.open.count
    do { number = try session.devices.open(open, backend: free) } catch { return error }
    session.open[Int(number)] = device
    surroundings.report(
      .opened(
        session: session.name, device: open.name.text, export: device.export.name,
        mode: open.accessMode))
    let error = put(
      device.answer(device: number, dataByteCountMaximum: geometry.dataByteCountMaximum), request,
      session, path)
    if error != .success { close(number, session) }
    return error
  }

  func close(_ number: UInt32, _ session: Session) {
    _ = session.devices.close(number)
    guard let device = session.open[Int(number)] else { return }
    session.open[Int(number)] = nil
    surroundings.report(
      .closed(
        session: session.name, device: device.name, counters: device.statistics.snapshot))
  }

  private func finish(_ request: ServerRequest, _ error: PeerErrno, _ session: Session) {
    finish(request.chunk, error, session)
  }

  private func finish(_ chunk: UInt16, _ error: PeerErrno, _ session: Session) {
    let (answer, next) = session.machine.finish(chunk, error: error)
    if let answer { send(answer, session) }
    if let next { begin(next, session) }
  }

  private func send(_ answer: ServerAnswer, _ session: Session) {
    guard let path = session.path(answer.path) else { return }
    do {
      try transport.send(
        answer, on: path.connections[Int(answer.connection)], from: path.memory,
        offset: session.offset(of: answer.chunk))
    } catch {
      session.machine.lost(answer.path.index, .workRequestFailed(status: 0))
      advance(session)
    }
  }

  private func count(
    _ operation: BlockOperation, _ range: Range<UInt64>, _ error: PeerErrno,
    _ request: ServerRequest, _ session: Session
  ) {
    guard error == .success, let path = session.path(request.path) else { return }
    switch operation {
    case .read:
      path.counters.reads &+= 1
      path.counters.readBytes &+= UInt64(range.count)
    case .write:
      path.counters.writes &+= 1
      path.counters.writtenBytes &+= UInt64(range.count)
    default: break
    }
  }
}

extension BlockOperation {
  /// A flush has no range, and is within any.
  fileprivate var kind: RequestKind {
    switch self {
    case .read, .flush: .read
    case .write: .write
    case .discard: .trim
    case .writeZeroes: .writeZeroes
    }
  }
}

extension OpenDevice {
  fileprivate func count(_ operation: BlockOperation, _ range: Range<UInt64>, _ error: PeerErrno) {
    guard error == .success else {
      statistics.errorCount.add(1, ordering: .relaxed)
      return
    }
    switch operation {
    case .read:
      statistics.readCount.add(1, ordering: .relaxed)
      statistics.readByteCount.add(UInt64(range.count), ordering: .relaxed)
    case .write:
      statistics.writeCount.add(1, ordering: .relaxed)
      statistics.writtenByteCount.add(UInt64(range.count), ordering: .relaxed)
    case .discard: statistics.trimCount.add(1, ordering: .relaxed)
    case .writeZeroes: statistics.zeroCount.add(1, ordering: .relaxed)
    case .flush: statistics.flushCount.add(1, ordering: .relaxed)
    }
  }
}

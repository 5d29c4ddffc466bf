// SPDX-License-Identifier: Apache-2.0
// The transmission phase of one connection, carried on by whichever thread owns it at the moment.
//
// Whatever requests have arrived are served in order, and their replies leave together when no
// complete request is left: one receive and one send for as many requests as the client keeps in
// flight. Nothing is allocated for a request.
//
//   arrivals ──► request ──► rules ──► backend ──► replies ──► sent whole before anything is awaited
//
// The thread may be the session's alone: then everything waits in place. Or it has many sessions:
// then whatever would wait ends the turn, and the session goes on when there is something to do.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

struct Transmission: ~Copyable {
  /// Why `advance` has returned.
  enum Pause {
    /// Everything that came is answered, and nothing more is there.
    case input
    /// The client does not take the replies.
    case output
    /// A request would have to wait for a medium or for another connection.
    case medium
    /// Everything that came is answered, and the thread is needed by others.
    case turn
  }

  /// Whether the client is there is looked at this often, before a request is begun: short beside
  /// the time after which a client gives a silent server up.
  private static let lookNanoseconds: UInt64 = 500_000_000
  /// Reads from here on are sent from the file that they lie in; below the copy costs less.
  private static let uncopiedByteCount = 32 << 10
  /// So many bytes of requests in one receive, or more, are worth asking for a mapping.
  private static let mappedByteCount = 4 * Request.byteCount
  /// The same where many sessions take turns.
  private static let mappedByteCountInTurns = 2 * Request.byteCount

  let socket: CInt
  let isTCP: Bool
  let backend: any BlockBackend
  let rules: RequestRules
  let terms: SessionTerms
  /// What the client was told.
  let flags: TransmissionFlags
  let engine: EngineState
  let isStopping: SharedFlag
  let attached: (connection: AttachmentConnection, identity: SessionIdentity)?
  private let statistics: SessionStatistics

  var arrivals: Arrivals
  var replies: Replies
  var payload: Payload?
  /// How much has to be there before the next request can be looked at.
  private var requestByteCount: Int
  private var holes = HoleFinder()
  /// Once what has been answered has left, the session ends.
  var ending: SessionEnding?
  var tally = SessionCounters()
  /// The first request is looked at, too: the process may have been stopped before it came.
  private var lookedAt: UInt64 = 0
  /// In `clinux_coarse_nanoseconds`: it does not leave its thread to others before.
  private var staysUntil: UInt64 = 0
  /// The medium, when all of it lies in memory; asked for with each receive.
  var mapping: BackendMapping?
  /// Where the rest of a payload goes without being copied; only while there is one.
  var payloadMapping: BackendMapping?
  /// The same of all of a payload that a disk is to write.
  var payloadPlace: TransferMemory.Place?
  /// So many bytes have to be there before the socket wakes the thread.
  var wakingByteCount = 1
  /// The last so many receives each brought one request, which the client had waited to send until it
  /// had all its answers.
  var loneCount = 0
  /// Nothing more had come when the last answer of a disk was about to leave.
  private var wasQuiet = false
  /// So many, and the next one is taken to be alone, too: the thread waits for the disk itself,
  /// which costs a seventh less time than the ring.
  private static let loneCountForPlace = 8
  /// Requests that a disk is at work on; only while the session has a thread of its own.
  var pending: PendingTransfers?
  /// Since something came last. The thread has slept then, and is better off on the processor that its
  /// client sleeps on, too, than awake on another.
  var hasUsedDisk = false
  /// False when the system gives no ring.
  var mayPend = true
  /// Whoever takes this connection's place waits for what the disk is at work on, and so that must
  /// not wait for the client: the socket has been told so, and the ring waits for both.
  var mayNotWaitInSocket = false
  /// Nil while nothing is under way.
  private var buffers: SessionBuffers?

  /// `socket` stays the caller's, and outlives the value.
  init(
    socket: CInt, isTCP: Bool, entry: Handshaking.Entry, statistics: SessionStatistics,
    engine: EngineState, isStopping: SharedFlag
  ) {
    self.socket = socket
    self.isTCP = isTCP
    backend = entry.backend
    attached = entry.attached
    self.statistics = statistics
    self.engine = engine
    self.isStopping = isStopping
    let geometry = entry.export.geometry(isAttached: attached != nil)
    rules = RequestRules(
      geometry,
      payloadByteCountMaximum: UInt64(
        min(entry.requestByteCountMaximum, payloadByteCountMaximum)))
    terms = entry.terms
    flags = terms.flags(of: TransmissionFlags(geometry))
    requestByteCount = terms.style.requestByteCount
    arrivals = Arrivals(socket: socket, takenByteCount: entry.receivedByteCount)
    replies = Replies(socket: socket, isTCP: isTCP)
  }

  /// Whether memory must be lent before `advance`.
  var needsBuffers: Bool { buffers == nil }

  mutating func lend(_ lent: SessionBuffers) {
    buffers = lent
    arrivals.lend(lent)
    replies.lend(lent)
  }

  /// The memory, when nothing is in it.
  mutating func takeBackBuffers() -> SessionBuffers? {
    guard arrivals.isEmpty, replies.isEmpty else { return nil }
    arrivals.lend(nil)
    replies.lend(nil)
    return buffers.take()
  }

  /// Until then the thread is kept, however many sessions are busy.
  mutating func stay(until time: UInt64) { staysUntil = time }

  /// What the handshake had read beyond its end; once, with memory lent.
  mutating func put(_ received: [UInt8]) {
    unsafe received.withUnsafeBytes { unsafe arrivals.put($0) }  // SAFETY: copied.
  }

  /// Serves until something has to be waited for. `waits`: the thread is the session's own, and
  /// waits in place, but for `turn`, and for `input` that has not come for the socket's time.
  mutating func advance(waits: Bool) throws(SessionEnding) -> Pause {
    do {
      return try advanceUnmasked(waits: waits)
    } catch {
      discardPending()
      publish()
      if attached?.connection.isReplaced == true { throw .replaced }
      throw error
    }
  }

  private mutating func advanceUnmasked(waits: Bool) throws(SessionEnding) -> Pause {
    var hasReceived = false
    while true {
      if let pause = try serveArrived(waits: waits) {
        publish()
        // What is answered does not wait with the rest.
        if pause == .medium { _ = try send(waits: false) }
        return pause
      }
      if hasPending {
        submitPending()
        collectPending()
      }
      wasQuiet = isQuiet
      publish()
      guard try send(waits: waits) else { return .output }
      if hasPending {
        let isOver =
          ending != nil || payload == nil && isStopping.isSet
          || attached?.connection.isAwaited == true
        try waitForPending(takesRequests: !isOver)
        continue
      }
      if let ending { throw ending }
      if payload == nil {
        if isStopping.isSet { throw .serverStopping }
        // A turn is what came in one receive: others wait for theirs.
        if waits, engine.isCrowded, arrivals.isEmpty, clinux_coarse_nanoseconds() >= staysUntil {
          return .turn
        }
      }
      // Of what was taken only the beginning of a request is left.
      attached?.connection.hasServed(arrivals.takenByteCount)
      if !waits, hasReceived { return .input }
      guard try receive(waits: waits) else { return .input }
      hasReceived = true
      let isLone = wasQuiet && arrivals.count == requestByteCount && payload == nil
      loneCount = isLone ? min(loneCount + 1, Self.loneCountForPlace) : 0
      let least = waits ? Self.mappedByteCount : Self.mappedByteCountInTurns
      let isMany = arrivals.count >= least && engine.sendsFiles
      mapping = isMany ? backend.mapping() : nil
    }
  }

  /// Serves every request that is there; nil when more has to come.
  private mutating func serveArrived(waits: Bool) throws(SessionEnding) -> Pause? {
    while ending == nil {
      if payload != nil {
        guard waits else { return .medium }
        guard try takePayload() else { return nil }
      } else {
        guard arrivals.count >= requestByteCount else { return nil }
        if let pause = try serveNext(waits: waits) { return pause }
      }
    }
    return nil
  }

  /// Whether the disk has done all that the client has asked for so far. A client on the same
  /// processor may be quicker with its next request than the thread is with looking for it.
  private var isQuiet: Bool {
    hasUsedDisk && arrivals.isEmpty && pending?.isAtWork == false
      && clinux_poll(socket, CShort(clinux_POLLIN), 0) == 0
  }

  /// Tells others what the session has done.
  private mutating func publish() {
    if tally != SessionCounters() {
      statistics.add(tally)
      tally = SessionCounters()
    }
  }
}

// Requests.
extension Transmission {
  /// The request that is next; it stays where it is.
  private func nextRequest() throws(SessionEnding) -> ExtendedRequest {
    do {
      // SAFETY: the bytes are used before anything is received.
      let bytes = unsafe arrivals.next(terms.style.requestByteCount)
      return try unsafe terms.style.request(decoding: bytes.bindMemory(to: UInt8.self).span)
    } catch {
      var magic: UInt64 = 0
      if case .magic(_, let actual) = error { magic = actual }
      throw .lostFrame(magic: magic)
    }
  }

  /// Nil when the request is done with, or its payload is being taken; it is still there otherwise.
  private mutating func serveNext(waits: Bool) throws(SessionEnding) -> Pause? {
    let request: ExtendedRequest
    do {
      request = try nextRequest()
    } catch {
      return endAfterReplies(error)
    }
    guard request.command != .disconnect else { return endAfterReplies(.disconnected) }
    var error = invalidFlags(of: request)
    if request.command == .read, error == .none { return try read(request, waits: waits) }
    // All others may take their time.
    guard waits else { return .medium }
    guard try makeRoom(for: ReplyStyle.headByteCountMaximum, waits: waits) else { return .output }
    var usedByteCount = terms.style.requestByteCount
    let payloadByteCount = terms.style.payloadByteCount(of: request)
    if payloadByteCount > 0 || request.command == .write {
      guard takesQuery(request, error) else {
        arrivals.use(usedByteCount)
        beginPayload(request, payloadByteCount, error)
        return nil
      }
      usedByteCount += Int(payloadByteCount)
      requestByteCount = usedByteCount
      guard arrivals.count >= usedByteCount else { return nil }
      requestByteCount = terms.style.requestByteCount
    }
    var extents: [ExtentStatus] = []
    if error == .none {
      // `read` and `write` begin and end for themselves: between the two nothing may wait for the
      // client, or a newer copy of the request would wait for it, too.
      switch try begin(request, waits: waits) {
      case .execute: break
      case .mustWait: return .medium
      case .superseded, .fenced:
        arrivals.use(usedByteCount)
        return nil
      }
      submitPending()
      switch request.command {
      case .flush: error = flush(request)
      case .trim where flags.contains(.sendTrim) || rules.isReadOnly: error = trim(request)
      case .cache: error = cache(request)
      case .writeZeroes: error = writeZeroes(request)
      case .blockStatus where terms.hasAllocationContext:
        // SAFETY: all of the request is there, and nothing is received before it is used.
        let bytes = unsafe arrivals.next(usedByteCount)
        (error, extents) = unsafe blockStatus(
          request, query: UnsafeRawBufferPointer(rebasing: bytes[terms.style.requestByteCount...]))
      default: error = .einval
      }
      guard end(request) else {
        arrivals.use(usedByteCount)
        return nil
      }
    }
    arrivals.use(usedByteCount)
    if extents.isEmpty {
      reply(error, to: request)
    } else {
      // Nothing comes between: it is executed, and the client waits for it.
      _ = try makeRoom(for: AllocationStatus.replyByteCountMaximum, waits: true)
      reply(extents, to: request)
    }
    return nil
  }

  /// Nothing that came after this counts.
  mutating func endAfterReplies(_ reason: SessionEnding) -> Pause? {
    ending = reason
    arrivals.use(arrivals.count)
    return nil
  }

  /// Whether the payload says what the command is about; any other but that of a WRITE is skipped.
  private func takesQuery(_ request: ExtendedRequest, _ error: ErrorNumber) -> Bool {
    request.command == .blockStatus && error == .none
      && request.length <= UInt64(BlockStatusQuery.byteCountMaximum)
  }

  /// Whether the request may be executed now. `superseded`: it is to be forgotten, for a newer copy
  /// of it has been seen. Throws when the whole session is.
  mutating func begin(
    _ request: ExtendedRequest, waits: Bool
  ) throws(SessionEnding) -> Attachment.Admission {
    try lookForClient()
    guard let attached else { return .execute }
    let mark = RequestMark(request.cookie, attached.identity.flags)
    var admission = attached.connection.begin(mark, mayWait: false)
    if admission == .mustWait, waits {
      // What is answered must not wait with it, and nothing of this connection be waited for.
      _ = try send(waits: true)
      while hasPending {
        try waitForPending(takesRequests: false)
        collectPending()
        _ = try send(waits: true)
      }
      admission = attached.connection.begin(mark, mayWait: true)
    }
    if admission == .fenced { throw .replaced }
    return admission
  }

  /// A server that was stopped wakes up with requests in its hands whose client has gone on with
  /// another server meanwhile: they are as good as never sent, and must not land after newer ones.
  mutating func lookForClient() throws(SessionEnding) {
    let now = clinux_coarse_nanoseconds()
    guard now &- lookedAt >= Self.lookNanoseconds else { return }
    lookedAt = now
    // Reports an aborted connection, and one that has ended both ways, whatever it is asked.
    guard clinux_poll(socket, 0, 0) == 0 else { throw .vanished(.connectionReset) }
  }

  /// False when the answer is not wanted any more.
  func end(_ request: ExtendedRequest) -> Bool {
    guard let attached else { return true }
    return attached.connection.end(RequestMark(request.cookie, attached.identity.flags))
  }

  /// EINVAL for a flag that is unknown, or not valid with this command on this export.
  private func invalidFlags(of request: ExtendedRequest) -> ErrorNumber {
    if request.flags.isEmpty { return .none }
    let allowed = terms.allowedFlags(for: request.command, told: flags)
    return request.flags.isSubset(of: allowed) ? .none : .einval
  }

  private mutating func read(
    _ request: ExtendedRequest, waits: Bool
  ) throws(SessionEnding) -> Pause? {
    let range: Range<UInt64>
    do {
      range = try rules.check(.read, offset: request.offset, length: request.length)
    } catch {
      guard try makeRoom(for: ReplyStyle.headByteCountMaximum, waits: waits) else {
        return .output
      }
      arrivals.use(terms.style.requestByteCount)
      // Simple replies have no way to serve it in pieces, so there it is just wrong.
      let isTooLong = error == .tooLong && terms.style != .simple
      reply(isTooLong ? .eoverflow : ErrorNumber(error, of: .read), to: request)
      return nil
    }
    var asksForHoles = false
    if terms.style != .simple, !request.flags.contains(.df) {
      asksForHoles = holes.isWorthAsking(range)
      if asksForHoles, !waits { return .medium }
    }
    let count = Int(truncatingIfNeeded: range.upperBound &- range.lowerBound)
    let isLong = count >= Self.uncopiedByteCount
    // Over TCP, long replies of a memory file may leave with one copy rather than as 4 KiB pieces:
    // several at once to each of a crowd went twice as fast on this machine, and those to a client
    // that is alone cost a fifth less. A hundred with one request each are better off with pieces.
    if isLong, isTCP, waits, mapping == nil, engine.isAlone, engine.sendsFiles {
      mapping = backend.mapping()
    }
    let isCopied = !isLong || isTCP && mapping != nil && (!waits || engine.isAlone)
    let file = isCopied ? nil : cachedFileRange(of: range)
    let mapped = file == nil && count > 0 ? mapping : nil
    let copiedByteCount = file == nil && mapped == nil ? count : 0
    let room = asksForHoles ? count + HoleFinder.headByteCountMaximum : copiedByteCount
    guard try makeRoom(for: ReplyStyle.headByteCountMaximum + room, waits: waits) else {
      return .output
    }
    switch try begin(request, waits: waits) {
    case .execute: break
    case .mustWait: return .medium
    case .superseded, .fenced:
      arrivals.use(terms.style.requestByteCount)
      return nil
    }
    if asksForHoles {
      let pieces = holes.pieces(of: range, in: backend, alignment: rules.alignment)
      if !pieces.isEmpty {
        let result = readPieces(pieces, from: range.lowerBound, for: request)
        let isWanted = end(request)
        arrivals.use(terms.style.requestByteCount)
        if isWanted { finishRead(request, result.error, count, inMemory: result.byteCount) }
        return nil
      }
    }
    var error = ErrorNumber.none
    var isDone = true
    if copiedByteCount > 0 {
      // SAFETY: there is room for the head and the data: `makeRoom` has seen to it, and `begin` only
      // takes replies away.
      let data = unsafe replies.room(for: count, after: terms.style.dataHeadByteCount)
      do {
        isDone = try unsafe backend.readWithoutWaiting(into: data, at: range.lowerBound)
        if !isDone, waits {
          if beginPending(read: request, range, inPlace: loneCount == Self.loneCountForPlace) {
            arrivals.use(terms.style.requestByteCount)
            return nil
          }
          try unsafe backend.read(into: data, at: range.lowerBound)
          isDone = true
        }
      } catch let failure {
        error = ErrorNumber(failure)
        isDone = true
      }
    }
    let isWanted = end(request)
    guard isDone else { return .medium }
    arrivals.use(terms.style.requestByteCount)
    guard isWanted else { return nil }
    if error == .none, count > 0 { replyHead(of: request, byteCount: count) }
    finishRead(request, error, count, inMemory: copiedByteCount)
    guard error == .none else { return nil }
    if let file { replies.append(file, byteCount: count) }
    if let mapped { replies.append(mapped, at: range.lowerBound, byteCount: count) }
    return nil
  }

  /// Sends what lies in memory behind what waits, or an error in its place.
  private mutating func finishRead(
    _ request: ExtendedRequest, _ error: ErrorNumber, _ count: Int, inMemory byteCount: Int
  ) {
    guard error == .none else { return reply(error, to: request) }
    if count == 0 { reply(.none, to: request) }
    replies.append(byteCount)
    tally.reads &+= 1
    tally.readBytes &+= UInt64(count)
  }

  /// Where the bytes lie in a file, all of them in memory: sending them neither waits nor fails.
  private func cachedFileRange(of range: Range<UInt64>) -> BackendFileRange? {
    guard engine.sendsFiles, let file = backend.fileRange(of: range) else { return nil }
    let isCached = clinux_is_cached(
      file.descriptor, file.offset, range.upperBound &- range.lowerBound)
    if isCached < 0 { engine.sendNoFiles() }
    return isCached == 1 ? file : nil
  }
}

// Bytes in and out.
extension Transmission {
  /// Sends what waits if it has grown enough or `count` more bytes would not fit behind it. False
  /// when it cannot leave now.
  mutating func makeRoom(for count: Int, waits: Bool) throws(SessionEnding) -> Bool {
    replies.mustLeave(before: count) ? try send(waits: waits) : true
  }

  /// False when the socket takes no more now.
  mutating func send(waits: Bool) throws(SessionEnding) -> Bool {
    let count = replies.memoryByteCount
    if waits { waitInSocketAgain() }
    while try !sendOnce(waits: waits && !mayNotWaitInSocket) {
      guard waits, mayNotWaitInSocket else { return false }
      try waitToSend()
    }
    pending?.finishSent()
    buffers?.discardOutput(after: count)
    return true
  }

  private mutating func sendOnce(waits: Bool) throws(SessionEnding) -> Bool {
    do {
      return try replies.send(waits: waits)
    } catch {
      switch error {
      case .socket(let error): throw .vanished(error)
      case .file(let error):
        engine.sendNoFiles()
        throw .mediumFailed(error)
      }
    }
  }

  /// False when nothing is there now.
  mutating func receive(waits: Bool) throws(SessionEnding) -> Bool {
    var wanted = requestByteCount
    if waits { waitInSocketAgain() }
    if let now = payload, let place = payloadPlace {
      return try receive(now, into: place, waits: waits)
    }
    if let now = payload, now.error == .none, let place = payloadMapping, arrivals.isEmpty {
      return try receiveInPlace(now, place, waits: waits)
    }
    if let payload {
      let isKept = payload.error == .none && payload.isWanted
      wanted = isKept ? Int(min(Self.pieceByteCount, payload.left)) : 1
    }
    let count: Int
    do {
      let received = try arrivals.receive(
        wanted: wanted, isAlone: engine.isAlone, waits: waits, sleeps: hasUsedDisk)
      guard let received else { return false }
      hasUsedDisk = false
      count = received
    } catch {
      throw .vanished(error)
    }
    guard count > 0 else {
      if isStopping.isSet { throw .serverStopping }
      throw arrivals.isEmpty && payload == nil ? .closedByClient : .vanished(nil)
    }
    return true
  }
}

extension RequestMark {
  /// Nil when the client's cookies say nothing.
  init?(_ cookie: UInt64, _ flags: SessionFlags) {
    guard flags.contains(.countedCookies) else { return nil }
    self.init(
      tag: UInt32(truncatingIfNeeded: cookie), counter: UInt32(truncatingIfNeeded: cookie >> 32))
  }
}

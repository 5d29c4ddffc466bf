// SPDX-License-Identifier: Apache-2.0
// The transmission phase of one connection, on the thread that owns it.
//
// Whatever requests have arrived are served in order, and their replies leave together when no
// complete request is left: one receive and one send for as many requests as the client keeps in
// flight. Both buffers are taken at the start; nothing is allocated for a request.
//
//   input   |--served--|==requests and payloads==|----free----|
//   output  |==replies==|----free----|        sent whole before anything is waited for

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import Synchronization
import WireFormat

/// Why a session ended.
enum SessionEnding: Error, Equatable {
  case disconnected
  /// The stream ended between two requests, without DISC.
  case closedByClient
  /// The stream ended inside a request, or the socket failed.
  case vanished(SystemError?)
  case lostFrame(magic: UInt64)
  case serverStopping
  /// Another connection of the attachment has its place.
  case replaced
  case notSetUp(SystemError)

  var reason: String {
    switch self {
    case .disconnected: "disconnected"
    case .closedByClient: "closed by the client"
    case .vanished(nil): "the client vanished inside a request"
    case .vanished(let error?): "the connection failed: \(error.text)"
    case .lostFrame(let magic):
      "the client sent 0x\(String(magic, radix: 16)) where a request belongs"
    case .serverStopping: "the server is stopping"
    case .replaced: "a newer connection of this client took its place"
    case .notSetUp(let error): "no session could be set up: \(error.text)"
    }
  }
}

struct Transmission: ~Copyable {
  /// A WRITE of more than this is written in pieces.
  private static let inputByteCount = 2 << 20
  /// Not more is received at once unless a payload needs it: the rest stays untouched.
  private static let receiveByteCount = 256 << 10
  /// Replies that have grown to this leave before the next request is served.
  private static let outputByteCountTarget = 256 << 10
  /// Output memory beyond it goes back to the system after use.
  private static let outputByteCountKept = 4 << 20

  /// Whether the client is there is looked at this often, before a request is begun: short beside
  /// the time after which a client gives a silent server up.
  private static let lookMilliseconds: UInt64 = 500

  private let socket: CInt
  private let backend: any BlockBackend
  private let rules: RequestRules
  private let flags: TransmissionFlags
  private let statistics: SessionStatistics
  private let isStopping: SharedFlag
  private let attached: (connection: AttachmentConnection, identity: SessionIdentity)?

  private let input: MappedMemory
  private var inputStart = 0
  private var inputEnd = 0
  /// All that was taken off the socket, the handshake included.
  private var takenByteCount: UInt64
  private let output: MappedMemory
  private var outputEnd = 0
  /// The first request is looked at, too: the process may have been stopped before it came.
  private var lookedAt = MonotonicTime(nanoseconds: 0)

  /// `socket` stays the caller's, is blocking, and outlives the value. `received`: what the
  /// handshake had read beyond its end.
  init(
    socket: CInt, entry: Handshaking.Entry, received: [UInt8], statistics: SessionStatistics,
    isStopping: SharedFlag
  ) throws(SystemError) {
    let input = try MappedMemory(byteCount: Self.inputByteCount)
    let output = try MappedMemory(
      byteCount: Self.outputByteCountTarget + SimpleReply.byteCount + Int(payloadByteCountMaximum))
    precondition(received.count <= Self.inputByteCount)  // The handshake reads 4 KiB at a time.
    unsafe input.buffer.copyBytes(from: received)  // SAFETY: checked in the line above.
    inputEnd = received.count
    self.input = input
    self.output = output
    takenByteCount = entry.receivedByteCount
    self.socket = socket
    backend = entry.backend
    attached = entry.attached
    self.statistics = statistics
    self.isStopping = isStopping
    let geometry = entry.export.geometry(isAttached: attached != nil)
    rules = RequestRules(geometry, payloadByteCountMaximum: UInt64(payloadByteCountMaximum))
    flags = TransmissionFlags(geometry)
  }

  /// Serves until the session ends, and says why.
  mutating func run() -> SessionEnding {
    do {
      while true {
        while inputEnd - inputStart >= Request.byteCount { try serveNext() }
        try sendReplies()
        if isStopping.isSet { return .serverStopping }
        try receive(atLeast: Request.byteCount, isInsideRequest: false)
      }
    } catch {
      if attached?.connection.isReplaced == true { return .replaced }
      // What was finished before DISC or a lost frame is still answered.
      if error == .disconnected { try? sendReplies() }
      return error
    }
  }
}

// Requests.
extension Transmission {
  private mutating func serveNext() throws(SessionEnding) {
    let request: Request
    do {
      // SAFETY: the caller has seen that so many bytes are there.
      let bytes = unsafe UnsafeRawBufferPointer(
        rebasing: input.buffer[inputStart..<(inputStart + Request.byteCount)])
      request = try unsafe Request(decoding: bytes.bindMemory(to: UInt8.self).span)
    } catch {
      var magic: UInt64 = 0
      if case .magic(_, let actual) = error { magic = actual }
      throw .lostFrame(magic: magic)
    }
    inputStart += Request.byteCount

    guard request.command != .disconnect else { throw .disconnected }
    // Whatever is wrong with a WRITE, its payload comes: it is taken before the answer.
    var error = invalidFlags(of: request)
    if request.command == .write {
      if error == .none { return try write(request) }
      try skip(UInt64(request.length))
      return try reply(error, to: request)
    }
    guard error == .none else { return try reply(error, to: request) }
    // `read` and `write` begin and end for themselves: between the two nothing may wait for the
    // client, or a newer copy of the request would wait for it, too.
    if request.command == .read { return try read(request) }
    guard try begin(request) else { return }
    switch request.command {
    case .flush: error = flush(request)
    case .trim where flags.contains(.sendTrim) || rules.isReadOnly: error = trim(request)
    case .writeZeroes: error = writeZeroes(request)
    default: error = .einval
    }
    guard end() else { return }
    try reply(error, to: request)
  }

  /// False when the request is to be forgotten: a newer copy of it has been seen.
  private mutating func begin(_ request: Request) throws(SessionEnding) -> Bool {
    try lookForClient()
    guard let attached else { return true }
    let mark = RequestMark(request.cookie, attached.identity.flags)
    var admission = attached.connection.begin(mark, mayWait: false)
    if admission == .mustWait {
      // What is answered must not wait with it.
      try sendReplies()
      admission = attached.connection.begin(mark, mayWait: true)
    }
    switch admission {
    case .execute: return true
    case .superseded, .mustWait: return false
    case .fenced: throw .replaced
    }
  }

  /// A server that was stopped wakes up with requests in its hands whose client has gone on with
  /// another server meanwhile: they are as good as never sent, and must not land after newer ones.
  private mutating func lookForClient() throws(SessionEnding) {
    let now = MonotonicTime.now
    guard now.milliseconds(since: lookedAt) >= Self.lookMilliseconds else { return }
    lookedAt = now
    // Reports an aborted connection, and one that has ended both ways, whatever it is asked.
    guard clinux_poll(socket, 0, 0) == 0 else { throw .vanished(.connectionReset) }
  }

  /// False when the answer is not wanted any more.
  private func end() -> Bool { attached?.connection.end() ?? true }

  /// EINVAL for a flag that is unknown, or not valid with this command on this export.
  private func invalidFlags(of request: Request) -> ErrorNumber {
    var allowed: CommandFlags = flags.contains(.sendFUA) ? .fua : []
    // A read-only export answers EPERM, which says more than EINVAL.
    if rules.isReadOnly { allowed.insert(.fua) }
    if request.command == .writeZeroes { allowed.insert(.noHole) }
    return request.flags.isSubset(of: allowed) ? .none : .einval
  }

  private mutating func read(_ request: Request) throws(SessionEnding) {
    let range: Range<UInt64>
    do {
      range = try rules.check(.read, offset: request.offset, length: UInt64(request.length))
    } catch {
      return try reply(ErrorNumber(error, of: .read), to: request)
    }
    let count = range.count
    try makeRoom(for: SimpleReply.byteCount + count)
    guard try begin(request) else { return }
    // SAFETY: there is room for the header and the data: `makeRoom` has seen to it, and `begin`
    // only takes replies away.
    let data = unsafe UnsafeMutableRawBufferPointer(
      rebasing: output.buffer[
        (outputEnd + SimpleReply.byteCount)..<(outputEnd + SimpleReply.byteCount + count)])
    var error = ErrorNumber.none
    do {
      if count > 0 { try unsafe backend.read(into: data, at: range.lowerBound) }
    } catch let failure {
      error = ErrorNumber(failure)
    }
    guard end() else { return }
    guard error == .none else { return try reply(error, to: request) }
    try reply(.none, to: request)
    outputEnd += count
    statistics.readCount.add(1, ordering: .relaxed)
    statistics.readByteCount.add(UInt64(count), ordering: .relaxed)
  }

  private mutating func write(_ request: Request) throws(SessionEnding) {
    let range: Range<UInt64>
    do {
      range = try rules.check(.write, offset: request.offset, length: UInt64(request.length))
    } catch {
      try skip(UInt64(request.length))
      return try reply(ErrorNumber(error, of: .write), to: request)
    }
    let isDurable = request.flags.contains(.fua)
    var error = ErrorNumber.none
    var isWanted = true
    var offset = range.lowerBound
    while offset < range.upperBound {
      let count = Int(min(UInt64(Self.inputByteCount / 2), range.upperBound - offset))
      try receive(atLeast: count, isInsideRequest: true)
      // SAFETY: so many bytes are there.
      let piece = unsafe UnsafeRawBufferPointer(
        rebasing: input.buffer[inputStart..<(inputStart + count)])
      inputStart += count
      offset += UInt64(count)
      // The rest of the payload is taken all the same.
      guard error == .none, isWanted else { continue }
      isWanted = try begin(request)
      guard isWanted else { continue }
      do {
        // Durable with its last piece: that makes the earlier ones durable, too.
        try unsafe backend.write(
          piece, at: offset - UInt64(count), isDurable: isDurable && offset == range.upperBound)
      } catch let failure {
        error = ErrorNumber(failure)
      }
      isWanted = end()
    }
    guard isWanted else { return }
    if error == .none {
      statistics.writeCount.add(1, ordering: .relaxed)
      statistics.writtenByteCount.add(UInt64(range.count), ordering: .relaxed)
    }
    try reply(error, to: request)
  }

  private func flush(_ request: Request) -> ErrorNumber {
    guard request.offset == 0, request.length == 0 else { return .einval }
    do {
      try backend.flush()
    } catch {
      return ErrorNumber(error)
    }
    statistics.flushCount.add(1, ordering: .relaxed)
    return .none
  }

  private func trim(_ request: Request) -> ErrorNumber {
    do {
      let range = try rules.check(.trim, offset: request.offset, length: UInt64(request.length))
      do {
        try backend.trim(range, isDurable: request.flags.contains(.fua))
      } catch {
        return ErrorNumber(error)
      }
    } catch {
      return ErrorNumber(error, of: .trim)
    }
    statistics.trimCount.add(1, ordering: .relaxed)
    return .none
  }

  private func writeZeroes(_ request: Request) -> ErrorNumber {
    do {
      let range = try rules.check(
        .writeZeroes, offset: request.offset, length: UInt64(request.length))
      do {
        try backend.writeZeroes(
          range, mayPunch: !request.flags.contains(.noHole),
          isDurable: request.flags.contains(.fua))
      } catch {
        return ErrorNumber(error)
      }
    } catch {
      return ErrorNumber(error, of: .writeZeroes)
    }
    statistics.zeroCount.add(1, ordering: .relaxed)
    return .none
  }
}

// Bytes in and out.
extension Transmission {
  /// Appends the head of a reply; a READ's data follow it.
  private mutating func reply(
    _ error: ErrorNumber, to request: Request
  ) throws(SessionEnding) {
    try makeRoom(for: SimpleReply.byteCount)
    if error != .none { statistics.errorCount.add(1, ordering: .relaxed) }
    // SAFETY: there is room, as the first line has seen to.
    let head = unsafe UnsafeMutableRawBufferPointer(
      rebasing: output.buffer[outputEnd..<(outputEnd + SimpleReply.byteCount)]
    ).bindMemory(to: UInt8.self)
    var span = unsafe OutputSpan(buffer: head, initializedCount: 0)
    SimpleReply(error: error, cookie: request.cookie).encode(into: &span)
    outputEnd += unsafe span.finalize(for: head)
  }

  /// Sends what is there if it has grown enough or `count` more bytes would not fit behind it.
  private mutating func makeRoom(for count: Int) throws(SessionEnding) {
    if outputEnd > 0, outputEnd + count > Self.outputByteCountTarget { try sendReplies() }
  }

  private mutating func sendReplies() throws(SessionEnding) {
    var sent = 0
    while sent < outputEnd {
      do {
        sent += try retryingInterrupts {
          // SAFETY: `sent` is below the end of what has been written.
          unsafe clinux_send(socket, output.buffer.baseAddress! + sent, outputEnd - sent, 0)
        }
      } catch {
        throw .vanished(error)
      }
    }
    if outputEnd > Self.outputByteCountKept { output.discard(beyond: Self.outputByteCountKept) }
    outputEnd = 0
  }

  /// Returns when at least `count` bytes are there, in one piece; at most half of the input.
  /// Replies that are ready leave before the client is waited for.
  private mutating func receive(
    atLeast count: Int, isInsideRequest: Bool
  ) throws(SessionEnding) {
    guard inputEnd - inputStart < count else { return }
    try sendReplies()
    if inputStart > 0 {
      let kept = inputEnd - inputStart
      // SAFETY: both ranges lie in the input; memmove(3) allows that they overlap.
      unsafe input.buffer.baseAddress!.copyMemory(
        from: input.buffer.baseAddress! + inputStart, byteCount: kept)
      inputStart = 0
      inputEnd = kept
    }
    // Of what was taken only the beginning of a request is left.
    attached?.connection.hasServed(takenByteCount)
    while inputEnd < count {
      let room = max(count, Self.receiveByteCount) - inputEnd
      let received: Int
      do {
        received = try retryingInterrupts {
          // SAFETY: `count` and the receive size are below the size of the input.
          unsafe clinux_recv(socket, input.buffer.baseAddress! + inputEnd, room, 0)
        }
      } catch {
        throw .vanished(error)
      }
      guard received > 0 else {
        if isStopping.isSet { throw .serverStopping }
        throw inputEnd == 0 && !isInsideRequest ? .closedByClient : .vanished(nil)
      }
      inputEnd += received
      takenByteCount &+= UInt64(received)
    }
  }

  /// Takes bytes off the stream that nobody wants.
  private mutating func skip(_ count: UInt64) throws(SessionEnding) {
    var left = count
    while left > 0 {
      try receive(atLeast: 1, isInsideRequest: true)
      let piece = min(left, UInt64(inputEnd - inputStart))
      inputStart += Int(piece)
      left -= piece
    }
  }
}

/// Set once, by one thread, for another to see.
final class SharedFlag: Sendable {
  private let value = Atomic(false)
  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }
}

extension RequestMark {
  /// Nil when the client's cookies say nothing.
  init?(_ cookie: UInt64, _ flags: SessionFlags) {
    guard flags.contains(.countedCookies) else { return nil }
    self.init(
      tag: UInt32(truncatingIfNeeded: cookie), counter: UInt32(truncatingIfNeeded: cookie >> 32))
  }
}

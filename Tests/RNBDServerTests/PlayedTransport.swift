// SPDX-License-Identifier: Apache-2.0
// A transport that the test plays, and a client's part in it: what the client would write to a chunk
// is put there, what the server posts is kept.

import BlockBackends
import BlockServer
import Foundation
import LinuxSystem
import RNBDProtocol
import RTRSProtocol
import Synchronization
import Testing
import WireFormat

@testable import RNBDServer

@safe final class PlayedMemory: ChunkMemory {
  @unsafe let bytes: UnsafeMutableRawBufferPointer
  let remoteKey: UInt32 = 77

  init(byteCount: Int) {
    unsafe bytes = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)  // SAFETY: all of it.
  }

  deinit { unsafe bytes.deallocate() }  // SAFETY: allocated above.

  func address(_ offset: Int) -> UInt64 { 0x1000_0000 + UInt64(offset) }

  func put(_ data: [UInt8], at offset: Int) {
    // SAFETY: a slice is checked.
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<(offset + data.count)])
      .copyBytes(from: data)
  }

  func get(_ offset: Int, _ count: Int) -> [UInt8] {
    unsafe Array(bytes[offset..<(offset + count)])  // SAFETY: a slice is checked.
  }
}

final class PlayedTransport: ServerTransport {
  final class Waker: TransportWaker {
    func wake() {}
  }
  struct Answered {
    var connection: Int
    var response: ChunkResponse
    /// What the server wrote to the client's memory.
    var data: [UInt8]
  }

  var events: [TransportEvent] = []
  var ends: [Int: ConnectionEnds] = [:]
  var memories: [PlayedMemory] = []
  var accepted: [Int: Int] = [:]
  var rejected: [Int: PeerErrno] = [:]
  var closedPaths: Set<Int> = []
  var informed: [Int] = []
  var immediates: [Int: [UInt32]] = [:]
  var answers: [Answered] = []
  let waker: any TransportWaker = Waker()

  func ends(of connection: Int) -> ConnectionEnds { ends[connection] ?? ConnectionEnds() }

  func makeMemory(byteCount: Int, for connection: Int) throws(TransportError) -> PlayedMemory {
    let memory = PlayedMemory(byteCount: byteCount)
    memories.append(memory)
    return memory
  }

  func accept(
    _ connection: Int, path: Int, isService: Bool, connectionCount: Int, _ sizes: ConnectionSizes,
    answer: [UInt8]
  ) throws(TransportError) { accepted[connection] = path }

  func reject(_ connection: Int, answer: [UInt8]) {
    rejected[connection] = (try? ConnectionAnswer(decoding: answer.span))?.error
  }

  func close(path: Int) { closedPaths.insert(path) }
  func postReceives(_ connection: Int, count: Int) throws(TransportError) {}
  func sendInformation(_ connection: Int, _ bytes: [UInt8]) throws(TransportError) {
    informed.append(connection)
  }
  func sendImmediate(_ connection: Int, _ immediate: UInt32) throws(TransportError) {
    immediates[connection, default: []].append(immediate)
  }
  func send(
    _ answer: ServerAnswer, on connection: Int, from memory: PlayedMemory, offset: Int
  ) throws(TransportError) {
    guard case .response(let response) = Immediate(rawValue: answer.immediate) else { return }
    answers.append(
      Answered(
        connection: connection, response: response,
        data: memory.get(offset, Int(answer.destination?.length ?? 0))))
  }
  func next(isLast: Bool) -> TransportEvent? { events.isEmpty ? nil : events.removeFirst() }
  func wait(milliseconds: Int32) { pause(milliseconds: 1) }
}

/// Lets writes through when it is told to.
final class GateBackend: BlockBackend {
  private let base: MemoryBackend
  private let gate = NSCondition()
  private let isOpen = Mutex(true)
  private let waiting = Atomic(0)

  init(byteCount: Int) { base = MemoryBackend(byteCount: byteCount) }

  var byteCount: UInt64 { base.byteCount }
  var blockSizes: BackendBlockSizes { base.blockSizes }
  var capabilities: BackendCapabilities { base.capabilities }
  var waitingCount: Int { waiting.load(ordering: .acquiring) }

  func set(isOpen value: Bool) {
    gate.lock()
    isOpen.withLock { $0 = value }
    gate.broadcast()
    gate.unlock()
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) { unsafe try base.read(into: buffer, at: offset) }

  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    gate.lock()
    waiting.add(1, ordering: .acquiringAndReleasing)
    while !isOpen.withLock({ $0 }) { gate.wait() }
    waiting.subtract(1, ordering: .acquiringAndReleasing)
    gate.unlock()
    unsafe try base.write(bytes, at: offset, isDurable: isDurable)
  }

  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try base.writeZeroes(
      range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
  }
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try base.trim(range, isDurable: isDurable)
  }
  func flush() throws(BackendError) { try base.flush() }
}

/// A server with two exports, `disk` and the read-only `fixed`.
final class PlayedServer {
  let transport = PlayedTransport()
  let backend = GateBackend(byteCount: 1 << 20)
  let access = WriteAccess()
  let registry = BlockServer.SessionRegistry(connectionCountMaximum: 64)
  let table: ExportTable
  let engine: Engine<PlayedTransport>
  private var connectionCount = 0

  static func limits() -> RNBDServerLimits {
    var limits = RNBDServerLimits()
    limits.queueDepth = 8
    limits.dataByteCountMaximum = 65_536
    limits.sessionCountMaximum = 4
    limits.challengeNanoseconds = 50_000_000
    limits.workerCount = 2
    return limits
  }

  init(_ limits: RNBDServerLimits = limits()) throws {
    table = ExportTable([
      Export(name: "disk", base: backend),
      Export(name: "fixed", access: .readOnly, base: MemoryBackend(byteCount: 4096)),
    ])
    let box = EventBox()
    engine = try Engine(
      transport, limits: limits,
      surroundings: EngineSurroundings(
        directory: DeviceDirectory(table: table), access: access, attachments: Attachments(),
        registry: registry, report: { box.add($0) }),
      finished: FinishedJobs(waker: transport.waker))
    self.box = box
  }

  final class EventBox: Sendable {
    let events = Mutex<[RNBDEvent]>([])
    func add(_ event: RNBDEvent) { events.withLock { $0.append(event) } }
  }
  let box: EventBox
  var reports: [RNBDEvent] { box.events.withLock { $0 } }

  /// Runs the engine until it is so; records an issue when it does not come to that.
  func settle(
    _ fact: @autoclosure () -> Bool = true, _ location: SourceLocation = #_sourceLocation
  ) {
    let deadline = Deadline.milliseconds(5000)
    repeat {
      _ = engine.step()
      if fact(), transport.events.isEmpty { return }
      pause(milliseconds: 1)
    } while !deadline.hasPassed
    Issue.record("it did not come to that", sourceLocation: location)
  }

  func connection(from client: ByteString) -> Int {
    connectionCount += 1
    transport.ends[connectionCount] = ConnectionEnds(
      client: client, server: "10.9.0.1", device: "rxe0", deviceIdentity: 1)
    return connectionCount
  }
}

/// One path of a client's, with two connections.
final class PlayedClient {
  let server: PlayedServer
  let service: Int
  let io: Int
  let request: ConnectionRequest

  init(
    _ server: PlayedServer, session: UInt64, path: UInt64 = 1, attempt: UInt16 = 1,
    from client: ByteString = "10.9.0.2"
  ) {
    self.server = server
    service = server.connection(from: client)
    io = server.connection(from: client)
    request = ConnectionRequest(
      connection: 0, connectionCount: 2, attempt: attempt,
      path: RTRSUUID(high: session, low: path), session: RTRSUUID(high: session, low: session))
    for (number, connection) in [service, io].enumerated() {
      var one = request
      one.connection = UInt16(number)
      server.transport.events.append(.request(connection: connection, privateData: one.encoded))
    }
  }

  func introduce(_ name: ByteString) throws {
    let message = PathInformationRequest(name: try SessionName(name)).encoded
    server.transport.events.append(.message(connection: service, bytes: message))
  }

  var isUp: Bool { server.transport.informed.contains(service) }
  var isClosed: Bool {
    server.transport.accepted[service].map { server.transport.closedPaths.contains($0) } ?? true
  }

  /// Memory of its session.
  var memory: PlayedMemory? {
    guard let place = server.engine.places[service] else { return nil }
    return server.engine.sessions[place.session]?.memories.first?.memory
  }

  /// Sends a message as Linux's client would.
  func send(
    _ message: [UInt8], chunk: UInt16 = 0, data: [UInt8]? = nil, room: UInt32 = 0,
    userByteCount: UInt16? = nil
  ) {
    let geometry = server.engine.geometry
    let dataByteCount = data.map { UInt32($0.count) } ?? room
    let user = userByteCount ?? UInt16(message.count)
    let tail: RequestMessage
    if data != nil {
      tail = .write(userByteCount: user)
    } else {
      let region = RegionDescriptor(address: 0x9000, key: 5, length: room)
      tail = .read(
        userByteCount: user, destination: room > 0 ? region : nil, wantsInvalidation: room > 0)
    }
    memory?.put(
      (data ?? [UInt8](repeating: 0, count: Int(room))) + message + tail.encoded,
      at: Int(chunk) * Int(geometry.chunkByteCount))
    let payload = geometry.payload(
      chunk: chunk, offset: dataByteCount + UInt32(message.count))
    server.transport.events.append(
      .received(connection: io, immediate: Immediate.request(payload: payload).rawValue))
  }

  /// And waits for the answer.
  func ask(
    _ message: [UInt8], chunk: UInt16 = 0, data: [UInt8]? = nil, room: UInt32 = 0,
    userByteCount: UInt16? = nil, _ location: SourceLocation = #_sourceLocation
  ) -> (error: PeerErrno, data: [UInt8])? {
    let count = server.transport.answers.count
    send(message, chunk: chunk, data: data, room: room, userByteCount: userByteCount)
    server.settle(server.transport.answers.count > count || isClosed, location)
    guard server.transport.answers.count > count else { return nil }
    let answer = server.transport.answers[count]
    #expect(answer.connection == io && answer.response.chunk == UInt32(chunk))
    return (answer.response.error, answer.data)
  }

  func open(
    _ name: ByteString, _ mode: RNBDProtocol.AccessMode
  ) throws -> (error: PeerErrno, device: OpenAnswer?) {
    let request = OpenRequest(try DeviceName(name), mode)
    guard let answer = ask(request.encoded, room: UInt32(OpenAnswer.byteCount)) else {
      return (.io, nil)
    }
    return (answer.error, try? OpenAnswer(decoding: answer.data.span))
  }

  func io(
    _ operation: IOOperation, device: UInt32 = 0, sector: UInt64 = 0, byteCount: UInt32,
    data: [UInt8]? = nil, room: UInt32 = 0, chunk: UInt16 = 0,
    _ location: SourceLocation = #_sourceLocation
  ) -> (error: PeerErrno, data: [UInt8])? {
    let request = IORequest(
      device: device, sector: sector, operation: operation, dataByteCount: byteCount)
    return ask(request.encoded, chunk: chunk, data: data, room: room, location)
  }
}

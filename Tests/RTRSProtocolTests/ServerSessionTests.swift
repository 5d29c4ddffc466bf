// SPDX-License-Identifier: Apache-2.0
// A server's session against clients that the test plays, honest ones and others.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

/// A session, and a client's side of it. A class, so that expectations can call what changes it.
final class PlayedServer {
  static let uuid = RTRSUUID(high: 1, low: 2)
  static let name = try! SessionName("board")
  var session: ServerSession
  var now: UInt64 = 1_000_000_000
  /// What the paths were torn down for.
  var losses: [ServerPathLoss] = []
  var heartbeatCount = 0

  init(limits: ServerLimits = ServerLimits()) {
    session = ServerSession(
      uuid: Self.uuid,
      geometry: try! ChunkGeometry(
        queueDepth: 4, dataByteCountMaximum: 4096, headerByteCountMaximum: 4096), limits: limits)
  }

  func admit(
    path: UInt64 = 1, connection: UInt16 = 0, of count: UInt16 = 2, attempt: UInt16 = 1,
    mayCreate: Bool = true
  ) -> Admission {
    session.admit(
      ConnectionRequest(
        connection: connection, connectionCount: count, attempt: attempt,
        path: RTRSUUID(high: 9, low: path), session: Self.uuid, mayCreateSession: mayCreate),
      at: now)
  }

  /// Does what the machine asks for.
  func play(_ path: Int) -> [ServerPathAction] {
    var actions: [ServerPathAction] = []
    while let action = session.next(path, at: now) {
      actions.append(action)
      switch action {
      case .sendInformation: break
      case .sendHeartbeat: heartbeatCount += 1
      case .tearDown(let loss):
        losses.append(loss)
        session.tornDown(path)
      }
    }
    return actions
  }

  func inform(_ path: Int, _ bytes: [UInt8]) -> SessionName? {
    session.informed(path, bytes.span)
  }
  func inform(_ path: Int, name: SessionName = PlayedServer.name) -> SessionName? {
    inform(path, PathInformationRequest(name: name).encoded)
  }

  /// A connected path of an honest client.
  func bringUp(_ uuid: UInt64 = 1, attempt: UInt16 = 1) throws -> Int {
    guard case .accept(let token) = admit(path: uuid, attempt: attempt) else {
      throw BringUpError()
    }
    for path in 0..<session.pathCountMaximum where path != token.index { _ = play(path) }
    _ = admit(path: uuid, connection: 1, attempt: attempt)
    guard let name = inform(token.index) else { throw BringUpError() }
    session.accept(token.index, name: name, at: now)
    _ = play(token.index)
    return token.index
  }
  struct BringUpError: Error {}

  func receive(
    _ path: Int, connection: UInt16 = 1, _ immediate: Immediate, _ message: [UInt8] = []
  ) -> ServerReceipt {
    session.received(
      path, connection: connection, immediate: immediate.rawValue, message: message.span)
  }

  /// A request whose message lies at `offset` of a chunk.
  func request(
    _ path: Int, chunk: UInt16 = 0, offset: UInt32, _ message: RequestMessage
  ) -> ServerReceipt {
    receive(
      path,
      .request(payload: session.geometry.payload(chunk: chunk, offset: offset)),
      message.encoded)
  }

  func write(_ path: Int, chunk: UInt16) -> ServerReceipt {
    request(path, chunk: chunk, offset: 4096 + 32, .write(userByteCount: 32))
  }

  func finish(_ chunk: UInt16, _ error: PeerErrno = .success) -> (
    answer: ServerAnswer?, next: ServerRequest?
  ) {
    session.finish(chunk, error: error)
  }

  var isQuiet: Bool { session.isQuiet }
}

@Suite("A server's path")
struct ServerPathTests {
  @Test("connects in any order, and is there with the name")
  func order() {
    let server = PlayedServer()
    guard case .accept(let token) = server.admit(connection: 2, of: 3) else {
      Issue.record("not admitted")
      return
    }
    for connection: UInt16 in [0, 1] {
      #expect(server.admit(connection: connection, of: 3) == .accept(token))
    }
    #expect(server.inform(token.index) == PlayedServer.name)
    #expect(server.play(token.index) == [])
    server.session.accept(token.index, name: PlayedServer.name, at: server.now)
    #expect(server.play(token.index) == [.sendInformation])
    #expect(server.session.connectedPathCount == 1)
    #expect(server.session.name == PlayedServer.name)
  }

  @Test("does not take a connection twice, or of another count, or too many")
  func refusals() {
    var limits = ServerLimits()
    limits.pathCountMaximum = 2
    limits.connectionCountMaximum = 8
    let server = PlayedServer(limits: limits)
    guard case .accept = server.admit() else { return }
    #expect(server.admit() == .reject(.connectionReset))
    #expect(server.admit(connection: 1, of: 3) == .reject(.connectionReset))
    #expect(server.admit(path: 2, of: 9) == .reject(.outOfMemory))
    #expect(server.admit(path: 2, connection: 1, mayCreate: false) == .reject(.connectionReset))
    guard case .accept = server.admit(path: 2, of: 8, mayCreate: false) else {
      Issue.record("the second path was refused")
      return
    }
    #expect(server.admit(path: 3) == .reject(.connectionReset))
  }

  @Test("that the client begins anew takes the place of the old one, which ends")
  func replacement() throws {
    let server = PlayedServer()
    let old = try server.bringUp()
    guard case .accept(let token) = server.admit(attempt: 2) else {
      Issue.record("not admitted")
      return
    }
    #expect(token.index != old)
    #expect(server.play(old) == [.tearDown(.replaced)])
    #expect(server.session.livePathCount == 1)
    // Half-way through connecting, too.
    guard case .accept(let next) = server.admit(attempt: 3) else {
      Issue.record("not admitted")
      return
    }
    #expect(next != token)
    #expect(server.play(token.index) == [.tearDown(.replaced)])
    // A connection that the old one did not have yet is none of its, if it comes of a new attempt.
    guard case .accept(let last) = server.admit(connection: 1, attempt: 4) else {
      Issue.record("not admitted")
      return
    }
    #expect(last != next)
    #expect(server.play(next.index) == [.tearDown(.replaced)])
  }

  @Test("ends when it is not connected in time, or falls silent")
  func timeouts() throws {
    let server = PlayedServer()
    guard case .accept(let token) = server.admit() else { return }
    #expect(server.session.wakeNanoseconds == server.now + 30_000_000_000)
    server.now = server.session.wakeNanoseconds
    #expect(server.play(token.index) == [.tearDown(.timedOut)])
    #expect(server.isQuiet)
    #expect(server.session.wakeNanoseconds == .max)

    let path = try server.bringUp()
    let start = server.now
    while server.session.isConnected(path) {
      server.now = server.session.wakeNanoseconds
      _ = server.play(path)
    }
    #expect(server.losses == [.timedOut, .silent])
    #expect(server.heartbeatCount == 1)
    #expect(server.now - start == 35_000_000_000)
  }

  @Test("stays while the client answers, or asks, or sends requests")
  func liveliness() throws {
    for immediate in [
      Immediate.heartbeat, .heartbeatAcknowledgement, .unknown(0x7000_0000),
      .response(ChunkResponse(chunk: 0, error: .success, isInvalidated: false)),
    ] {
      let server = PlayedServer()
      let path = try server.bringUp()
      for _ in 0..<20 {
        server.now += 5_000_000_000
        #expect(
          server.receive(path, connection: 0, immediate)
            == (immediate == .heartbeat ? .acknowledge : .nothing))
        _ = server.play(path)
      }
      #expect(server.session.isConnected(path))
      #expect(server.heartbeatCount == 20)
    }
  }

  @Test("ends when the client speaks out of turn")
  func outOfTurn() throws {
    // Before all connections are there.
    var server = PlayedServer()
    guard case .accept(let early) = server.admit() else { return }
    #expect(server.inform(early.index) == nil)
    #expect(server.play(early.index) == [.tearDown(.outOfTurn)])
    // A request before the information, and before its answer.
    server = PlayedServer()
    guard case .accept(let token) = server.admit(of: 1) else { return }
    #expect(server.write(token.index, chunk: 0) == .pathLost)
    #expect(server.play(token.index) == [.tearDown(.outOfTurn)])
    // A second name.
    server = PlayedServer()
    let path = try server.bringUp()
    #expect(server.inform(path) == nil)
    #expect(server.play(path) == [.tearDown(.unexpectedMessage(byteCount: 272))])
    // Another name than the first path's.
    server = PlayedServer()
    _ = try server.bringUp(1)
    guard case .accept(let second) = server.admit(path: 2, of: 1) else { return }
    let other = try SessionName("other")
    #expect(server.inform(second.index, name: other) == nil)
    #expect(server.play(second.index) == [.tearDown(.nameTaken(other))])
    // No name at all.
    server = PlayedServer()
    guard case .accept(let third) = server.admit(of: 1) else { return }
    #expect(server.inform(third.index, [UInt8](repeating: 0, count: 272)) == nil)
    #expect(
      server.play(third.index)
        == [.tearDown(.malformed(.value(field: "length of the session name", actual: 0)))])
  }

  @Test("can be closed with all others")
  func close() throws {
    let server = PlayedServer()
    let first = try server.bringUp(1)
    let second = try server.bringUp(2)
    guard case .begin = server.write(first, chunk: 0) else { return }
    server.session.close(.takenOver)
    #expect(
      server.play(first) + server.play(second) == [.tearDown(.takenOver), .tearDown(.takenOver)])
    // A write is still being executed: whoever takes over has to wait for it.
    #expect(!server.isQuiet)
    #expect(server.finish(0).answer == nil)
    #expect(server.isQuiet)
  }
}

@Suite("The sessions of a server")
struct SessionRegistryTests {
  static func request(_ session: UInt64, mayCreate: Bool = true) -> ConnectionRequest {
    ConnectionRequest(
      connection: 0, connectionCount: 1, attempt: 1, path: RTRSUUID(high: 0, low: 0),
      session: RTRSUUID(high: 7, low: session), mayCreateSession: mayCreate)
  }

  @Test("are found by what the client calls them, and made when it may")
  func sessions() throws {
    var registry = SessionRegistry(sessionCountMaximum: 2)
    #expect(throws: PeerErrno.noSuchAddress) {
      try registry.session(for: Self.request(1, mayCreate: false))
    }
    let first = try registry.session(for: Self.request(1))
    #expect(first.isNew)
    let again = try registry.session(for: Self.request(1, mayCreate: false))
    #expect(again == (first.number, false))
    let second = try registry.session(for: Self.request(2))
    #expect(second.isNew && second.number != first.number)
    #expect(throws: PeerErrno.outOfMemory) { try registry.session(for: Self.request(3)) }
    registry.remove(first.number)
    let third = try registry.session(for: Self.request(3))
    #expect(third == (first.number, true))
    #expect(registry.find(RTRSUUID(high: 7, low: 1)) == nil)
  }

  @Test("have names of their own")
  func names() throws {
    var registry = SessionRegistry(sessionCountMaximum: 2)
    let first = try registry.session(for: Self.request(1)).number
    let second = try registry.session(for: Self.request(2)).number
    let name = try SessionName("board")
    let granted = [registry.name(first, name), registry.name(first, name)]
    #expect(granted == [.granted, .granted])
    let refused = registry.name(second, name)
    #expect(refused == .taken(by: first))
    registry.remove(first)
    let afterwards = registry.name(second, name)
    #expect(afterwards == .granted)
  }
}

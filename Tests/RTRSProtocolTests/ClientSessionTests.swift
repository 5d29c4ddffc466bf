// SPDX-License-Identifier: Apache-2.0
// A client's session against a server that the test plays: what is sent in which order, where
// requests go, and where they stay when paths come and go.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

/// A session and the server's side of it. A class, so that expectations can call what changes it.
final class PlayedClient {
  static let uuid = RTRSUUID(high: 1, low: 2)
  static let interval = Heartbeat.Limits.brisk.intervalNanoseconds
  var session: ClientSession
  var now: UInt64 = 1_000_000_000
  var flags: ServerFlags = []
  var geometry = try! ChunkGeometry(
    queueDepth: 4, dataByteCountMaximum: 126_976, headerByteCountMaximum: 4096)
  /// What the paths were torn down for.
  var losses: [PathLoss] = []
  var heartbeatCount = 0

  init(
    paths: Int = 1, connections: UInt16 = 2, requests: UInt16 = 8,
    policy: PathPolicy = .minInFlight, limits: ClientLimits = ClientLimits()
  ) {
    session = ClientSession(
      uuid: Self.uuid, name: try! SessionName("board"),
      paths: (0..<paths).map { RTRSUUID(high: 9, low: UInt64($0)) }, connectionCount: connections,
      requestCount: requests, policy: policy, limits: limits, at: now)
  }

  /// Where a path's chunks are: each path has others, under other keys.
  func address(_ path: Int, _ chunk: UInt64) -> UInt64 {
    UInt64(path + 1) << 40 + chunk * UInt64(geometry.chunkByteCount)
  }

  func information(_ path: Int) -> [UInt8] {
    PathInformationAnswer(
      regions: [
        RegionDescriptor(
          address: address(path, 0), key: UInt32(100 + path),
          length: UInt32(geometry.totalByteCount))
      ]
    ).encoded
  }

  func next(_ path: Int, after nanoseconds: UInt64 = 0) -> PathAction? {
    session.next(path, at: now + nanoseconds)
  }
  func tearDown(_ path: Int) -> Int { session.tornDown(path, random: 0, at: now) }
  func abandon(_ request: UInt16) -> Bool { session.abandon(request) }

  /// Does what the machine asks for, as a server that accepts everything.
  func play(_ path: Int) -> [PathAction] {
    var actions: [PathAction] = []
    while let action = session.next(path, at: now) {
      actions.append(action)
      switch action {
      case .connect(let request):
        session.established(
          path, connection: request.connection,
          answer: ConnectionAnswer(accepting: geometry, flags: flags).encoded.span)
      case .sendInformation: session.informed(path, information(path).span, at: now)
      case .postReceives: break
      case .sendHeartbeat: heartbeatCount += 1
      case .tearDown(let loss):
        losses.append(loss)
        session.tornDown(path, random: 0, at: now)
      }
    }
    return actions
  }

  func bringUp() {
    for path in 0..<session.pathCount { _ = play(path) }
    session.resume()
  }

  func accept(_ request: UInt16, _ direction: RequestDirection = .toServer) {
    session.accept(request, direction, dataByteCount: 4096, userByteCount: 32)
  }

  func postings() -> [Posting] {
    var postings: [Posting] = []
    while let posting = session.nextPosting() { postings.append(posting) }
    return postings
  }

  func chunk(of posting: Posting) -> UInt16 {
    geometry.place(of: posting.immediate)!.chunk
  }

  func answer(
    _ posting: Posting, error: PeerErrno = .success, key: UInt32? = nil
  ) -> Receipt {
    let response = ChunkResponse(
      chunk: UInt32(chunk(of: posting)), error: error, isInvalidated: false)
    let bytes = key.map { KeyMessage(chunk: chunk(of: posting), key: $0).encoded } ?? []
    return session.received(
      posting.path, connection: posting.connection,
      immediate: Immediate.response(response).rawValue, bytes: bytes.span, at: now)
  }

  func receive(_ path: Int, _ immediate: Immediate) -> Receipt {
    session.received(
      path, connection: 0, immediate: immediate.rawValue, bytes: [UInt8]().span, at: now)
  }
}

@Suite("A client's path")
struct ClientPathTests {
  @Test("connects one after another, tells the name, and posts its receives first")
  func order() {
    let client = PlayedClient(connections: 3)
    let path = RTRSUUID(high: 9, low: 0)
    func request(_ connection: UInt16) -> PathAction {
      .connect(
        ConnectionRequest(
          connection: connection, connectionCount: 3, attempt: 1, path: path,
          session: PlayedClient.uuid, mayCreateSession: connection == 0))
    }
    #expect(
      client.play(0) == [request(0), request(1), request(2), .sendInformation, .postReceives])
    #expect(client.session.isConnected(0))
    #expect(client.session.generation == 1)
    #expect(client.session.ioDepth == 3)
  }

  @Test("waits for each connection before it asks for the next")
  func strictOrder() {
    let client = PlayedClient()
    guard case .connect = client.next(0) else {
      Issue.record("no connection was asked for")
      return
    }
    #expect(client.next(0) == nil)
    // An answer for another connection means nothing.
    let answer = ConnectionAnswer(accepting: client.geometry, flags: []).encoded
    client.session.established(0, connection: 1, answer: answer.span)
    #expect(client.next(0) == nil)
    client.session.established(0, connection: 0, answer: answer.span)
    guard case .connect(let second) = client.next(0) else {
      Issue.record("the second connection was not asked for")
      return
    }
    #expect(second.connection == 1)
  }

  @Test("is given up when it takes too long, and tried again, later each time")
  func timeout() {
    let client = PlayedClient()
    for (attempt, pause) in [(UInt16(1), UInt64(250)), (2, 500), (3, 1000), (4, 2000), (5, 4000)] {
      guard case .connect(let request) = client.next(0) else {
        Issue.record("attempt \(attempt) did not begin")
        return
      }
      #expect(request.attempt == (attempt == 1 ? 1 : attempt | 0x8000))
      #expect(!request.isReturning)
      #expect(client.session.wakeNanoseconds == client.now + 10_000_000_000)
      client.now += 9_999_999_999
      #expect(client.next(0) == nil)
      client.now += 1
      #expect(client.next(0) == .tearDown(.timedOut))
      #expect(client.next(0) == nil)
      client.session.tornDown(0, random: 0, at: client.now)
      #expect(client.session.wakeNanoseconds == client.now + pause * 1_000_000)
      #expect(client.next(0) == nil)
      client.now = client.session.wakeNanoseconds
    }
  }

  /// Each ends the attempt with a reason that says what to do.
  static let badAnswers: [(String, [UInt8], PathLoss)] = [
    ("nothing", [], .malformed(.byteCount(expected: 56, actual: 0))),
    (
      "an error", ConnectionAnswer(rejecting: .busy).encoded, .rejected(.busy)
    ),
    (
      "no depth", ConnectionAnswer(rejecting: .success).encoded,
      .malformed(.value(field: "queue depth", actual: 0))
    ),
    (
      "one chunk",
      ConnectionAnswer(
        accepting: try! ChunkGeometry(
          queueDepth: 1, dataByteCountMaximum: 4096, headerByteCountMaximum: 4096), flags: []
      ).encoded, .depthTooSmall(1)
    ),
    (
      "small headers",
      ConnectionAnswer(
        accepting: try! ChunkGeometry(
          queueDepth: 8, dataByteCountMaximum: 4096, headerByteCountMaximum: 287), flags: []
      ).encoded, .sizesTooSmall(data: 4096, header: 287)
    ),
  ]

  @Test("ends when the server's answer is", arguments: badAnswers)
  func badAnswer(name: String, answer: [UInt8], loss: PathLoss) {
    let client = PlayedClient()
    _ = client.next(0)
    client.session.established(0, connection: 0, answer: answer.span)
    #expect(client.next(0) == .tearDown(loss))
    #expect(!loss.report.reason.isEmpty && !loss.report.advice.isEmpty)
  }

  @Test("ends when it is rejected, with the server's errno if it has one")
  func rejection() {
    let client = PlayedClient()
    _ = client.next(0)
    client.session.rejected(
      0, reason: 28, answer: ConnectionAnswer(rejecting: .connectionReset).encoded.span)
    #expect(client.next(0) == .tearDown(.rejected(.connectionReset)))
    let other = PlayedClient()
    _ = other.next(0)
    other.session.rejected(0, reason: 8, answer: [UInt8]().span)
    #expect(other.next(0) == .tearDown(.rejectedByStranger(reason: 8)))
  }

  @Test("says that a disconnect in place of chunks is about the name")
  func disconnectAtInformation() {
    let client = PlayedClient(connections: 1)
    guard case .connect = client.next(0) else { return }
    let answer = ConnectionAnswer(accepting: client.geometry, flags: []).encoded
    client.session.established(0, connection: 0, answer: answer.span)
    #expect(client.next(0) == .sendInformation)
    client.session.lost(0, .disconnected)
    client.session.lost(0, .workRequestFailed(status: 12))  // What follows says nothing new.
    #expect(client.next(0) == .tearDown(.disconnectedAtInformation))
  }

  @Test("ends when the chunks make no sense")
  func badInformation() {
    let client = PlayedClient(connections: 1)
    _ = client.next(0)
    let answer = ConnectionAnswer(accepting: client.geometry, flags: []).encoded
    client.session.established(0, connection: 0, answer: answer.span)
    _ = client.next(0)
    client.session.informed(0, [UInt8](repeating: 0, count: 8).span, at: client.now)
    #expect(
      client.next(0)
        == .tearDown(.malformed(.value(field: "message type", actual: 0))))
    #expect(!client.session.isConnected(0))
  }

  @Test("comes back only with the depth that it had and with sizes that suffice")
  func changedGeometry() {
    let geometries: [(ChunkGeometry, PathLoss?)] = [
      (
        try! ChunkGeometry(
          queueDepth: 8, dataByteCountMaximum: 126_976, headerByteCountMaximum: 4096),
        .depthChanged(from: 4, to: 8)
      ),
      (
        try! ChunkGeometry(
          queueDepth: 4, dataByteCountMaximum: 126_975, headerByteCountMaximum: 4096),
        .sizesTooSmall(data: 126_975, header: 4096)
      ),
      (
        try! ChunkGeometry(
          queueDepth: 4, dataByteCountMaximum: 1 << 20, headerByteCountMaximum: 4096), nil
      ),
    ]
    for (geometry, loss) in geometries {
      let client = PlayedClient()
      client.bringUp()
      client.session.lost(0, .disconnected)
      _ = client.play(0)
      client.now = client.session.wakeNanoseconds
      client.geometry = geometry
      _ = client.play(0)
      #expect(client.losses.dropFirst().first == loss)
      #expect(client.session.isConnected(0) == (loss == nil))
    }
  }

  @Test("sends a heartbeat each interval, answers those of the server, and ends in silence")
  func heartbeat() {
    let client = PlayedClient()
    client.bringUp()
    for _ in 0..<10 {
      client.now += PlayedClient.interval
      _ = client.play(0)
      #expect(client.receive(0, .heartbeat) == .acknowledge)
      #expect(client.receive(0, .heartbeatAcknowledgement) == .nothing)
    }
    #expect(client.heartbeatCount == 10)
    for _ in 0..<7 {
      #expect(client.session.isConnected(0))
      client.now += PlayedClient.interval
      _ = client.play(0)
    }
    #expect(client.losses == [.silent])
    #expect(client.heartbeatCount == 11)
  }

  @Test("that was up is tried again soon, however long it took to come up")
  func shortPauseAgain() {
    let client = PlayedClient()
    for _ in 0..<5 {
      _ = client.next(0)
      client.session.lost(0, .timedOut)
      _ = client.play(0)
      client.now = client.session.wakeNanoseconds
    }
    _ = client.play(0)
    client.session.lost(0, .disconnected)
    _ = client.play(0)
    #expect(client.session.wakeNanoseconds == client.now + 250_000_000)
  }

  @Test("that is closed stays closed")
  func closed() {
    let client = PlayedClient()
    client.bringUp()
    client.session.lost(0, .closed)
    #expect(client.play(0) == [.tearDown(.closed)])
    client.now += 1 << 60
    #expect(client.play(0) == [])
    #expect(client.session.wakeNanoseconds == .max)
  }
}

@Suite("A client's session over several paths")
struct ClientPathsTests {
  @Test("is created by one path at a time, and joined by the others")
  func creation() {
    let client = PlayedClient(paths: 2)
    // The second waits until it is known where the first leads.
    #expect(client.next(1) == nil)
    guard case .connect(let first) = client.next(0) else { return }
    #expect(first.mayCreateSession)
    client.session.lost(0, .unreachable(errno: 113))
    _ = client.play(0)
    guard case .connect(let second) = client.next(1) else {
      Issue.record("the second path does not try")
      return
    }
    #expect(second.mayCreateSession)
    client.session.lost(1, .unreachable(errno: 113))
    _ = client.play(1)
    client.now = client.session.wakeNanoseconds
    _ = client.play(0)
    #expect(client.session.isConnected(0))
    guard case .connect(let joining) = client.next(1, after: 1_000_000_000)
    else {
      Issue.record("the second path does not join")
      return
    }
    #expect(!joining.mayCreateSession)
  }

  @Test("begins anew on any path that has led there before, when none is left")
  func recreation() {
    let client = PlayedClient(paths: 2)
    client.bringUp()
    #expect(client.session.generation == 1)
    client.session.lost(0, .disconnected)
    #expect(!client.session.isHeld)
    client.session.lost(1, .disconnected)
    #expect(client.session.isHeld)
    _ = client.play(0)
    _ = client.play(1)
    client.now = client.session.wakeNanoseconds
    guard case .connect(let request) = client.next(1) else { return }
    #expect(request.mayCreateSession && request.isReturning)
    client.session.lost(1, .timedOut)
    _ = client.play(1)
    _ = client.play(0)
    #expect(client.session.isConnected(0))
    #expect(client.session.generation == 2)
    #expect(client.session.isHeld)
  }

  @Test("takes paths in turn, or the one with the fewest requests, or the fastest")
  func policies() {
    var client = PlayedClient(paths: 3, policy: .roundRobin)
    client.bringUp()
    for request in UInt16(0)..<3 { client.accept(request) }
    #expect(Set(client.postings().map(\.path)) == [0, 1, 2])

    client = PlayedClient(paths: 2, policy: .minInFlight)
    client.bringUp()
    for request in UInt16(0)..<3 { client.accept(request) }
    let postings = client.postings()
    let crowded = postings[0].path
    #expect(postings.map(\.path) == [crowded, 1 - crowded, crowded])
    for posting in postings where posting.path == crowded { _ = client.answer(posting) }
    client.accept(3)
    #expect(client.postings().first?.path == crowded)

    client = PlayedClient(paths: 2, policy: .minLatency)
    client.bringUp()
    client.now += PlayedClient.interval
    _ = client.play(0)
    _ = client.play(1)
    client.now += 50
    _ = client.receive(1, .heartbeatAcknowledgement)
    client.now += 50
    _ = client.receive(0, .heartbeatAcknowledgement)
    #expect(client.session.latencyNanoseconds(of: 1) == 50)
    for request in UInt16(0)..<3 { client.accept(request) }
    #expect(client.postings().map(\.path) == [1, 1, 1])
  }

  @Test("sends again what was out on a lost path, in order, in the same chunk, not before time")
  func failover() {
    let client = PlayedClient(paths: 2)
    client.bringUp()
    for request in UInt16(0)..<4 { client.accept(request, .toClient) }
    let before = client.postings()
    #expect(before.count == 3)
    #expect(before.allSatisfy { !$0.isRepeated })
    let lostPath = before[0].path
    let out = before.filter { $0.path == lostPath }
    #expect(out.count == 2)
    client.session.lost(lostPath, .workRequestFailed(status: 12))
    // The queue pairs still exist: the server may write into the buffers.
    #expect(client.postings().isEmpty)
    #expect(!client.abandon(out[0].request))
    // What comes late on the lost path is no answer.
    #expect(client.answer(out[0]) == .nothing)
    #expect(client.next(lostPath) != nil)
    #expect(client.tearDown(lostPath) == 2)
    let after = client.postings()
    #expect(after.map(\.request) == out.map(\.request))
    #expect(after.map { client.chunk(of: $0) } == out.map { client.chunk(of: $0) })
    for posting in after {
      #expect(posting.isRepeated && posting.path == 1 - lostPath)
      #expect(posting.key == UInt32(100 + posting.path))
      #expect(
        posting.address == client.address(posting.path, UInt64(client.chunk(of: posting))) + 4096)
      #expect(client.answer(posting) == .completed(request: posting.request, error: .success))
    }
    #expect(client.postings().map(\.request) == [3])
  }

  @Test("keeps its requests while no path is left, and sends them when the devices are open")
  func totalLoss() {
    let client = PlayedClient(paths: 2)
    client.bringUp()
    for request in UInt16(0)..<5 { client.accept(request) }
    let before = client.postings()
    client.session.lost(0, .silent)
    client.session.lost(1, .silent)
    client.accept(5)
    _ = client.play(0)
    _ = client.play(1)
    #expect(client.postings().isEmpty)
    client.now = client.session.wakeNanoseconds
    _ = client.play(0)
    #expect(client.postings().isEmpty)
    // Every chunk but one is held by what was out; that one opens the devices.
    client.session.accept(
      client.session.controlRequest, .toClient, dataByteCount: 56, userByteCount: 264)
    let control = client.postings()
    #expect(control.map(\.request) == [client.session.controlRequest])
    #expect(control[0].connection == 0)
    #expect(client.chunk(of: control[0]) == 3)
    #expect(
      client.answer(control[0])
        == .completed(request: client.session.controlRequest, error: .success))
    client.session.resume()
    // Each path's in their order; the paths were torn down one after the other.
    let after = client.postings().sorted { $0.request < $1.request }
    #expect(after.map(\.request) == before.map(\.request))
    #expect(after.map { client.chunk(of: $0) } == before.map { client.chunk(of: $0) })
  }

  @Test("gives up what waits, and only that")
  func abandon() {
    let client = PlayedClient()
    client.bringUp()
    for request in UInt16(0)..<6 { client.accept(request) }
    let out = client.postings()
    #expect(out.map(\.request) == [0, 1, 2])
    #expect(!client.abandon(0))
    #expect(client.abandon(4))
    #expect(client.abandon(5))
    #expect(!client.abandon(5))
    #expect(client.session.outstandingCount == 4)
    _ = client.answer(out[1])
    #expect(client.postings().map(\.request) == [3])
    client.accept(4)
    _ = client.answer(out[0])
    #expect(client.postings().map(\.request) == [4])
  }
}

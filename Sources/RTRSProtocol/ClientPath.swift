// SPDX-License-Identifier: Apache-2.0
// One path of a client, from nothing to connected and back.
//
//            due                  each connection in turn         all there
//   absent ───────► connecting(0) ───► connecting(n) ───► ... ───► informing
//      ▲                │                   │                          │ the chunks' places
//      │ torn down      ▼                   ▼                          ▼
//   ending ◄──────── a loss ◄──────────── a loss ◄──────────────── connected
//
// In `ending` the connections still exist. Until the driver has destroyed each queue pair the
// server may write into the buffers of what was being read, so nothing that was out on the path
// goes anywhere else before `tornDown`.

import WireFormat

/// What the driver of a path has to do next.
public enum PathAction: Equatable, Sendable {
  /// Create this connection and ask for it; the one before it is established.
  case connect(ConnectionRequest)
  /// All connections are there: post a receive for the longest answer on connection 0, and send
  /// the information request.
  case sendInformation
  /// Requests may be posted from now on, and receives must be: before anything else.
  case postReceives
  /// On connection 0, as an empty RDMA-WRITE-WITH-IMM.
  case sendHeartbeat
  /// Disconnect and destroy every connection, then say `tornDown`.
  case tearDown(PathLoss)
}

/// One path of a `ClientSession`, which alone changes it; see the head of this file.
public struct ClientPath: Sendable {
  enum State: Equatable {
    case absent(due: UInt64)
    case connecting(UInt16, isAsked: Bool)
    case informing(isSent: Bool)
    case connected(isTold: Bool)
    case ending(PathLoss, isTold: Bool)
    case closed
  }

  /// Over all reconnections of the path.
  public let uuid: RTRSUUID
  let connectionCount: UInt16
  var state: State
  var table = ChunkTable(queueDepth: 0)
  var geometry: ChunkGeometry?
  /// It has led to the session's server before.
  var isProven = false
  private(set) var flags: ServerFlags = []
  private var heartbeat: Heartbeat
  private let heartbeatLimits: Heartbeat.Limits
  private var backoff = ReconnectBackoff()
  private var attempt: UInt16 = 0
  private var isReturning = false
  private var mayCreateSession = false
  private(set) var deadlineNanoseconds: UInt64 = 0
  /// Out on the path.
  var inFlightCount = 0
  var nextConnection: UInt16 = 1

  init(
    uuid: RTRSUUID, connectionCount: UInt16, heartbeat: Heartbeat.Limits, at nanoseconds: UInt64
  ) {
    self.uuid = uuid
    self.connectionCount = connectionCount
    heartbeatLimits = heartbeat
    self.heartbeat = Heartbeat(heartbeat, at: nanoseconds)
    state = .absent(due: nanoseconds)
  }

  /// Requests may be posted.
  public var isConnected: Bool { if case .connected = state { true } else { false } }
  var isEstablishing: Bool {
    switch state {
    case .connecting, .informing: true
    default: false
    }
  }
  /// From the last heartbeat to its acknowledgement; 0 until there was one.
  public var latencyNanoseconds: UInt64 { heartbeat.latencyNanoseconds }

  /// When `next` has something to do at the latest; nil: not before an event.
  var wakeNanoseconds: UInt64? {
    switch state {
    case .absent(let due): due
    case .connecting, .informing: deadlineNanoseconds
    case .connected: heartbeat.tickNanoseconds
    case .ending, .closed: nil
    }
  }

  /// `isReturning`: the session has been connected before.
  mutating func begin(mayCreateSession: Bool, isReturning: Bool, deadlineNanoseconds: UInt64) {
    attempt &+= 1
    self.isReturning = isReturning
    self.mayCreateSession = mayCreateSession
    self.deadlineNanoseconds = deadlineNanoseconds
    state = .connecting(0, isAsked: false)
  }

  /// Nil when there is nothing to do now.
  mutating func next(session: RTRSUUID, at nanoseconds: UInt64) -> PathAction? {
    if isEstablishing, nanoseconds >= deadlineNanoseconds { lose(.timedOut) }
    switch state {
    case .connecting(let connection, isAsked: false):
      state = .connecting(connection, isAsked: true)
      return .connect(
        ConnectionRequest(
          connection: connection, connectionCount: connectionCount,
          attempt: ConnectionRequest.number(ofAttempt: attempt, isReturning: isReturning),
          path: uuid,
          session: session, mayCreateSession: mayCreateSession && connection == 0))
    case .informing(isSent: false):
      state = .informing(isSent: true)
      return .sendInformation
    case .connected(isTold: false):
      state = .connected(isTold: true)
      return .postReceives
    case .connected(isTold: true):
      switch heartbeat.tick(at: nanoseconds) {
      case .wait: return nil
      case .sendHeartbeat: return .sendHeartbeat
      case .endPath:
        lose(.silent)
        return next(session: session, at: nanoseconds)
      }
    case .ending(let loss, isTold: false):
      state = .ending(loss, isTold: true)
      return .tearDown(loss)
    default: return nil
    }
  }

  /// Connection `number` is there; `answer` is what the server said with it. True when it is the
  /// first one: `geometry` is new.
  mutating func established(_ number: UInt16, answer: Span<UInt8>) -> Bool {
    guard state == .connecting(number, isAsked: true) else { return false }
    do {
      let answer = try ConnectionAnswer(decoding: answer)
      guard answer.error == .success else {
        lose(.rejected(answer.error))
        return false
      }
      if number == 0 {
        geometry = try ChunkGeometry(answer)
        flags = answer.flags
      }
    } catch {
      lose(.malformed(error))
      return false
    }
    state =
      number + 1 < connectionCount
      ? .connecting(number + 1, isAsked: false) : .informing(isSent: false)
    return number == 0
  }

  /// The server's answer to the information request, all that was received.
  mutating func informed(_ answer: Span<UInt8>, at nanoseconds: UInt64) {
    guard state == .informing(isSent: true), let geometry else {
      return lose(.unexpectedMessage(byteCount: answer.count))
    }
    do throws(WireError) { try table.load(answer, geometry: geometry) } catch {
      return lose(.malformed(error))
    }
    state = .connected(isTold: false)
    heartbeat = Heartbeat(heartbeatLimits, at: nanoseconds)
    backoff.reset()
    isProven = true
    nextConnection = 1
  }

  mutating func heard() { heartbeat.heard() }
  mutating func acknowledged(at nanoseconds: UInt64) { heartbeat.acknowledged(at: nanoseconds) }

  mutating func lose(_ loss: PathLoss) {
    switch state {
    case .ending, .closed: return
    case .absent: state = loss == .closed ? .closed : state
    case .informing where loss == .disconnected:
      state = .ending(.disconnectedAtInformation, isTold: false)
    default: state = .ending(loss, isTold: false)
    }
  }

  /// No queue pair of the path is left.
  mutating func tornDown(random: UInt64, at nanoseconds: UInt64) {
    guard case .ending(let loss, _) = state else { return }
    state =
      loss == .closed ? .closed : .absent(due: nanoseconds &+ backoff.pause(random: random))
  }
}

// SPDX-License-Identifier: Apache-2.0
// One path of a session, as the server has it.
//
//     vacant ──admit──► connecting ──information──► naming ──accept──► connected
//        ▲                  │                         │                    │
//        │ torn down        ▼                         ▼                    ▼
//        └─────────────── ending ◄──────────────── a loss ◄──────────── a loss

import WireFormat

/// A path slot and who has it: slots are used again, and what was begun for one path must not be
/// answered on the next.
public struct ServerPathToken: Equatable, Sendable {
  /// Of the session's slots.
  public var index: Int
  /// Grows each time that the slot is taken.
  public var generation: UInt32

  public init(index: Int, generation: UInt32) {
    self.index = index
    self.generation = generation
  }
}

/// What the driver of a path has to do next.
public enum ServerPathAction: Equatable, Sendable {
  /// Post the receives for requests on every connection, then send the answer to the information
  /// request. Only then may the client post.
  case sendInformation
  /// On connection 0, as an empty RDMA-WRITE-WITH-IMM.
  case sendHeartbeat
  /// Disconnect and destroy every connection, then say `tornDown`.
  case tearDown(ServerPathLoss)
}

struct ServerPath: Sendable {
  enum State: Equatable {
    case vacant
    case connecting
    case naming
    case connected(isTold: Bool)
    case ending(ServerPathLoss, isTold: Bool)
  }

  var state = State.vacant
  var generation: UInt32 = 0
  private(set) var uuid = RTRSUUID(high: 0, low: 0)
  private(set) var attempt: UInt16 = 0
  private(set) var connectionCount: UInt16 = 0
  private var connections: [Bool] = []
  private var admittedCount: UInt16 = 0
  private(set) var deadlineNanoseconds: UInt64 = 0
  private var heartbeat = Heartbeat(.linux, at: 0)

  /// It is there, and has not ended.
  var isLive: Bool {
    switch state {
    case .vacant, .ending: false
    default: true
    }
  }
  var isConnected: Bool { if case .connected = state { true } else { false } }

  var wakeNanoseconds: UInt64? {
    switch state {
    case .connecting, .naming: deadlineNanoseconds
    case .connected: heartbeat.tickNanoseconds
    case .vacant, .ending: nil
    }
  }

  mutating func begin(_ request: ConnectionRequest, deadlineNanoseconds: UInt64) {
    generation &+= 1
    uuid = request.path
    attempt = request.attempt
    connectionCount = request.connectionCount
    connections = [Bool](repeating: false, count: Int(request.connectionCount))
    connections[Int(request.connection)] = true
    admittedCount = 1
    self.deadlineNanoseconds = deadlineNanoseconds
    state = .connecting
  }

  /// Whether the request is for a connection of this path that is not there yet.
  mutating func join(_ request: ConnectionRequest) -> Bool {
    guard state == .connecting, request.attempt == attempt,
      request.connectionCount == connectionCount, !connections[Int(request.connection)]
    else { return false }
    connections[Int(request.connection)] = true
    admittedCount += 1
    return true
  }

  /// Every connection was asked for. Not that every one is established: of that we may hear later
  /// than of the client's first message, because the two come by different ways.
  var isComplete: Bool { admittedCount == connectionCount }

  mutating func accept(_ limits: Heartbeat.Limits, at nanoseconds: UInt64) {
    guard state == .naming else { return }
    heartbeat = Heartbeat(limits, at: nanoseconds)
    state = .connected(isTold: false)
  }

  mutating func next(at nanoseconds: UInt64) -> ServerPathAction? {
    switch state {
    case .connecting, .naming:
      guard nanoseconds >= deadlineNanoseconds else { return nil }
      lose(.timedOut)
      return next(at: nanoseconds)
    case .connected(isTold: false):
      state = .connected(isTold: true)
      return .sendInformation
    case .connected:
      switch heartbeat.tick(at: nanoseconds) {
      case .wait: return nil
      case .sendHeartbeat: return .sendHeartbeat
      case .endPath:
        lose(.silent)
        return next(at: nanoseconds)
      }
    case .ending(let loss, isTold: false):
      state = .ending(loss, isTold: true)
      return .tearDown(loss)
    case .ending, .vacant: return nil
    }
  }

  mutating func heard() { heartbeat.heard() }

  mutating func lose(_ loss: ServerPathLoss) {
    if isLive { state = .ending(loss, isTold: false) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// A client's session: its paths, and its requests over them. Nothing here touches a queue pair or
// a clock; from the first connection on nothing allocates.
//
//   requests ─accept─► waiting ─nextPosting─► one of the connected paths ─received─► completed
//                         ▲                                │
//                         └──── tornDown ◄── next: tearDown┘ lost
//
// The driver's loop: take completions and events of the connection manager, tell them; then for
// each path do what `next` says until it says nothing; then post what `nextPosting` gives until it
// gives nothing; then sleep until `wakeNanoseconds`.
//
// When no path is left the server forgets the session, and with it the devices that it opened: the
// session is `isHeld` then, as it is in the beginning. Only control messages go out until the
// driver has opened its devices anew and says `resume`.

public import WireFormat

/// How a path is chosen for a request, among those that are connected. Source: Linux
/// `rtrs-clt.c`, `get_next_path_*`; there, too, the second is the default.
public enum PathPolicy: Equatable, Sendable {
  /// The one after the last that was used.
  case roundRobin
  /// The one with the fewest requests that are out.
  case minInFlight
  /// By the time of the last heartbeat.
  case minLatency
}

/// What the driver of a session can do, and for how long it waits.
public struct ClientLimits: Equatable, Sendable {
  /// Of each path.
  public var heartbeat = Heartbeat.Limits.brisk
  /// From the first connection of a path to the chunks' places. Linux's client gives 30 s to each
  /// step.
  public var establishNanoseconds: UInt64 = 10_000_000_000
  /// Requests out on a path at a time: what the driver's queue pairs hold.
  public var inFlightMaximum: Int = .max
  /// The least that the server must take: the largest request, and the longest of both messages.
  public var dataByteCount: UInt32 = 4096
  /// For both messages together, in bytes.
  public var headerByteCount: UInt32 = 288

  /// The defaults of the properties; a driver says at least `inFlightMaximum` of its own.
  public init() {}
}

/// What to post: one RDMA-WRITE-WITH-IMM, gathered from the data (if they go to the server), the
/// user's message and the message of RTRS.
public struct Posting: Equatable, Sendable {
  /// The driver's own number for the request.
  public var request: UInt16
  /// The path's index in the session.
  public var path: Int
  /// Below the path's connection count; 0 for control messages, or when it is the only one.
  public var connection: UInt16
  /// Where the data go.
  public var direction: RequestDirection
  /// What is sent with it for `toServer`; the room left before the message for `toClient`.
  public var dataByteCount: UInt32
  /// Where the first byte goes: for a read behind the room for the data.
  public var address: UInt64
  /// Of the server's memory at `address`.
  public var key: UInt32
  /// In this machine's byte order: a work request wants it in network order.
  public var immediate: UInt32
  /// It was sent before, over a path that was lost.
  public var isRepeated: Bool
}

/// What came of a receive.
public enum Receipt: Equatable, Sendable {
  /// A request is over and its number free; without an error its data are where they belong.
  case completed(request: UInt16, error: PeerErrno)
  /// Send a heartbeat's acknowledgement on connection 0.
  case acknowledge
  /// Nothing that the driver has to act on.
  case nothing
  /// The path is of no more use; `next` says the rest.
  case pathLost
}

/// One client's session with one server; see the head of this file.
public struct ClientSession: Sendable {
  /// Names the session at the server, for its whole life.
  public let uuid: RTRSUUID
  /// What the server calls the session.
  public let name: SessionName
  private var paths: [ClientPath]
  private var requests: ClientRequests
  private let policy: PathPolicy
  private let limits: ClientLimits
  /// The depth cannot change over the life of a session, and the sizes not below these.
  public private(set) var geometry: ChunkGeometry?
  /// Only control messages go out.
  public private(set) var isHeld = true
  /// Grows each time that the first path comes up: the server may know nothing of before.
  public private(set) var generation: UInt32 = 0
  private var lastPath = 0
  /// Which path may create the session at a server, until one has.
  private var creator = 0
  private var hasBeenConnected = false

  /// One control connection alone carries I/O, too, and has fewer work requests at Linux's server.
  /// Source: `create_con` in `rtrs-srv.c`: 1026, up to 5 a request.
  static let sharedConnectionMaximum = 128

  /// `connectionCount`, of each path: 1 to 4096, the first for control if there are more.
  /// `requestCount`: requests of devices are below it.
  public init(
    uuid: RTRSUUID, name: SessionName, paths uuids: [RTRSUUID], connectionCount: UInt16,
    requestCount: UInt16, policy: PathPolicy = .minInFlight, limits: ClientLimits = ClientLimits(),
    at nanoseconds: UInt64
  ) {
    precondition(
      connectionCount > 0 && connectionCount <= RTRS.connectionCountMaximum && !uuids.isEmpty
        && uuids.count <= RTRS.pathCountMaximum, "a session has paths and connections")
    self.uuid = uuid
    self.name = name
    self.policy = policy
    self.limits = limits
    paths = []
    for uuid in uuids {
      paths.append(
        ClientPath(
          uuid: uuid, connectionCount: connectionCount, heartbeat: limits.heartbeat,
          at: nanoseconds))
    }
    requests = ClientRequests(count: requestCount)
  }

  /// All of the paths, connected or not.
  public var pathCount: Int { paths.count }
  /// 0: the session is held, and begins anew with the next path.
  public var connectedPathCount: Int {
    var count = 0
    for index in paths.indices where paths[index].isConnected { count += 1 }
    return count
  }
  /// `path`: its index, as in all of these.
  public func isConnected(_ path: Int) -> Bool { paths[path].isConnected }
  /// Requests that are out on the path.
  public func inFlightCount(on path: Int) -> Int { paths[path].inFlightCount }
  /// From the last heartbeat to its acknowledgement; 0 until there was one.
  public func latencyNanoseconds(of path: Int) -> UInt64 { paths[path].latencyNanoseconds }
  /// As the server said it when the path was brought up; empty before.
  public func flags(of path: Int) -> ServerFlags { paths[path].flags }
  /// The number of the request that carries control messages.
  public var controlRequest: UInt16 { requests.controlRequest }
  /// Accepted, and not out on any path.
  public var waitingCount: Int { requests.waitingCount }
  /// Waiting, sent and stranded.
  public var outstandingCount: Int { requests.outstandingCount }
  /// How many I/O requests can be out at a time; 0 until the depth is known.
  public var ioDepth: Int { geometry.map { Int($0.queueDepth) - 1 } ?? 0 }

  /// When a path has something to do at the latest, if nothing happens before.
  public var wakeNanoseconds: UInt64 {
    var wake = UInt64.max
    for index in paths.indices where mayBegin(index) {
      if let time = paths[index].wakeNanoseconds { wake = min(wake, time) }
    }
    return wake
  }
}

// Paths.
extension ClientSession {
  /// Until some path was connected, one at a time tries: two that led to different servers would
  /// make two sessions of one name, and the data of a device would go to both.
  private func mayBegin(_ path: Int) -> Bool {
    guard case .absent = paths[path].state else { return true }
    return hasBeenConnected || path == creator
  }

  /// What the driver of a path has to do now; ask until nil.
  public mutating func next(_ path: Int, at nanoseconds: UInt64) -> PathAction? {
    if case .absent(let due) = paths[path].state, due <= nanoseconds, mayBegin(path) {
      paths[path].begin(
        mayCreateSession: connectedPathCount == 0 && (paths[path].isProven || !hasBeenConnected),
        isReturning: hasBeenConnected,
        deadlineNanoseconds: nanoseconds &+ limits.establishNanoseconds)
    }
    let wasConnected = paths[path].isConnected
    let action = paths[path].next(session: uuid, at: nanoseconds)
    if wasConnected, !paths[path].isConnected { strand(path) }
    return action
  }

  /// The connection asked for is there, with what the server said.
  public mutating func established(_ path: Int, connection: UInt16, answer: Span<UInt8>) {
    guard paths[path].established(connection, answer: answer),
      let new = paths[path].geometry
    else { return }
    if let geometry {
      guard new.queueDepth == geometry.queueDepth else {
        return lost(path, .depthChanged(from: geometry.queueDepth, to: new.queueDepth))
      }
    } else {
      guard new.queueDepth >= 2 else { return lost(path, .depthTooSmall(new.queueDepth)) }
    }
    // What was agreed on first, requests may have been made for.
    let data = geometry?.dataByteCountMaximum ?? limits.dataByteCount
    guard new.dataByteCountMaximum >= data, new.headerByteCountMaximum >= limits.headerByteCount
    else {
      return lost(
        path,
        .sizesTooSmall(data: new.dataByteCountMaximum, header: new.headerByteCountMaximum))
    }
    guard geometry == nil else { return }
    geometry = new
    requests.setDepth(new.queueDepth)
    for index in paths.indices {
      paths[index].table = ChunkTable(queueDepth: new.queueDepth)
    }
  }

  /// The answer to the information request: all bytes that were received on connection 0.
  public mutating func informed(_ path: Int, _ answer: Span<UInt8>, at nanoseconds: UInt64) {
    let isFirst = connectedPathCount == 0
    paths[path].informed(answer, at: nanoseconds)
    guard paths[path].isConnected else { return }
    paths[path].inFlightCount = 0
    hasBeenConnected = true
    if isFirst { generation &+= 1 }
  }

  /// The server rejected a connection; `answer` is what it said, empty when that is nothing.
  public mutating func rejected(_ path: Int, reason: UInt32, answer: Span<UInt8>) {
    if let answer = try? ConnectionAnswer(decoding: answer) {
      lost(path, .rejected(answer.error))
    } else {
      lost(path, .rejectedByStranger(reason: reason))
    }
  }

  /// Whatever else ended a path, or one of its connections. Says nothing new of one that has
  /// ended. With `.closed` the path is not brought up again.
  public mutating func lost(_ path: Int, _ loss: PathLoss) {
    let wasConnected = paths[path].isConnected
    paths[path].lose(loss)
    if wasConnected { strand(path) }
  }

  private mutating func strand(_ path: Int) {
    requests.strand(path: UInt8(truncatingIfNeeded: path))
    if connectedPathCount == 0 { isHeld = true }
  }

  /// Every queue pair of the path is destroyed: what was out on it waits again. How many requests
  /// those are. A control message that was out when the last path was lost is among them: the driver
  /// gives it up with `abandon`, as its conversation begins anew.
  @discardableResult
  public mutating func tornDown(_ path: Int, random: UInt64, at nanoseconds: UInt64) -> Int {
    paths[path].tornDown(random: random, at: nanoseconds)
    paths[path].inFlightCount = 0
    if !hasBeenConnected, path == creator { creator = (creator + 1) % paths.count }
    return requests.release(path: UInt8(truncatingIfNeeded: path))
  }

  /// The devices are open: what waits may go out.
  public mutating func resume() { isHeld = false }
}

// Requests.
extension ClientSession {
  /// A request whose number is free; control messages have the number `controlRequest`. The sizes
  /// must be within `geometry`.
  public mutating func accept(
    _ request: UInt16, _ direction: RequestDirection, dataByteCount: UInt32, userByteCount: UInt16
  ) {
    requests.accept(
      request, direction, dataByteCount: dataByteCount, userByteCount: userByteCount)
  }

  /// Gives up a request that waits; false when it is out or stranded, and must be kept. Its chunk
  /// is used again: one that was sent before is given up only when the server must have noticed
  /// the loss, too.
  public mutating func abandon(_ request: UInt16) -> Bool {
    guard requests.entries[Int(request)].place == .waiting else { return false }
    requests.finish(request)
    return true
  }

  /// The request to be posted now, and where; nil when there is nothing to post. It counts as
  /// sent: when posting fails, the path is `lost`.
  public mutating func nextPosting() -> Posting? {
    guard let request = requests.nextToSend(isHeld: isHeld), let path = choosePath() else {
      return nil
    }
    let isControl = request == controlRequest
    let connection = isControl ? 0 : paths[path].takeConnection()
    let isRepeated = requests.send(
      path: UInt8(truncatingIfNeeded: path), connection: connection)
    paths[path].inFlightCount += 1
    lastPath = path
    let entry = requests.entries[Int(request)]
    // A path without geometry is not connected.
    guard let geometry = paths[path].geometry else { return nil }
    // A read leaves as much room as it wants to get.
    let start = entry.direction == .toClient ? entry.dataByteCount : 0
    return Posting(
      request: request, path: path, connection: connection, direction: entry.direction,
      dataByteCount: entry.dataByteCount,
      address: paths[path].table.address(of: entry.chunk) &+ UInt64(start),
      key: paths[path].table.key(of: entry.chunk),
      immediate: Immediate.request(
        payload: geometry.payload(
          chunk: entry.chunk, offset: entry.dataByteCount + UInt32(entry.userByteCount))
      ).rawValue, isRepeated: isRepeated)
  }

  private func choosePath() -> Int? {
    var chosen: Int?
    var best = UInt64.max
    for step in 1...paths.count {
      // Among equals the one after the last.
      let index = (lastPath + step) % paths.count
      guard paths[index].isConnected, paths[index].inFlightCount < inFlightMaximum(index) else {
        continue
      }
      let cost: UInt64
      switch policy {
      case .roundRobin: return index
      case .minInFlight: cost = UInt64(paths[index].inFlightCount)
      case .minLatency: cost = paths[index].latencyNanoseconds
      }
      if chosen == nil || cost < best {
        best = cost
        chosen = index
      }
    }
    return chosen
  }

  private func inFlightMaximum(_ path: Int) -> Int {
    paths[path].connectionCount == 1
      ? min(limits.inFlightMaximum, Self.sharedConnectionMaximum) : limits.inFlightMaximum
  }

  /// A receive of a connected path completed: with an immediate or, for a SEND that invalidated a
  /// key, without; `bytes` is what a SEND brought, and empty otherwise. One receive is to be
  /// posted again in any case.
  public mutating func received(
    _ path: Int, connection: UInt16, immediate: UInt32?, bytes: Span<UInt8>,
    at nanoseconds: UInt64
  ) -> Receipt {
    // A completion that was under way while the path was lost says nothing of what came after.
    guard paths[path].isConnected else { return .nothing }
    paths[path].heard()
    guard let immediate else {
      guard bytes.isEmpty else {
        return fail(path, .unexpectedMessage(byteCount: bytes.count))
      }
      return .nothing
    }
    switch Immediate(rawValue: immediate) {
    case .heartbeat: return .acknowledge
    case .heartbeatAcknowledgement:
      paths[path].acknowledged(at: nanoseconds)
      return .nothing
    case .response(let response):
      return complete(response, path, connection: connection, bytes: bytes)
    case .request, .unknown: return .nothing
    }
  }

  private mutating func complete(
    _ response: ChunkResponse, _ path: Int, connection: UInt16, bytes: Span<UInt8>
  ) -> Receipt {
    guard
      let request = requests.sent(
        in: response.chunk, path: UInt8(truncatingIfNeeded: path), connection: connection)
    else { return fail(path, .unexpectedAnswer(chunk: response.chunk)) }
    if bytes.isEmpty {
      if paths[path].flags.contains(.refreshesKeys) {
        return fail(path, .keyMissing(chunk: response.chunk))
      }
    } else {
      do throws(WireError) {
        let message = try KeyMessage(decoding: bytes)
        guard UInt32(message.chunk) == response.chunk else {
          return fail(path, .keyMissing(chunk: response.chunk))
        }
        paths[path].table.setKey(message.key, of: message.chunk)
      } catch {
        return fail(path, .malformed(error))
      }
    }
    requests.finish(request)
    paths[path].inFlightCount -= 1
    return .completed(request: request, error: response.error)
  }

  private mutating func fail(_ path: Int, _ loss: PathLoss) -> Receipt {
    lost(path, loss)
    return .pathLost
  }
}

extension ClientPath {
  /// Connections for I/O in turn; the only one, if there is but one.
  mutating func takeConnection() -> UInt16 {
    guard connectionCount > 1 else { return 0 }
    let connection = nextConnection
    nextConnection = connection + 1 < connectionCount ? connection + 1 : 1
    return connection
  }
}

// SPDX-License-Identifier: Apache-2.0
// A server's session: its paths, and who works on its chunks. Nothing here touches a queue pair or
// a clock. A path that connects takes memory; requests and their answers take none.
//
//   connect request ─admit─► a path ─informed─► its name ─accept─► requests ─received─► begin
//                                                                                        │
//                                        answer ◄──────────────────────── finish ◄───────┘
//
// The driver's loop is that of `ClientSession`: tell what happened, then for each path do what
// `next` says until it says nothing, then sleep until `wakeNanoseconds`.

public import WireFormat

/// What a session takes, and for how long it waits.
public struct ServerLimits: Equatable, Sendable {
  /// Of each path.
  public var heartbeat = Heartbeat.Limits.linux
  /// From a path's first connection to the information request. (Linux's server waits for ever.)
  public var establishNanoseconds: UInt64 = 30_000_000_000
  /// At most `RTRS.pathCountMaximum`.
  public var pathCountMaximum = 16
  /// Of a path: Linux's client has one for each processor and one more.
  public var connectionCountMaximum: UInt16 = 1024
  /// Send keys back to be invalidated, as the client asks: it saves the client a work request.
  public var invalidatesKeys = true

  /// The defaults of the properties.
  public init() {}
}

/// What becomes of a connect request.
public enum Admission: Equatable, Sendable {
  /// Accept it as this connection of this path. Before that, `next` of every path is to be asked:
  /// an older one of the same client may have to be torn down first.
  case accept(ServerPathToken)
  /// Reject it with this number in `ConnectionAnswer`.
  case reject(PeerErrno)
}

/// What came of a receive.
public enum ServerReceipt: Equatable, Sendable {
  /// Copy the user's message, and execute it. Then say `finish`.
  case begin(ServerRequest)
  /// Post this at once.
  case answer(ServerAnswer)
  /// Send a heartbeat's acknowledgement on connection 0.
  case acknowledge
  /// Nothing that the driver has to act on.
  case nothing
  /// The path is of no more use; `next` says the rest.
  case pathLost
}

/// One session of a server; see the head of this file.
public struct ServerSession: Sendable {
  /// As the client names it, on all paths.
  public let uuid: RTRSUUID
  /// The same for all paths.
  public let geometry: ChunkGeometry
  private let limits: ServerLimits
  private var paths: [ServerPath]
  private var chunks: ServerChunks
  /// As the first path said it; the others must say the same.
  public private(set) var name: SessionName?

  /// Without a path; the first one comes by `admit`.
  public init(uuid: RTRSUUID, geometry: ChunkGeometry, limits: ServerLimits = ServerLimits()) {
    self.uuid = uuid
    self.geometry = geometry
    self.limits = limits
    paths = [ServerPath](
      repeating: ServerPath(), count: min(limits.pathCountMaximum, RTRS.pathCountMaximum))
    chunks = ServerChunks(queueDepth: geometry.queueDepth)
  }

  /// Paths are numbered below it.
  public var pathCountMaximum: Int { paths.count }
  /// Connecting and connected.
  public var livePathCount: Int {
    var count = 0
    for index in paths.indices where paths[index].isLive { count += 1 }
    return count
  }
  /// Those on which the client may post requests.
  public var connectedPathCount: Int {
    var count = 0
    for index in paths.indices where paths[index].isConnected { count += 1 }
    return count
  }
  /// `path`: its index.
  public func isConnected(_ path: Int) -> Bool { paths[path].isConnected }
  /// Requests that have begun and not finished, whatever became of their paths.
  public var executingCount: Int { chunks.executingCount }
  /// No path is left, every queue pair is destroyed, and nothing is executed: the session can go.
  public var isQuiet: Bool {
    for index in paths.indices where paths[index].state != .vacant { return false }
    return chunks.executingCount == 0
  }

  /// When a path has something to do at the latest, if nothing happens before.
  public var wakeNanoseconds: UInt64 {
    var wake = UInt64.max
    for index in paths.indices {
      if let time = paths[index].wakeNanoseconds { wake = min(wake, time) }
    }
    return wake
  }

  private func isLive(_ token: ServerPathToken) -> Bool {
    paths[token.index].generation == token.generation && paths[token.index].isConnected
  }
}

// Paths.
extension ServerSession {
  /// A connect request of this session.
  public mutating func admit(_ request: ConnectionRequest, at nanoseconds: UInt64) -> Admission {
    guard request.connectionCount <= limits.connectionCountMaximum else {
      return .reject(.outOfMemory)
    }
    for index in paths.indices where paths[index].isLive && paths[index].uuid == request.path {
      if paths[index].join(request) {
        return .accept(ServerPathToken(index: index, generation: paths[index].generation))
      }
      // The number tells a request that does not fit from a path that the client begins anew
      // while we have not noticed yet that it has lost the old one.
      guard paths[index].isConnected || paths[index].attempt != request.attempt else {
        return .reject(.connectionReset)
      }
      paths[index].lose(.replaced)
    }
    // Only a first connection begins a path: what follows one that failed is not worth a new one.
    guard request.connection == 0 || request.mayCreateSession else {
      return .reject(.connectionReset)
    }
    for index in paths.indices where paths[index].state == .vacant {
      paths[index].begin(
        request, deadlineNanoseconds: nanoseconds &+ limits.establishNanoseconds)
      return .accept(ServerPathToken(index: index, generation: paths[index].generation))
    }
    return .reject(.connectionReset)
  }

  /// A message on connection 0: the information request. Its name; nil when the path has ended.
  /// Find out whether the session may have that name, then say `accept`, or `lost`.
  public mutating func informed(_ path: Int, _ bytes: Span<UInt8>) -> SessionName? {
    guard paths[path].isLive else { return nil }
    guard paths[path].state == .connecting, paths[path].isComplete else {
      paths[path].lose(
        paths[path].isConnected ? .unexpectedMessage(byteCount: bytes.count) : .outOfTurn)
      return nil
    }
    do throws(WireError) {
      let request = try PathInformationRequest(decoding: bytes)
      guard name == nil || name == request.name else {
        paths[path].lose(.nameTaken(request.name))
        return nil
      }
      paths[path].state = .naming
      return request.name
    } catch {
      paths[path].lose(.malformed(error))
      return nil
    }
  }

  /// The session has that name, and the path is connected.
  public mutating func accept(_ path: Int, name: SessionName, at nanoseconds: UInt64) {
    guard paths[path].state == .naming else { return }
    self.name = name
    paths[path].accept(limits.heartbeat, at: nanoseconds)
  }

  /// What the driver of a path has to do now; ask until nil.
  public mutating func next(_ path: Int, at nanoseconds: UInt64) -> ServerPathAction? {
    paths[path].next(at: nanoseconds)
  }

  /// Whatever ended a path, or one of its connections. Says nothing new of one that has ended.
  public mutating func lost(_ path: Int, _ loss: ServerPathLoss) { paths[path].lose(loss) }

  /// Every path ends: the client is back with another session, or the server stops.
  public mutating func close(_ loss: ServerPathLoss) {
    for index in paths.indices { paths[index].lose(loss) }
  }

  /// Every queue pair of the path is destroyed: the slot is vacant.
  public mutating func tornDown(_ path: Int) {
    guard case .ending = paths[path].state else { return }
    paths[path].state = .vacant
  }
}

// Requests.
extension ServerSession {
  /// Where the message of a request lies, and how much of it to copy for `received`: nil when the
  /// immediate is no request or names no place, which `received` will say.
  public func message(
    of immediate: UInt32
  ) -> (chunk: UInt16, offset: UInt32, byteCount: Int)? {
    guard case .request(let payload) = Immediate(rawValue: immediate),
      let place = geometry.place(of: payload)
    else { return nil }
    return (
      place.chunk, place.offset,
      min(RequestMessage.byteCountMaximum, Int(geometry.chunkByteCount - place.offset))
    )
  }

  /// A receive of a path completed. `message`: the copy that `message(of:)` asks for; empty
  /// without. A SEND with a payload goes to `informed` instead. One receive is to be posted again
  /// before this is called.
  public mutating func received(
    _ path: Int, connection: UInt16, immediate: UInt32, message: Span<UInt8>
  ) -> ServerReceipt {
    guard paths[path].isLive else { return .nothing }
    guard case .connected(isTold: true) = paths[path].state else {
      return fail(path, .outOfTurn)
    }
    paths[path].heard()
    switch Immediate(rawValue: immediate) {
    case .heartbeat: return .acknowledge
    case .heartbeatAcknowledgement, .response, .unknown: return .nothing
    case .request(let payload):
      return request(payload, message, path: path, connection: connection)
    }
  }

  private mutating func request(
    _ payload: UInt32, _ message: Span<UInt8>, path: Int, connection: UInt16
  ) -> ServerReceipt {
    let token = ServerPathToken(index: path, generation: paths[path].generation)
    do throws(RequestRefusal) {
      let request = try ServerRequest(
        payload: payload, message: message, geometry: geometry, path: token,
        connection: connection)
      let holder = chunks.heldPath(request.chunk)
      switch chunks.arrive(request, isHolderLive: holder.map { isLive($0) } ?? false) {
      case .begin: return .begin(request)
      case .held: return .nothing
      case .inUse: return fail(path, .chunkInUse(request.chunk))
      }
    } catch .endPath(let loss) {
      return fail(path, loss)
    } catch {
      // The place is right, or the path would end.
      guard let place = geometry.place(of: payload) else { return .nothing }
      return .answer(
        ServerAnswer(
          chunk: place.chunk, path: token, connection: connection, destination: nil,
          invalidatedKey: nil,
          immediate: Immediate.response(
            ChunkResponse(chunk: UInt32(place.chunk), error: .invalid, isInvalidated: false)
          ).rawValue))
    }
  }

  private mutating func fail(_ path: Int, _ loss: ServerPathLoss) -> ServerReceipt {
    paths[path].lose(loss)
    return .pathLost
  }

  /// The request that is being executed in a chunk.
  public func executing(_ chunk: UInt16) -> ServerRequest? { chunks.executing(chunk) }

  /// A request was executed. What to post, nil when its path is gone; and the request that waited
  /// for the chunk and is to begin now.
  public mutating func finish(
    _ chunk: UInt16, error: PeerErrno
  ) -> (answer: ServerAnswer?, next: ServerRequest?) {
    guard let (ended, held) = chunks.finish(chunk) else { return (nil, nil) }
    var next: ServerRequest?
    if let held, isLive(held.path) {
      chunks.begin(held)
      next = held
    }
    guard isLive(ended.path) else { return (nil, next) }
    var key: UInt32?
    if ended.wantsInvalidation, limits.invalidatesKeys { key = ended.destination?.key }
    let response = ChunkResponse(
      chunk: UInt32(chunk), error: error, isInvalidated: key != nil)
    return (
      ServerAnswer(
        chunk: chunk, path: ended.path, connection: ended.connection,
        destination: error == .success ? ended.destination : nil, invalidatedKey: key,
        immediate: Immediate.response(response).rawValue), next
    )
  }
}

// SPDX-License-Identifier: Apache-2.0
// How sessions and paths come and go.
//
// A machine that was reset comes back as a new session with its old name, while the old session still
// holds the name, and the right to write. Whoever holds a name has to show that he is alive when
// another one wants it: a heartbeat is sent on each of his paths, and if nothing was heard of him
// for half a second, all of his paths end. The new session gets the name when the old one's queue pairs
// are destroyed and its last request is done: nothing of it can be written any more.

import BlockServer
import LinuxSystem
import RNBDProtocol
import RTRSProtocol
import WireFormat

extension Engine {
  func admit(_ connection: Int, _ privateData: [UInt8]) {
    let ends = transport.ends(of: connection)
    let request: ConnectionRequest
    do { request = try ConnectionRequest(decoding: privateData.span) } catch {
      return refuse(
        connection, .connectionReset, ends, "its request is none of RTRS: \(error.reason)",
        "check what connects to this port")
    }
    guard !isStopping else {
      return refuse(connection, .connectionReset, ends, "the server is stopping", "try again")
    }
    let number: Int
    do { number = try registry.session(for: request).number } catch {
      return refuse(
        connection, error, ends,
        error == .outOfMemory
          ? "there are \(limits.sessionCountMaximum) sessions" : "its session is not known here",
        error == .outOfMemory ? "raise rdma.sessions" : "connect with a new session")
    }
    let session = sessions[number] ?? begin(number, request)
    defer { endIfQuiet(session) }
    // Linux's client takes it for a mistake in its configuration.
    for index in session.paths.indices {
      guard let path = session.paths[index], path.uuid != request.path else { continue }
      guard path.ends.client != ends.client || path.ends.server != ends.server else {
        return refuse(
          connection, .exists, ends, "its session has a path between the same addresses",
          "give each path other addresses")
      }
    }
    let memory: Transport.Memory
    switch chunks(of: session, connection, ends) {
    case .success(let found): memory = found
    case .failure(let error):
      return refuse(connection, .outOfMemory, ends, error.reason, error.advice)
    }
    let admission = session.machine.admit(request, at: now.nanoseconds)
    advance(session)
    switch admission {
    case .reject(let error):
      refuse(
        connection, error, ends, "its request does not fit its path", "nothing needs to be done")
    case .accept(let token):
      join(session, connection, request, token, ends, memory)
    }
  }

  private func begin(_ number: Int, _ request: ConnectionRequest) -> Session {
    let session = Session(
      number: number,
      machine: ServerSession(
        uuid: request.session, geometry: geometry, limits: limits.ofSessions),
      limits: limits, finished: finished)
    sessions[number] = session
    return session
  }

  /// The session's chunks on the device of the connection, taken when the first path goes through it.
  private func chunks(
    of session: Session, _ connection: Int, _ ends: ConnectionEnds
  ) -> Result<Transport.Memory, TransportError> {
    if let memory = session.memory(on: ends.deviceIdentity) { return .success(memory) }
    let wanted = geometry.totalByteCount
    let taken = sessions.reduce(0) { $0 + ($1?.memoryByteCount ?? 0) }
    guard wanted <= limits.memoryByteCountMaximum - taken else {
      return .failure(
        TransportError(
          reason: "the sessions have taken \(taken) bytes, and one more needs \(wanted)",
          advice: "raise rdma.memory, or lower rdma.queue_depth"))
    }
    do {
      let memory = try transport.makeMemory(byteCount: wanted, for: connection)
      session.memories.append((ends.deviceIdentity, memory))
      return .success(memory)
    } catch { return .failure(error) }
  }

  private func join(
    _ session: Session, _ connection: Int, _ request: ConnectionRequest, _ token: ServerPathToken,
    _ ends: ConnectionEnds, _ memory: Transport.Memory
  ) {
    if session.paths[token.index]?.generation != token.generation {
      session.paths[token.index] = Session.Path(
        key: nextPathKey, generation: token.generation, ends: ends, memory: memory,
        attempt: request.attempt & 0x7fff, isReturning: request.isReturning, uuid: request.path,
        connectionCount: Int(request.connectionCount))
      nextPathKey += 1
    }
    guard let path = session.paths[token.index] else { return }
    do throws(TransportError) {
      // The chunks' region has one key for one device.
      guard path.ends.deviceIdentity == ends.deviceIdentity else {
        throw TransportError(
          reason: "its path goes through two devices", advice: "check the routes to this server")
      }
      let depth = UInt32(geometry.queueDepth)
      try transport.accept(
        connection, path: path.key, isService: request.connection == 0,
        connectionCount: Int(request.connectionCount),
        ConnectionSizes(receiveCount: depth + 64, sendCount: 3 * depth + 64),
        answer: ConnectionAnswer(accepting: geometry, flags: []).encoded)
    } catch {
      refuse(connection, .outOfMemory, ends, error.reason, error.advice)
      session.machine.lost(token.index, .closed)
      return advance(session)
    }
    path.connections[Int(request.connection)] = connection
    places[connection] = Place(
      session: session.number, path: token.index, generation: token.generation,
      connection: request.connection)
  }

  private func refuse(
    _ connection: Int, _ error: PeerErrno, _ ends: ConnectionEnds, _ reason: String,
    _ advice: String
  ) {
    transport.reject(connection, answer: ConnectionAnswer(rejecting: error).encoded)
    surroundings.report(.refused(client: ends.client, reason: reason, advice: advice))
  }

  /// The first message of a path: what its session is called.
  func introduce(_ session: Session, _ place: Place, _ bytes: [UInt8]) {
    session.heard = now
    // On another connection there is no room for a message, so nothing comes there.
    guard place.connection == 0 else {
      session.machine.lost(place.path, .unexpectedMessage(byteCount: bytes.count))
      return advance(session)
    }
    if let name = session.machine.informed(place.path, bytes.span) {
      nameWaits.append(
        NameWait(
          session: session.number,
          token: ServerPathToken(index: place.path, generation: place.generation), name: name))
      _ = settleNames()
    }
    advance(session)
  }

  /// Gives names to those that wait for one, when they are free; when to look again.
  func settleNames() -> UInt64 {
    var wake = UInt64.max
    var waits: [NameWait] = []
    swap(&waits, &nameWaits)
    for var wait in waits {
      guard let session = sessions[wait.session], session.path(wait.token) != nil else { continue }
      switch registry.name(wait.session, wait.name) {
      case .granted:
        session.machine.accept(wait.token.index, name: wait.name, at: now.nanoseconds)
        if let path = session.path(wait.token) {
          surroundings.report(
            .pathUp(
              session: wait.name.text, client: path.ends.client, server: path.ends.server,
              device: path.ends.device))
        }
        advance(session)
      case .taken(let number):
        guard let holder = sessions[number] else { continue }
        if let time = challenge(holder, by: session, &wait) {
          wake = min(wake, time)
          nameWaits.append(wait)
        } else {
          advance(session)
        }
      }
    }
    return wake
  }

  /// When to look at the holder of a name again; nil when it has shown that it is alive, and the one
  /// that wants the name is refused.
  private func challenge(
    _ holder: Session, by session: Session, _ wait: inout NameWait
  ) -> UInt64? {
    guard holder.machine.livePathCount > 0 else {
      return now.nanoseconds &+ 10_000_000  // On its way out: what it executes is waited for.
    }
    guard let challenged = wait.challenged else {
      wait.challenged = now
      for index in holder.paths.indices where holder.machine.isConnected(index) {
        guard let path = holder.paths[index] else { continue }
        try? transport.sendImmediate(path.connections[0], Immediate.heartbeat.rawValue)
      }
      return now.nanoseconds &+ limits.challengeNanoseconds
    }
    if holder.heard > challenged {
      session.machine.lost(wait.token.index, .nameTaken(wait.name))
      return nil
    }
    let deadline = challenged.nanoseconds &+ limits.challengeNanoseconds
    guard now.nanoseconds >= deadline else { return deadline }
    surroundings.report(.takenOver(session: wait.name.text, client: session.clientText))
    holder.machine.close(.takenOver)
    advance(holder)
    return now.nanoseconds
  }

  /// Does what the machine of a session wants done now.
  func advance(_ session: Session) {
    for index in session.paths.indices {
      while let action = session.machine.next(index, at: now.nanoseconds) {
        switch action {
        case .sendInformation: inform(session, index)
        case .sendHeartbeat:
          guard let path = session.paths[index] else { continue }
          do {
            try transport.sendImmediate(path.connections[0], Immediate.heartbeat.rawValue)
          } catch { session.machine.lost(index, .workRequestFailed(status: 0)) }
        case .tearDown(let loss): tearDown(session, index, loss)
        }
      }
    }
    endIfQuiet(session)
  }

  private func inform(_ session: Session, _ index: Int) {
    guard let path = session.paths[index] else { return }
    let count = geometry.totalByteCount
    let answer = PathInformationAnswer(regions: [
      RegionDescriptor(
        address: path.memory.address(0), key: path.memory.remoteKey, length: UInt32(count))
    ])
    do {
      for connection in path.connections {
        try transport.postReceives(connection, count: Int(geometry.queueDepth) + 63)
      }
      try transport.sendInformation(path.connections[0], answer.encoded)
    } catch { session.machine.lost(index, .workRequestFailed(status: 0)) }
  }

  private func tearDown(_ session: Session, _ index: Int, _ loss: ServerPathLoss) {
    if let path = session.paths[index] {
      transport.close(path: path.key)
      for connection in path.connections { places[connection] = nil }
      surroundings.report(
        .pathLost(session: session.name, client: path.ends.client, loss))
      session.paths[index] = nil
    }
    session.machine.tornDown(index)
  }

  /// No path is left and nothing is executed: its devices are closed, its memory is given back.
  func endIfQuiet(_ session: Session) {
    guard !session.isOver, session.machine.isQuiet else { return }
    session.isOver = true
    for number in session.open.indices where session.open[number] != nil {
      close(UInt32(number), session)
    }
    session.workers.end()
    sessions[session.number] = nil
    registry.remove(session.number)
    if !session.name.isEmpty { surroundings.report(.sessionEnded(session: session.name)) }
  }
}

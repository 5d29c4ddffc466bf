// SPDX-License-Identifier: Apache-2.0
// The client's machine against the server's, over wires that the test cuts: each side notices a
// cut when it notices.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

/// A client and a server, and what is under way between them.
final class TwoHalves {
  struct Sent {
    var connection: UInt16
    var immediate: UInt32
    var message: [UInt8]
    var request: UInt16
  }
  struct Wire {
    /// The server's path; nil when the client has none there.
    var serverPath: Int?
    var isCut = false
    var toServer: [Sent] = []
    var toClient: [(connection: UInt16, immediate: UInt32)] = []
  }

  var client: ClientSession
  var server: ServerSession
  var wires: [Wire]
  var now: UInt64 = 1
  var generator: SeededGenerator
  var executing: [(request: UInt16, begun: ServerRequest)] = []
  /// What lies in the chunks: the number of the request.
  var chunkContents: [UInt16] = Array(repeating: .max, count: 8)
  var executedCounts = [Int](repeating: 0, count: 32)
  var completed: [UInt16] = []
  var clientLosses: [PathLoss] = []
  var serverLosses: [ServerPathLoss] = []

  init(pathCount: Int, generator: SeededGenerator) {
    var limits = ClientLimits()
    limits.headerByteCount = 64
    client = ClientSession(
      uuid: PlayedServer.uuid, name: PlayedServer.name,
      paths: (0..<pathCount).map { RTRSUUID(high: 3, low: UInt64($0)) }, connectionCount: 3,
      requestCount: 32, limits: limits, at: now)
    var serverLimits = ServerLimits()
    serverLimits.heartbeat = .brisk
    server = ServerSession(
      uuid: PlayedServer.uuid,
      geometry: try! ChunkGeometry(
        queueDepth: 8, dataByteCountMaximum: 4096, headerByteCountMaximum: 4096),
      limits: serverLimits)
    wires = [Wire](repeating: Wire(), count: pathCount)
    self.generator = generator
  }

  func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }

  /// Everything that both machines want done now.
  func settle() {
    for path in wires.indices {
      while let action = client.next(path, at: now) { perform(action, path) }
    }
    for path in 0..<server.pathCountMaximum {
      while let action = server.next(path, at: now) { perform(action, serverPath: path) }
    }
  }

  func perform(_ action: PathAction, _ path: Int) {
    switch action {
    case .connect(let request):
      if wires[path].isCut { return client.lost(path, .unreachable(errno: 113)) }
      switch server.admit(request, at: now) {
      case .reject(let error):
        client.rejected(path, reason: 28, answer: ConnectionAnswer(rejecting: error).encoded.span)
      case .accept(let token):
        wires[path].serverPath = token.index
        client.established(
          path, connection: request.connection,
          answer: ConnectionAnswer(accepting: server.geometry, flags: []).encoded.span)
      }
    case .sendInformation:
      guard let serverPath = wires[path].serverPath, !wires[path].isCut else { return }
      let wire = PathInformationRequest(name: client.name).encoded
      guard let name = server.informed(serverPath, wire.span) else { return }
      server.accept(serverPath, name: name, at: now)
    case .postReceives: break
    case .sendHeartbeat:
      wires[path].toServer.append(
        Sent(connection: 0, immediate: Immediate.heartbeat.rawValue, message: [], request: 0))
    case .tearDown(let loss):
      clientLosses.append(loss)
      // The server hears of it when the network lets it.
      if let serverPath = wires[path].serverPath, !wires[path].isCut, below(2) == 0 {
        server.lost(serverPath, .disconnected)
      }
      wires[path].serverPath = nil
      wires[path].toServer = []
      wires[path].toClient = []
      client.tornDown(path, random: UInt64(below(1000)), at: now)
    }
  }

  func perform(_ action: ServerPathAction, serverPath: Int) {
    let path = wires.firstIndex { $0.serverPath == serverPath }
    switch action {
    case .sendInformation:
      guard let path, !wires[path].isCut else { return }
      let wire = PathInformationAnswer(
        regions: [
          RegionDescriptor(
            address: 0, key: 1, length: UInt32(server.geometry.totalByteCount))
        ]
      ).encoded
      client.informed(path, wire.span, at: now)
    case .sendHeartbeat:
      if let path { wires[path].toClient.append((0, Immediate.heartbeat.rawValue)) }
    case .tearDown(let loss):
      serverLosses.append(loss)
      server.tornDown(serverPath)
      if let path {
        wires[path].serverPath = nil
        wires[path].toServer = []
        if !wires[path].isCut { client.lost(path, .disconnected) }
      }
    }
  }

  func post() {
    while let posting = client.nextPosting() {
      let message =
        posting.direction == .toServer
        ? RequestMessage.write(userByteCount: 32)
        : .read(
          userByteCount: 32,
          destination: RegionDescriptor(address: 0, key: 9, length: posting.dataByteCount),
          wantsInvalidation: false)
      wires[posting.path].toServer.append(
        Sent(
          connection: posting.connection, immediate: posting.immediate,
          message: message.encoded, request: posting.request))
    }
  }

  func deliverToServer(_ path: Int) {
    guard !wires[path].isCut, let serverPath = wires[path].serverPath,
      !wires[path].toServer.isEmpty
    else { return }
    let sent = wires[path].toServer.removeFirst()
    if let place = server.message(of: sent.immediate) {
      // What is being executed there finds the same request in its chunk.
      for (request, begun) in executing where begun.chunk == place.chunk {
        #expect(request == sent.request)
      }
      chunkContents[Int(place.chunk)] = sent.request
    }
    let receipt = server.received(
      serverPath, connection: sent.connection, immediate: sent.immediate,
      message: sent.message.span)
    switch receipt {
    case .begin(let request): executing.append((sent.request, request))
    case .acknowledge:
      wires[path].toClient.append((0, Immediate.heartbeatAcknowledgement.rawValue))
    case .answer, .nothing, .pathLost: break
    }
  }

  func finishOne() {
    guard !executing.isEmpty else { return }
    let (request, begun) = executing.remove(at: below(executing.count))
    executedCounts[Int(request)] += 1
    let (answer, next) = server.finish(begun.chunk, error: .success)
    if let next { executing.append((chunkContents[Int(next.chunk)], next)) }
    guard let answer,
      let path = wires.firstIndex(where: { $0.serverPath == answer.path.index })
    else { return }
    wires[path].toClient.append((answer.connection, answer.immediate))
  }

  func deliverToClient(_ path: Int) {
    guard !wires[path].isCut, !wires[path].toClient.isEmpty else { return }
    let (connection, immediate) = wires[path].toClient.removeFirst()
    let empty: [UInt8] = []
    switch client.received(
      path, connection: connection, immediate: immediate, bytes: empty.span, at: now)
    {
    case .completed(let request, _): completed.append(request)
    case .acknowledge:
      wires[path].toServer.append(
        Sent(
          connection: 0, immediate: Immediate.heartbeatAcknowledgement.rawValue, message: [],
          request: 0))
    case .nothing, .pathLost: break
    }
  }
}

@Suite("A client and a server of ours")
struct BothHalvesTests {
  @Test("complete every request once, whatever is cut, and never find fault with each other")
  func cuts() {
    var seeds = SeededGenerator(printingAs: "BothHalves")
    for _ in 0..<30 {
      let halves = TwoHalves(pathCount: 2, generator: SeededGenerator(seed: seeds.next()))
      var free = Array(UInt16(0)..<32)
      var acceptedCount = 0
      var completedCount = 0
      func step(mayCut: Bool) {
        halves.settle()
        if halves.client.isHeld, halves.client.connectedPathCount > 0 { halves.client.resume() }
        halves.post()
        let path = halves.below(2)
        switch halves.below(20) {
        case 0 where mayCut: halves.wires[path].isCut.toggle()
        case 1...5: halves.deliverToServer(path)
        case 6...9: halves.finishOne()
        case 10...14: halves.deliverToClient(path)
        default: halves.now += UInt64(halves.below(300_000_000))
        }
        for request in halves.completed {
          #expect(halves.executedCounts[Int(request)] >= 1)
          halves.executedCounts[Int(request)] = 0
          free.append(request)
        }
        completedCount += halves.completed.count
        halves.completed = []
      }
      for _ in 0..<3000 {
        if acceptedCount < 400, !free.isEmpty, halves.below(3) == 0 {
          let request = free.removeFirst()
          halves.client.accept(
            request, halves.below(2) == 0 ? .toServer : .toClient, dataByteCount: 4096,
            userByteCount: 32)
          acceptedCount += 1
        }
        step(mayCut: true)
      }
      for index in halves.wires.indices { halves.wires[index].isCut = false }
      for _ in 0..<20_000 where halves.client.outstandingCount > 0 { step(mayCut: false) }
      #expect(halves.client.outstandingCount == 0)
      #expect(acceptedCount > 50 && completedCount == acceptedCount)
      for loss in halves.clientLosses {
        switch loss {
        case .unreachable, .disconnected, .disconnectedAtInformation, .silent, .timedOut,
          .rejected:
          break
        default: Issue.record("the client found fault: \(loss)")
        }
      }
      for loss in halves.serverLosses {
        switch loss {
        case .disconnected, .silent, .timedOut, .replaced: break
        default: Issue.record("the server found fault: \(loss)")
        }
      }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a server makes of the bytes in a chunk, what it answers, and who has a chunk when paths come
// and go.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A request at the server")
struct ServerRequestTests {
  static let region = RegionDescriptor(address: 0x1000, key: 77, length: 4096)

  static func begun(_ receipt: ServerReceipt) -> ServerRequest? {
    if case .begin(let request) = receipt { request } else { nil }
  }

  @Test("is where the immediate says, with the data before it")
  func write() throws {
    let server = PlayedServer()
    let path = try server.bringUp()
    let immediate = Immediate.request(
      payload: server.session.geometry.payload(chunk: 2, offset: 4096 + 32)
    ).rawValue
    #expect(try #require(server.session.message(of: immediate)) == (2, 4128, 24))
    let request = try #require(Self.begun(server.write(path, chunk: 2)))
    #expect(request.chunk == 2 && request.direction == .toServer && request.connection == 1)
    #expect(request.dataByteCount == 4096 && request.userByteCount == 32)
    let (answer, next) = server.finish(2, .noSpace)
    #expect(next == nil)
    #expect(
      try #require(answer).immediate
        == Immediate.response(ChunkResponse(chunk: 2, error: .noSpace, isInvalidated: false))
        .rawValue)
    #expect(try #require(answer).destination == nil)
    #expect(try #require(answer).connection == 1)
  }

  @Test("to read is answered by the data, the key and the end, and by no data after an error")
  func read() throws {
    for (wants, honours, error) in [
      (true, true, PeerErrno.success), (true, true, .io), (true, false, .success),
      (false, true, .success),
    ] {
      var limits = ServerLimits()
      limits.invalidatesKeys = honours
      let server = PlayedServer(limits: limits)
      let path = try server.bringUp()
      let message = RequestMessage.read(
        userByteCount: 32, destination: Self.region, wantsInvalidation: wants)
      let request = try #require(
        Self.begun(server.request(path, chunk: 3, offset: 4096 + 32, message)))
      #expect(request.direction == .toClient && request.destination == Self.region)
      let answer = try #require(server.finish(3, error).answer)
      let isInvalidated = wants && honours
      #expect(answer.destination == (error == .success ? Self.region : nil))
      #expect(answer.invalidatedKey == (isInvalidated ? 77 : nil))
      #expect(
        Immediate(rawValue: answer.immediate)
          == .response(ChunkResponse(chunk: 3, error: error, isInvalidated: isInvalidated)))
    }
  }

  @Test("without data is a read without a descriptor, whose key nobody can send back")
  func flush() throws {
    let server = PlayedServer()
    let path = try server.bringUp()
    let request = try #require(
      Self.begun(
        server.request(
          path, offset: 32,
          .read(userByteCount: 32, destination: nil, wantsInvalidation: true))))
    #expect(request.dataByteCount == 0 && request.destination == nil)
    #expect(!request.wantsInvalidation)
    #expect(try #require(server.finish(0).answer).invalidatedKey == nil)
  }

  /// What is wrong in a message and can be answered. Linux's server leaves the second and the last
  /// without an answer.
  static let invalid: [(String, offset: UInt32, wire: [UInt8])] = [
    (
      "the user's message begins before the chunk", 31,
      RequestMessage.write(userByteCount: 32).encoded
    ),
    (
      "two descriptors", 4128, bytes("0300 2000 0100 0200") + [UInt8](repeating: 0, count: 16)
    ),
    (
      "nothing is read", 4128,
      RequestMessage.read(
        userByteCount: 32,
        destination: RegionDescriptor(address: 0, key: 0, length: 0), wantsInvalidation: false
      ).encoded
    ),
    (
      "more is read than there is room", 4127,
      RequestMessage.read(userByteCount: 32, destination: region, wantsInvalidation: true).encoded
    ),
    ("more data than allowed", 4129, RequestMessage.write(userByteCount: 32).encoded),
    (
      "longer messages than allowed", 4093, RequestMessage.write(userByteCount: 4093).encoded
    ),
    ("the longest user's message", 4128, RequestMessage.write(userByteCount: 65535).encoded),
  ]

  @Test(
    "is answered with EINVAL when its sizes are wrong, and the chunk is free", arguments: invalid)
  func invalidSizes(name: String, offset: UInt32, wire: [UInt8]) throws {
    let server = PlayedServer()
    let path = try server.bringUp()
    let payload = server.session.geometry.payload(chunk: 1, offset: offset)
    guard case .answer(let answer) = server.receive(path, .request(payload: payload), wire) else {
      Issue.record("not answered")
      return
    }
    #expect(
      Immediate(rawValue: answer.immediate)
        == .response(ChunkResponse(chunk: 1, error: .invalid, isInvalidated: false)))
    #expect(answer.destination == nil && answer.invalidatedKey == nil)
    #expect(server.session.executingCount == 0)
    #expect(Self.begun(server.write(path, chunk: 1)) != nil)
  }

  @Test("both sides of each size")
  func sizeLimits() throws {
    let server = PlayedServer()
    let path = try server.bringUp()
    #expect(
      Self.begun(server.request(path, chunk: 0, offset: 32, .write(userByteCount: 32))) != nil)
    #expect(
      Self.begun(server.request(path, chunk: 1, offset: 4128, .write(userByteCount: 32))) != nil)
    #expect(
      Self.begun(server.request(path, chunk: 2, offset: 4092, .write(userByteCount: 4092)))
        != nil)
    let message = RequestMessage.read(
      userByteCount: 32, destination: Self.region, wantsInvalidation: false)
    #expect(Self.begun(server.request(path, chunk: 3, offset: 4128, message)) != nil)
  }

  @Test("that shows a client which does not know its chunks ends the path, and no other")
  func pathEnds() throws {
    func loss(_ payload: UInt32, _ wire: [UInt8]) throws -> ServerPathLoss? {
      let server = PlayedServer()
      let path = try server.bringUp(1)
      let other = try server.bringUp(2)
      #expect(server.receive(path, .request(payload: payload), wire) == .pathLost)
      _ = server.play(path)
      #expect(server.session.isConnected(other))
      #expect(Self.begun(server.write(other, chunk: 0)) != nil)
      return server.losses.first
    }
    let write = RequestMessage.write(userByteCount: 0).encoded
    // Depth 4 takes 2 bits of 28, so every number is a chunk, but 8192 is behind its end.
    #expect(try loss(8192, write) == .wrongPlace(payload: 8192))
    #expect(try loss(0x0fff_ffff, write) == .wrongPlace(payload: 0x0fff_ffff))
    #expect(try loss(8191, write) == .wrongMessage(.truncated(byteCount: 1)))
    #expect(try loss(8189, write) == .wrongMessage(.truncated(byteCount: 3)))
    #expect(try loss(32, [0, 0, 0, 0]) == .wrongMessage(.unknownType(0)))
    #expect(try loss(32, []) == .wrongMessage(.truncated(byteCount: 0)))
    let read = RequestMessage.read(
      userByteCount: 0, destination: Self.region, wantsInvalidation: false
    ).encoded
    #expect(try loss(8192 - 23, read) == .wrongMessage(.truncated(byteCount: 23)))
  }

  @Test("in a chunk that is not yet answered ends the path")
  func usedTwice() throws {
    let server = PlayedServer()
    let path = try server.bringUp()
    #expect(Self.begun(server.write(path, chunk: 0)) != nil)
    #expect(server.write(path, chunk: 0) == .pathLost)
    _ = server.play(path)
    #expect(server.losses == [.chunkInUse(0)])
    #expect(server.finish(0).answer == nil)
  }

  @Test("that is repeated over another path waits until the first is executed")
  func repetition() throws {
    let server = PlayedServer()
    let first = try server.bringUp(1)
    let second = try server.bringUp(2)
    let third = try server.bringUp(3)
    #expect(Self.begun(server.write(first, chunk: 0)) != nil)
    // The client has lost the first path, which we have not noticed.
    #expect(server.write(second, chunk: 0) == .nothing)
    // And now the second, which we have.
    server.session.lost(second, .disconnected)
    _ = server.play(second)
    #expect(server.write(third, chunk: 0) == .nothing)
    #expect(server.session.executingCount == 1)
    let (answer, next) = server.finish(0)
    #expect(try #require(answer).path.index == first)
    #expect(try #require(next).path.index == third)
    #expect(server.session.executingCount == 1)
    #expect(try #require(server.finish(0).answer).path.index == third)
    #expect(Self.begun(server.write(third, chunk: 0)) != nil)
  }

  @Test("that waits for a chunk is forgotten with its path")
  func heldAndLost() throws {
    let server = PlayedServer()
    let first = try server.bringUp(1)
    let second = try server.bringUp(2)
    #expect(Self.begun(server.write(first, chunk: 0)) != nil)
    #expect(server.write(second, chunk: 0) == .nothing)
    server.session.close(.closed)
    let (answer, next) = server.finish(0)
    #expect(answer == nil && next == nil)
    #expect(server.session.executingCount == 0)
    // A mistake of the driver's is no reason to end.
    #expect(server.finish(0).answer == nil)
  }

  @Test("is never answered on the path that came after its own in the same slot")
  func reusedSlot() throws {
    var limits = ServerLimits()
    limits.pathCountMaximum = 1
    let server = PlayedServer(limits: limits)
    let path = try server.bringUp()
    #expect(Self.begun(server.write(path, chunk: 0)) != nil)
    server.session.lost(path, .disconnected)
    _ = server.play(path)
    #expect(try server.bringUp(1, attempt: 2) == path)
    #expect(server.write(path, chunk: 0) == .nothing)
    let (answer, next) = server.finish(0)
    #expect(answer == nil)
    #expect(try #require(next).path.index == path)
    #expect(server.finish(0).answer != nil)
  }

  @Test("of any kind from any client never traps, and each that begins ends")
  func randomRequests() throws {
    var generator = SeededGenerator(printingAs: "ServerSession requests")
    let server = PlayedServer()
    var mutator = ByteMutator(
      samples: [
        RequestMessage.write(userByteCount: 32).encoded,
        RequestMessage.read(
          userByteCount: 32, destination: Self.region, wantsInvalidation: true
        ).encoded,
        RequestMessage.read(userByteCount: 8, destination: nil, wantsInvalidation: false).encoded,
      ], alphabet: [0, 1, 2, 3, 0x10, 0x20, 0xff], seed: generator.next())
    var executing: [UInt16] = []
    var path = try server.bringUp()
    var attempt: UInt16 = 1
    var begunCount = 0
    for _ in 0..<20_000 {
      if !server.session.isConnected(path) {
        _ = server.play(path)
        attempt &+= 1
        path = try server.bringUp(1, attempt: attempt)
      }
      let chunk = UInt16.random(in: 0..<5, using: &generator)
      let offset = UInt32.random(in: 0..<9000, using: &generator)
      let immediate: Immediate =
        Int.random(in: 0..<50, using: &generator) == 0
        ? Immediate(rawValue: UInt32.random(in: 0 ... .max, using: &generator))
        : .request(payload: UInt32(chunk) << 26 | offset)
      switch server.receive(path, immediate, mutator.next()) {
      case .begin(let request):
        begunCount += 1
        #expect(!executing.contains(request.chunk))
        executing.append(request.chunk)
        #expect(request.dataByteCount + UInt32(request.userByteCount) < 8192)
        #expect((request.destination?.length ?? 0) <= request.dataByteCount)
      default: break
      }
      if executing.count > 2 {
        let chunk = executing.removeFirst()
        if let next = server.finish(chunk).next { executing.append(next.chunk) }
      }
    }
    #expect(begunCount > 100)
    #expect(server.session.executingCount == executing.count)
  }
}

// SPDX-License-Identifier: Apache-2.0
// Sessions over a played transport: requests, refusals, and who has a name and the right to write.

import BlockServer
import LinuxSystem
import RNBDProtocol
import RTRSProtocol
import TestSupport
import Testing
import WireFormat

@testable import RNBDServer

@Suite("A session over RDMA")
struct EngineTests {
  let server: PlayedServer
  init() throws { server = try PlayedServer() }

  func client(
    _ name: ByteString = "lab", session: UInt64 = 1, path: UInt64 = 1, attempt: UInt16 = 1,
    from address: ByteString = "10.9.0.2"
  ) throws -> PlayedClient {
    let client = PlayedClient(
      server, session: session, path: path, attempt: attempt, from: address)
    server.settle()
    try client.introduce(name)
    return client
  }

  @Test("opens a device, writes to it and reads from it")
  func request() throws {
    let client = try client()
    server.settle(client.isUp)
    let information = try #require(
      client.ask(SessionInformation(version: 9).encoded, room: 36))
    #expect(try SessionInformation(decoding: information.data.span).version == 2)
    let (error, answer) = try client.open("disk", .readWrite)
    #expect(error == .success)
    let device = try #require(answer)
    #expect(device.sectorCount == 2048 && device.device == 0)
    #expect(device.cachePolicy == [.writeBack, .fua] && !device.offersSecureErase)
    let data = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 7) }
    #expect(client.io(.write, sector: 8, byteCount: 8192, data: data)?.error == .success)
    #expect(client.io(.flush, sector: IORequest.noSector, byteCount: 0)?.error == .success)
    let read = try #require(client.io(.read, sector: 8, byteCount: 8192, room: 8192))
    #expect(read.error == .success && read.data == data)
    #expect(client.io(.writeZeroes, sector: 9, byteCount: 512, data: [])?.error == .success)
    let zeroes = try #require(client.io(.read, sector: 9, byteCount: 512, room: 512))
    #expect(zeroes.data == [UInt8](repeating: 0, count: 512))
    // A second open of the name gives the device that is open.
    #expect(try client.open("disk", .readOnly).device?.device == 0)
    #expect(client.ask(CloseRequest(device: 0).encoded, data: [])?.error == .success)
    #expect(client.ask(CloseRequest(device: 9).encoded, data: [])?.error == .success)
    #expect(client.io(.read, byteCount: 512, room: 512)?.error == .notConnected)
    let status = try #require(server.engine.status().first)
    #expect(status.paths[0].writtenBytes == 8192 && status.paths[0].reads == 2)
    #expect(status.inFlight == 0 && status.devices.isEmpty)
  }

  @Test("is told with Linux's numbers why something is not done, and goes on")
  func refusals() throws {
    let client = try client()
    server.settle(client.isUp)
    #expect(try client.open("disk", .readWrite).error == .success)
    #expect(try client.open("fixed", .readOnly).device?.device == 1)
    let block = [UInt8](repeating: 1, count: 512)
    let flags = IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 512).encoded
    #expect(client.io(.write, device: 1, byteCount: 512, data: block)?.error == .readOnly)
    #expect(client.io(.discard, device: 1, byteCount: 512, data: [])?.error == .readOnly)
    #expect(client.io(.write, byteCount: 1024, data: block)?.error == .invalid)
    #expect(client.io(.read, byteCount: 1024, room: 512)?.error == .invalid)
    #expect(client.io(.read, sector: 2048, byteCount: 512, room: 512)?.error == .io)
    #expect(client.io(.write, sector: .max, byteCount: 512, data: block)?.error == .io)
    #expect(client.io(.discard, sector: 2047, byteCount: 1024, data: [])?.error == .io)
    #expect(client.io(.secureErase, byteCount: 512, data: [])?.error == .notSupported)
    #expect(client.io(IOOperation(rawValue: 9), byteCount: 0, data: [])?.error == .notSupported)
    #expect(client.io(.read, device: 2, byteCount: 512, room: 512)?.error == .notConnected)
    #expect(client.io(.read, device: .max, byteCount: 512, room: 512)?.error == .notConnected)
    #expect(client.ask([1, 2, 3], data: [])?.error == .invalid)
    #expect(client.ask(flags, room: 512, userByteCount: 300)?.error == .invalid)
    // No room for the answer.
    #expect(
      client.ask(OpenRequest(try DeviceName("disk"), .readWrite).encoded, room: 8)?.error
        == .invalid)
    for (name, mode, error) in [
      ("missing", RNBDProtocol.AccessMode.readOnly, PeerErrno.notFound),
      ("fixed/x", .readOnly, .notFound), ("fixed ", .readWrite, .notFound),
    ] as [(ByteString, RNBDProtocol.AccessMode, PeerErrno)] {
      #expect(try client.open(name, mode).error == error)
    }
    #expect(client.io(.write, byteCount: 512, data: block)?.error == .success)
  }

  @Test("gives the right to write to one at a time, whatever protocol the other speaks")
  func writers() throws {
    let first = try client("one", session: 1)
    let second = try client("two", session: 2, from: "10.9.0.3")
    let third = try client("three", session: 3, from: "10.9.0.4")
    server.settle(first.isUp && second.isUp && third.isUp)
    let medium = server.table.exports[0].media[0]
    do {
      let other = server.access.take(medium, .exclusive)
      #expect(other != nil)
      #expect(try first.open("disk", .readWrite).error == .notPermitted)
    }
    #expect(try first.open("disk", .readWrite).error == .success)
    #expect(server.access.take(medium, .exclusive) == nil)
    #expect(try second.open("disk", .readWrite).error == .notPermitted)
    #expect(try second.open("disk", .migration).error == .success)
    #expect(try third.open("disk", .migration).error == .notPermitted)
    #expect(try third.open("fixed", .readWrite).error == .readOnly)
    #expect(try third.open("disk", .readOnly).error == .success)
    // With its last path a session loses what it had open.
    for client in [first, second] {
      server.transport.events.append(.disconnected(connection: client.io))
    }
    server.settle(server.engine.sessionCount == 1)
    #expect(server.access.take(medium, .exclusive) != nil)
  }
}

@Suite("A client that comes back")
struct TakeoverTests {
  let server: PlayedServer
  init() throws { server = try PlayedServer() }

  func client(_ session: UInt64, from address: ByteString = "10.9.0.2") throws -> PlayedClient {
    let client = PlayedClient(server, session: session, from: address)
    server.settle()
    try client.introduce("board")
    return client
  }

  @Test("gets its name when the session that had it shows no sign of life, and its writes are done")
  func takeover() throws {
    let dead = try client(1)
    server.settle(dead.isUp)
    #expect(try dead.open("disk", .readWrite).error == .success)
    server.backend.set(isOpen: false)
    let block = [UInt8](repeating: 7, count: 512)
    dead.send(
      IORequest(device: 0, sector: 0, operation: .write, dataByteCount: 512).encoded, chunk: 3,
      data: block)
    server.settle(server.backend.waitingCount == 1)
    let begun = MonotonicTime.now
    let back = try client(2)
    // It is asked whether it lives; it does not, and its queue pairs are destroyed.
    server.settle(server.transport.immediates[dead.service]?.isEmpty == false)
    server.settle(dead.isClosed)
    #expect(MonotonicTime.now.milliseconds(since: begun) >= 50)
    #expect(!back.isUp)
    for _ in 0..<20 { server.settle() }
    #expect(!back.isUp, "its write is not done yet")
    server.backend.set(isOpen: true)
    server.settle(back.isUp)
    #expect(!back.isClosed && server.engine.sessionCount == 1)
    #expect(server.reports.contains(.takenOver(session: "board", client: "10.9.0.2")))
    // The dead one's right to write went with it.
    #expect(try back.open("disk", .readWrite).error == .success)
    #expect(try #require(back.io(.read, byteCount: 512, room: 512)).data == block)
    #expect(
      server.transport.answers.allSatisfy { $0.connection != dead.io || $0.response.chunk != 3 })
  }

  @Test("gets no name from one that lives")
  func refused() throws {
    let alive = try client(1)
    server.settle(alive.isUp)
    #expect(try alive.open("disk", .readWrite).error == .success)
    let other = try client(2, from: "10.9.0.3")
    server.settle(server.transport.immediates[alive.service]?.isEmpty == false)
    server.transport.events.append(
      .received(
        connection: alive.service, immediate: Immediate.heartbeatAcknowledgement.rawValue))
    server.settle(other.isClosed)
    #expect(!other.isUp && !alive.isClosed)
    #expect(alive.io(.read, byteCount: 512, room: 512)?.error == .success)
    // Asked anew, it has to answer anew.
    let third = try client(3, from: "10.9.0.3")
    server.settle(alive.isClosed)
    server.settle(third.isUp)
  }

  @Test(
    "keeps its devices when one of its paths is replaced, and nothing is begun twice in a chunk")
  func samePath() throws {
    let client = try client(1)
    server.settle(client.isUp)
    #expect(try client.open("disk", .readWrite).error == .success)
    server.backend.set(isOpen: false)
    let block = [UInt8](repeating: 9, count: 512)
    let write = IORequest(device: 0, sector: 4, operation: .write, dataByteCount: 512).encoded
    client.send(write, chunk: 2, data: block)
    server.settle(server.backend.waitingCount == 1)
    let again = PlayedClient(server, session: 1, attempt: 2)
    server.settle()
    try again.introduce("board")
    server.settle(again.isUp && client.isClosed)
    // Its repetition waits for the first copy, and is answered once.
    again.send(write, chunk: 2, data: block)
    for _ in 0..<20 { server.settle() }
    #expect(server.backend.waitingCount == 1)
    server.backend.set(isOpen: true)
    let before = server.transport.answers.count
    server.settle(server.transport.answers.count == before + 1)
    #expect(server.transport.answers.last?.connection == again.io)
    #expect(again.io(.read, sector: 4, byteCount: 512, room: 512)?.data == block)
  }
}

@Suite("What a client of RDMA can make the server spend")
struct SpendingTests {
  @Test("is refused before memory is taken, sessions, paths and garbage alike")
  func limits() throws {
    var limits = PlayedServer.limits()
    limits.memoryByteCountMaximum = 2 * 8 * (65_536 + 4096)
    let server = try PlayedServer(limits)
    let transport = server.transport
    let clients = (1...3).map {
      PlayedClient(server, session: UInt64($0), from: ByteString("10.9.0.\($0)"))
    }
    server.settle()
    #expect(transport.memories.count == 2)
    #expect(transport.rejected[clients[2].service] == .outOfMemory)
    #expect(server.engine.sessionCount == 2)
    // The same addresses by another path of one session.
    let twin = PlayedClient(server, session: 1, path: 2, from: "10.9.0.1")
    server.settle()
    #expect(transport.rejected[twin.service] == .exists)
    for garbage in [[], [1, 2, 3], [UInt8](repeating: 0xff, count: 56)] as [[UInt8]] {
      let connection = server.connection(from: "10.9.0.9")
      transport.events.append(.request(connection: connection, privateData: garbage))
      server.settle()
      #expect(transport.rejected[connection] == .connectionReset)
    }
    // When one goes, its memory is there for another.
    transport.events.append(.disconnected(connection: clients[0].service))
    server.settle(server.engine.sessionCount == 1)
    let next = PlayedClient(server, session: 9, from: "10.9.0.7")
    server.settle(transport.accepted[next.service] != nil)
  }

  @Test("is nothing to others, whatever bytes one sends")
  func hostile() throws {
    var random = SeededGenerator(printingAs: "RNBDServer hostile")
    let server = try PlayedServer()
    let victim = PlayedClient(server, session: 1)
    server.settle()
    try victim.introduce("victim")
    server.settle(victim.isUp)
    #expect(try victim.open("disk", .readWrite).error == .success)
    for round in 0..<300 {
      let client = PlayedClient(
        server, session: UInt64(round + 2), from: "10.9.0.66")
      server.settle()
      if round % 4 > 0 {
        try client.introduce("hostile")
        server.settle(client.isUp)
        _ = try client.open("fixed", .readOnly)
      }
      for _ in 0..<Int.random(in: 0..<8, using: &random) where !client.isClosed {
        let chunk = UInt16.random(in: 0..<8, using: &random)
        var bytes = IORequest(
          device: UInt32.random(in: 0..<3, using: &random),
          sector: UInt64.random(in: 0 ... .max, using: &random)
            >> UInt64.random(in: 0..<64, using: &random),
          operation: IOOperation(rawValue: UInt8.random(in: 0..<8, using: &random)),
          dataByteCount: UInt32.random(in: 0...2, using: &random) * 512
        ).encoded
        for _ in 0..<Int.random(in: 0..<3, using: &random) {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(
            in: 0 ... .max, using: &random)
        }
        switch Int.random(in: 0..<5, using: &random) {
        case 0: client.send(bytes, chunk: chunk, data: [UInt8](repeating: 0xee, count: 512))
        case 1: client.send(bytes, chunk: chunk, room: 512)
        case 2:
          client.send(
            bytes, chunk: chunk, room: 1024,
            userByteCount: .random(in: 0 ... .max, using: &random))
        case 3:
          server.transport.events.append(
            .received(connection: client.io, immediate: .random(in: 0 ... .max, using: &random)))
        default: client.send([UInt8](bytes.prefix(3)), chunk: chunk, data: [])
        }
        server.settle()
      }
      server.transport.events.append(.disconnected(connection: client.service))
      server.settle(server.engine.sessionCount == 1)
    }
    let read = try #require(victim.io(.read, byteCount: 4096, room: 4096))
    #expect(read.error == .success && read.data.allSatisfy { $0 == 0 })
    #expect(!victim.isClosed)
  }
}

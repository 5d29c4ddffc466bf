// SPDX-License-Identifier: Apache-2.0
// What connections do to the server and to each other.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

@Suite("Connections")
struct ConnectionTests {
  @Test("do not wait for each other")
  func independence() throws {
    let slow = DelayBackend(over: MemoryBackend(byteCount: 4096))
    let server = try ServerUnderTest([
      Export(name: "slow", base: slow), Export(name: "disk", base: MemoryBackend(byteCount: 4096)),
    ])
    slow.switchTo(.held)
    let waiting = try server.enter("slow")
    try waiting.send(Request(command: .read, cookie: 1, length: 512).encoded)
    while slow.waitingCount == 0 { pause(milliseconds: 1) }
    // One that says nothing, and one in the middle of its handshake.
    let silent = try server.connect()
    let half = try server.connect()
    try half.send([0, 0])
    let quick = try server.enter()
    for cookie in 0..<100 {
      #expect(try quick.ask(Request(command: .read, cookie: UInt64(cookie), length: 512)) == .none)
    }
    slow.switchTo(.none)
    #expect(try waiting.reply() == SimpleReply(error: .none, cookie: 1))
    _ = (silent, half)
  }

  @Test("that vanish inside a write change nothing and disturb nobody")
  func vanishing() throws {
    let backend = MemoryBackend(byteCount: 1 << 20)
    let server = try ServerUnderTest(backend)
    let other = try server.enter()
    for sent in [1, 27, 28, 29, 30_000] {
      let client = try server.enter()
      let bytes =
        Request(command: .write, cookie: 1, length: 65536).encoded
        + [UInt8](repeating: 1, count: 65536)
      try client.send(Array(bytes.prefix(sent)))
    }  // Each is closed here.
    #expect(try other.ask(Request(command: .read, cookie: 2, length: 1 << 20)) == .none)
    #expect(other.lastData.allSatisfy { $0 == 0 })
    while server.registry.connectionCount > 1 { pause(milliseconds: 1) }
    #expect(try other.ask(Request(command: .flush, cookie: 3)) == .none)
  }

  @Test("end at a wrong magic, after what came before has been answered or not")
  func lostFrame() throws {
    let server = try ServerUnderTest(MemoryBackend(byteCount: 4096))
    let client = try server.enter()
    try client.ask(Request(command: .flush, cookie: 1))
    var broken = Request(command: .flush, cookie: 2).encoded
    broken[3] ^= 1
    try client.send(broken)
    #expect(try client.receiveToEnd().isEmpty)
    try server.waitForEnd()
    let ending = try #require(server.closings.last)
    #expect(ending.reason == "the client sent 0x25609512 where a request belongs")
  }

  @Test("end without an answer to DISC, after the answers to what came before it")
  func disconnect() throws {
    let server = try ServerUnderTest(MemoryBackend(byteCount: 4096))
    let client = try server.enter()
    try client.send(
      Request(command: .flush, cookie: 1).encoded + Request(command: .disconnect, cookie: 2).encoded
    )
    #expect(try client.receiveToEnd() == SimpleReply(error: .none, cookie: 1).encoded)
    try server.waitForEnd()
    let ending = try #require(server.closings.last)
    #expect(ending.reason == "disconnected")
    #expect(ending.counters == SessionCounters(flushes: 1))
  }

  @Test("that do not finish their handshake in time are closed, whatever they send")
  func handshakeDeadline() throws {
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = 50
    let export = Export(name: "disk", base: MemoryBackend(byteCount: 4096))
    let server = try ServerUnderTest([export], limits: limits)
    let silent = try server.connect()
    let slow = try server.connect()
    try slow.send([0, 0, 0])
    #expect(try silent.receiveToEnd().count == ServerGreeting.byteCount)
    #expect(try slow.receiveToEnd().count == ServerGreeting.byteCount)
    try server.waitForEnd()
    let ends = [SessionEvent](
      repeating: .noSession(
        client: "test", reason: "the client did not finish the negotiation in time"), count: 2)
    #expect(server.reported == ends)
  }

  @Test("above the limit are closed at once, and there is room again when one has gone")
  func connectionLimit() throws {
    let export = Export(name: "disk", base: MemoryBackend(byteCount: 4096))
    let server = try ServerUnderTest([export], connectionCountMaximum: 1)
    do {
      let first = try server.enter()
      let second = try server.connect()
      #expect(try second.receiveToEnd().isEmpty)
      // The first one may tell of itself later: it is answered before it is reported.
      #expect(server.reported.contains(.refused(client: "test", .tooMany(maximum: 1))))
      #expect(try first.ask(Request(command: .flush, cookie: 1)) == .none)
    }
    try server.waitForEnd()
    let later = try server.enter()
    #expect(try later.ask(Request(command: .flush, cookie: 1)) == .none)
  }

  @Test("get the answers to what has arrived when the server stops")
  func stopping() throws {
    let backend = DelayBackend(over: MemoryBackend(byteCount: 4096))
    let server = try ServerUnderTest(backend)
    let idle = try server.enter()
    let negotiating = try server.connect()
    let busy = try server.enter()
    backend.switchTo(.held)
    try busy.send(
      Request(command: .write, cookie: 1, length: 4).encoded + [1, 2, 3, 4]
        + Request(command: .read, cookie: 2, length: 4).encoded)
    while backend.waitingCount == 0 { pause(milliseconds: 1) }
    server.server.stop()
    #expect(try idle.receiveToEnd().isEmpty)
    #expect(try negotiating.receiveToEnd().count == ServerGreeting.byteCount)
    backend.switchTo(.none)
    #expect(
      try busy.receiveToEnd() == SimpleReply(error: .none, cookie: 1).encoded
        + SimpleReply(error: .none, cookie: 2).encoded + [1, 2, 3, 4])
    try server.waitForEnd()
  }

  @Test("that send random bytes end, and the server goes on")
  func randomBytes() throws {
    var generator = SeededGenerator(printingAs: "random bytes to the server")
    let server = try ServerUnderTest(MemoryBackend(byteCount: 4096))
    for round in 0..<60 {
      let client: TestClient
      if round % 2 == 0 { client = try server.enter() } else { client = try server.connect() }
      var bytes = (0..<200).map { _ in UInt8.random(in: 0...255, using: &generator) }
      if round % 4 == 0 {
        let request = Request(
          flags: CommandFlags(rawValue: UInt16.random(in: 0...31, using: &generator)),
          command: CommandCode(rawValue: UInt16.random(in: 0...9, using: &generator)), cookie: 5,
          offset: UInt64.random(in: 0...5000, using: &generator),
          length: UInt32.random(in: 0...5000, using: &generator))
        bytes = request.encoded + bytes
      }
      // The server may have closed before all of it was sent.
      try? client.send(bytes)
    }
    try server.waitForEnd()
    let later = try server.enter()
    #expect(try later.ask(Request(command: .flush, cookie: 1)) == .none)
  }

  @Test("to an overlay have a layer each")
  func overlays() throws {
    let directory = try TemporaryDirectory()
    let base = MemoryBackend(contents: [UInt8](repeating: 1, count: 1 << 20))
    let server = try ServerUnderTest([
      Export(
        name: "disk", access: .overlay, base: base,
        overlayDirectory: .init(directory.path))
    ])
    let first = try server.enter()
    let second = try server.enter()
    try first.ask(Request(command: .write, cookie: 1, offset: 100, length: 2), [7, 7])
    try second.ask(Request(command: .write, cookie: 1, offset: 101, length: 2), [8, 8])
    try first.ask(Request(command: .read, cookie: 2, offset: 99, length: 5))
    #expect(first.lastData == [1, 7, 7, 1, 1])
    try second.ask(Request(command: .read, cookie: 2, offset: 99, length: 5))
    #expect(second.lastData == [1, 1, 8, 8, 1])
    #expect(base.bytes.allSatisfy { $0 == 1 })
  }

  @Test("to an overlay that cannot be made are told so, and the log says why")
  func noOverlay() throws {
    let server = try ServerUnderTest([
      Export(
        name: "disk", access: .overlay, base: MemoryBackend(byteCount: 512),
        overlayDirectory: "/nosuch")
    ])
    let client = try server.connect()
    _ = try client.receive(ServerGreeting.byteCount)
    let data = InformationRequest(name: "disk", items: []).encoded
    try client.send(
      ClientFlags([.fixedNewstyle, .noZeroes]).encoded
        + OptionHeader(option: .go, dataByteCount: UInt32(data.count)).encoded + data)
    let reply = try client.receive(OptionReplyHeader.byteCount)
    let header = try OptionReplyHeader(decoding: reply.span)
    #expect(header.type == .errPlatform)
    _ = try client.receive(Int(header.dataByteCount))
    try client.send(OptionHeader(option: .abort, dataByteCount: 0).encoded)
    _ = try client.receiveToEnd()
    try server.waitForEnd()
    #expect(server.failures.last?.contains("/nosuch") == true)
  }
}

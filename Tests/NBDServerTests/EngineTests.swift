// SPDX-License-Identifier: Apache-2.0
// Crowds, slow clients, files that change under the server: what the engine does with its threads
// is not to be seen by a client.

import BlockBackends
import BlockServer
import Foundation
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

@Suite("The engine")
struct EngineTests {
  static let byteCount = 8 << 20

  let directory: TemporaryDirectory
  let contents: [UInt8]
  let backend: FileBackend

  init() throws {
    directory = try TemporaryDirectory()
    var generator = SeededGenerator(printingAs: "the image")
    // A length that no offset of a test is a multiple of.
    let pattern = (0..<61_441).map { _ in UInt8.random(in: 0...255, using: &generator) }
    var contents: [UInt8] = []
    while contents.count < Self.byteCount { contents += pattern }
    contents.removeSubrange(Self.byteCount...)
    self.contents = contents
    backend = try FileBackend(ByteString(try directory.file("image", contents)))
  }

  /// Around what is copied and what is sent from the file, and as long as may be.
  static let lengths: [Int] = [1, 4096, 32767, 32768, 32769, 65536, 1 << 20, 8 << 20]

  @Test("gives the bytes of the file, whether it copies them or not", arguments: lengths)
  func lengthsOfReads(length: Int) throws {
    for overTCP in [false, true] {
      let client = try ServerUnderTest(backend, overTCP: overTCP).enter()
      // The first ones are served by a reactor, the later ones by a thread of the session's own.
      for round in 0..<8 {
        let offset = min(round * 4099, Self.byteCount - length)
        let request = Request(
          command: .read, cookie: UInt64(round), offset: UInt64(offset), length: UInt32(length))
        #expect(try client.ask(request) == .none)
        let wanted = Array(contents[offset..<(offset + length)])
        #expect(difference(of: client.lastData, from: wanted) == nil)
      }
    }
  }

  @Test("takes a long write in whatever pieces it comes, a silence among them")
  func writeInPieces() throws {
    let payload = (0..<(3 << 20)).map { UInt8(truncatingIfNeeded: $0 % 251) }
    for overTCP in [false, true] {
      let client = try ServerUnderTest(backend, overTCP: overTCP).enter()
      // What comes before it is in a thread of the session's own, which waits for the payload.
      for cookie in 0..<8 {
        #expect(try client.ask(Request(command: .read, cookie: UInt64(cookie), length: 4)) == .none)
      }
      try client.send(
        Request(command: .write, cookie: 9, offset: 4099, length: UInt32(payload.count)).encoded)
      var sent = 0
      for count in [100_000, 1_000_000, 1, 1, 700_000, 600_001, 1, 3 << 20] {
        let end = min(sent + count, payload.count)
        try client.send(Array(payload[sent..<end]))
        sent = end
        // For so long that the session gives its thread up.
        if count == 700_000 { pause(milliseconds: 300) }
      }
      #expect(try client.reply() == SimpleReply(error: .none, cookie: 9))
      let request = Request(
        command: .read, cookie: 10, offset: 4099, length: UInt32(payload.count))
      #expect(try client.ask(request) == .none)
      #expect(difference(of: client.lastData, from: payload) == nil)
    }
  }

  @Test(
    "takes long writes past the page cache in whatever pieces they come, a silence among them",
    arguments: [false, true])
  func longWritesPastTheCache(isAttached: Bool) throws {
    let direct = try FileBackend(ByteString(directory.path("image")), options: .direct)
    for overTCP in [false, true] {
      let server = try ServerUnderTest(direct, overTCP: overTCP)
      try writeInPieces(isAttached ? server.enter(as: identity(1)) : server.enter())
      try server.waitForEnd()
    }
  }

  /// Leaves in the middle of a payload.
  private func writeInPieces(_ client: TestClient) throws {
    var generator = SeededGenerator(printingAs: "long writes past the page cache")
    for cookie in 0..<8 {
      #expect(
        try client.ask(Request(command: .read, cookie: UInt64(cookie), length: 4096)) == .none)
    }
    for (round, length) in [2 << 20, 131_072, 1 << 20, 135_168, 2 << 20].enumerated() {
      let payload = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
      try client.send(
        Request(
          flags: round % 2 == 0 ? .fua : [], command: .write, cookie: UInt64(round), offset: 8192,
          length: UInt32(length)
        ).encoded)
      var sent = 0
      for count in [1, length / 4 * 3, length - length / 4 * 3 - 1] {
        // For so long that the session gives its thread up.
        if round == 1 || round == 4 && sent > 1 { pause(milliseconds: 300) }
        try client.send(Array(payload[sent..<(sent + count)]))
        sent += count
      }
      #expect(try client.reply() == SimpleReply(error: .none, cookie: UInt64(round)))
      let read = Request(command: .read, cookie: 9, offset: 8192, length: UInt32(length))
      #expect(try client.ask(read) == .none)
      #expect(difference(of: client.lastData, from: payload) == nil, "seed \(generator.seed)")
    }
    try client.send(Request(command: .write, cookie: 10, length: 1 << 20).encoded)
    try client.send([UInt8](repeating: 1, count: 100_000))
  }

  /// Random requests of all sizes, all under way at once.
  private func send(
    _ count: Int, to client: TestClient, using generator: inout SeededGenerator
  ) throws -> [UInt8] {
    var requests: [UInt8] = []
    var answer: [UInt8] = []
    for cookie in 0..<UInt64(count) {
      let length = Int(Self.lengths.randomElement(using: &generator) ?? 1) % (1 << 20)
      let offset = Int.random(in: 0...(Self.byteCount - length), using: &generator)
      requests.append(
        encoding: Request(
          command: .read, cookie: cookie, offset: UInt64(offset), length: UInt32(length)))
      answer.append(encoding: SimpleReply(error: .none, cookie: cookie))
      answer += contents[offset..<(offset + length)]
    }
    try client.send(requests)
    return answer
  }

  @Test("serves a crowd, each client in order, however slowly they take their answers")
  func crowd() throws {
    var generator = SeededGenerator(printingAs: "requests of a crowd")
    let server = try ServerUnderTest(backend)
    var clients: [(client: TestClient, answer: [UInt8])] = []
    for _ in 0..<40 { clients.append((try server.enter(), [])) }
    for _ in 0..<2 {
      // Nobody takes anything until all have asked: no socket has room for so much.
      for index in clients.indices {
        clients[index].answer = try send(10, to: clients[index].client, using: &generator)
      }
      for (client, answer) in clients {
        let received = try client.receive(answer.count)
        #expect(difference(of: received, from: answer) == nil, "seed \(generator.seed)")
      }
    }
    #expect(server.registry.connectionCount == 40)
  }

  @Test("serves others while clients do not take their answers, or stop inside a request")
  func slowClients() throws {
    let server = try ServerUnderTest(backend)
    var slow: [TestClient] = []
    for index in 0..<40 {
      let client = try server.enter()
      slow.append(client)
      switch index % 3 {
      case 0:
        let request = Request(command: .read, cookie: 1, length: UInt32(Self.byteCount))
        try client.send(request.encoded + request.encoded)
      case 1: try client.send([0x25, 0x60])
      default:
        let request = Request(command: .write, cookie: 1, offset: 4096, length: 65536)
        try client.send(request.encoded + [1, 2, 3])
      }
    }
    let quick = try server.enter()
    for cookie in 0..<200 {
      let request = Request(command: .read, cookie: UInt64(cookie), length: 512)
      #expect(try quick.ask(request) == .none)
      #expect(quick.lastData == Array(contents[..<512]))
    }
    #expect(server.registry.connectionCount == 41)
  }

  @Test("serves others while many do not get on with their handshake")
  func halfHandshakes() throws {
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = 60_000
    let server = try ServerUnderTest(
      [Export(name: "disk", base: backend)], limits: limits, connectionCountMaximum: 300)
    var half: [TestClient] = []
    for index in 0..<200 {
      let client = try server.connect()
      try client.send([UInt8](repeating: 0, count: index % 4))
      half.append(client)
    }
    let quick = try server.enter()
    #expect(try quick.ask(Request(command: .read, cookie: 1, length: 512)) == .none)
    #expect(server.registry.connectionCount == 201)
    half = []
    try wait("the end of the handshakes") { server.registry.connectionCount == 1 }
    #expect(try quick.ask(Request(command: .read, cookie: 2, length: 512)) == .none)
  }

  @Test("leaves nothing behind after many handshakes")
  func manyHandshakes() throws {
    let server = try ServerUnderTest(backend)
    for _ in 0..<500 {
      let client = try server.enter()
      try client.send(Request(command: .disconnect, cookie: 1).encoded)
      #expect(try client.receiveToEnd().isEmpty)
    }
    try server.waitForEnd()
    try wait("the reports") { server.closings.count == 500 }
    #expect(server.closings.allSatisfy { $0.reason == "disconnected" })
  }

  @Test("answers EIO where the file was cut, of any length, and goes on", arguments: [512, 65536])
  func cutFile(length: UInt32) throws {
    let server = try ServerUnderTest(backend)
    let client = try server.enter()
    let request = Request(command: .read, cookie: 1, offset: 1 << 20, length: length)
    for _ in 0..<8 { #expect(try client.ask(request) == .none) }
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: directory.path("image")))
    try file.truncate(atOffset: 1 << 19)
    for _ in 0..<8 { #expect(try client.ask(request) == .eio) }
    // In part, too.
    let across = Request(command: .read, cookie: 2, offset: 1 << 19 - 4096, length: 65536)
    #expect(try client.ask(across) == .eio)
    #expect(try client.ask(Request(command: .read, cookie: 3, length: length)) == .none)
    #expect(difference(of: client.lastData, from: Array(contents[..<Int(length)])) == nil)
    try file.truncate(atOffset: UInt64(Self.byteCount))
    #expect(try client.ask(request) == .none)
    #expect(client.lastData.allSatisfy { $0 == 0 })
  }

  /// In a file system in memory, where requests that come together are answered from a mapping, and
  /// long payloads are received into it.
  @Test("serves a file in memory without copies, and without harm when somebody cuts it")
  func fileInMemory() throws {
    var generator = SeededGenerator(printingAs: "requests to a file in memory")
    let memory = try TemporaryDirectory(inMemory: true)
    defer { withExtendedLifetime(memory) {} }
    let path = try memory.file("image", contents)
    for overTCP in [false, true] {
      let server = try ServerUnderTest(try FileBackend(ByteString(path)), overTCP: overTCP)
      let client = try server.enter()
      for _ in 0..<6 {
        let answer = try send(100, to: client, using: &generator)
        let received = try client.receive(answer.count)
        #expect(difference(of: received, from: answer) == nil, "seed \(generator.seed)")
      }
      // Long payloads, in frame with what comes before and behind them.
      var sent: [UInt8] = []
      var answer: [UInt8] = []
      for (cookie, flags) in [CommandFlags(), .fua, CommandFlags(), .fua].enumerated() {
        let offset = cookie * (1 << 20) + 77
        sent.append(
          encoding: Request(
            flags: flags, command: .write, cookie: UInt64(cookie), offset: UInt64(offset),
            length: 1 << 20))
        sent += contents[offset..<(offset + 1 << 20)]
        answer.append(encoding: SimpleReply(error: .none, cookie: UInt64(cookie)))
      }
      sent.append(encoding: Request(command: .flush, cookie: 9))
      answer.append(encoding: SimpleReply(error: .none, cookie: 9))
      try client.send(sent)
      #expect(try difference(of: client.receive(answer.count), from: answer) == nil)
      let file = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
      #expect(difference(of: file, from: contents) == nil)
    }

    let client = try ServerUnderTest(try FileBackend(ByteString(path))).enter()
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: 4096)
    var batch: [UInt8] = []
    for cookie in 0..<UInt64(100) {
      batch.append(encoding: Request(command: .read, cookie: cookie, offset: 4000, length: 512))
    }
    for _ in 0..<3 {
      try client.send(batch)
      for cookie in 0..<UInt64(100) {
        #expect(try client.reply() == SimpleReply(error: .eio, cookie: cookie))
      }
    }
    let write = Request(command: .write, cookie: 1, offset: 1 << 20, length: 1 << 20)
    #expect(try client.ask(write, [UInt8](repeating: 7, count: 1 << 20)) == .none)
    #expect(try client.ask(Request(command: .read, cookie: 2, offset: 1 << 20, length: 9)) == .none)
    #expect(client.lastData == [UInt8](repeating: 7, count: 9))
  }

  @Test("writes short payloads to a file in memory in the order in which they came, cut or not")
  func shortWritesInMemory() throws {
    var generator = SeededGenerator(printingAs: "writes to a file in memory")
    let memory = try TemporaryDirectory(inMemory: true)
    defer { withExtendedLifetime(memory) {} }
    let path = try memory.file("image", contents)
    let client = try ServerUnderTest(try FileBackend(ByteString(path))).enter()
    var model = contents
    for _ in 0..<6 {
      var (sent, answer): ([UInt8], [UInt8]) = ([], [])
      for cookie in 0..<UInt64(100) {
        // Near each other, so that many overlap; the reads elsewhere, for among requests under way
        // a read may see what was asked for later.
        let isWrite = Int.random(in: 0..<4, using: &generator) > 0
        let offset = Int.random(in: 0..<65536, using: &generator) + (isWrite ? 0 : 1 << 20)
        let length = Int.random(in: 1...9000, using: &generator)
        let flags: CommandFlags = isWrite && Bool.random(using: &generator) ? .fua : []
        sent.append(
          encoding: Request(
            flags: flags, command: isWrite ? .write : .read, cookie: cookie,
            offset: UInt64(offset), length: UInt32(length)))
        answer.append(encoding: SimpleReply(error: .none, cookie: cookie))
        if isWrite {
          let bytes = [UInt8](
            repeating: UInt8.random(in: 0...255, using: &generator), count: length)
          sent += bytes
          model.replaceSubrange(offset..<(offset + length), with: bytes)
        } else {
          answer += model[offset..<(offset + length)]
        }
      }
      try client.send(sent)
      let received = try client.receive(answer.count)
      #expect(difference(of: received, from: answer) == nil, "seed \(generator.seed)")
    }
    let contents = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
    #expect(difference(of: contents, from: model) == nil)

    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: 4096)
    let write = Request(command: .write, cookie: 1, offset: 1 << 20, length: 4096)
    for _ in 0..<8 {
      #expect(try client.ask(write, [UInt8](repeating: 7, count: 4096)) == .none)
    }
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)).suffix(4096).allSatisfy { $0 == 7 })
  }

  @Test("has many requests under way past the page cache, and answers each")
  func direct() throws {
    var generator = SeededGenerator(printingAs: "requests past the page cache")
    let direct = try FileBackend(ByteString(directory.path("image")), options: .direct)
    let server = try ServerUnderTest(direct)
    let client = try server.enter()
    var model = contents
    for round in 0..<20 {
      // Of each block one request at a time: the order among them is nobody's.
      let blocks = Array(0..<(Self.byteCount / 65536)).shuffled(using: &generator).prefix(100)
      var sent: [UInt8] = []
      for block in blocks {
        let isWrite = round > 4 && Bool.random(using: &generator)
        let offset = UInt64(block) * 65536
        // This client takes no replies while it sends: those before a payload fit into the socket.
        let isShort = round > 4 && !isWrite
        let length = isShort ? 4096 : [4096, 8192, 65536].randomElement(using: &generator) ?? 4096
        sent.append(
          encoding: Request(
            flags: isWrite && round % 4 == 0 ? .fua : [], command: isWrite ? .write : .read,
            cookie: UInt64(block) << 32 | UInt64(isWrite ? 0 : length), offset: offset,
            length: UInt32(length)))
        guard isWrite else { continue }
        let value = UInt8.random(in: 0...255, using: &generator)
        sent += [UInt8](repeating: value, count: length)
        for index in Int(offset)..<(Int(offset) + length) { model[index] = value }
      }
      try client.send(sent)
      for _ in blocks {
        let reply = try client.reply()
        #expect(reply.error == .none)
        let (offset, length) = (
          Int(reply.cookie >> 32) * 65536, Int(UInt32(truncatingIfNeeded: reply.cookie))
        )
        if length > 0 {
          let data = try client.receive(length)
          let wanted = Array(model[offset..<(offset + length)])
          #expect(difference(of: data, from: wanted) == nil, "seed \(generator.seed)")
        }
      }
    }
    // What is under way when the client leaves is waited for.
    try client.send(Request(command: .read, cookie: 1, length: 4096).encoded)
    try client.send(Request(command: .disconnect, cookie: 1).encoded)
    #expect(try client.receiveToEnd().count == 16 + 4096)
    try server.waitForEnd()
  }
}

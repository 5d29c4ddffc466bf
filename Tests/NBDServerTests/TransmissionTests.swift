// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

@Suite("A session")
struct TransmissionTests {
  static let mebibyte: UInt64 = 1 << 20

  /// What the backend says, and what the client is told. Source: NBD `doc/proto.md`, "Error
  /// values"; the errnos are Linux's.
  static let errors: [(BackendError, ErrorNumber)] = [
    (.system(SystemError(errno: 5)), .eio),
    (.system(SystemError(errno: 28)), .enospc),
    (.system(SystemError(errno: 122)), .enospc),
    (.system(SystemError(errno: 27)), .enospc),
    (.system(SystemError(errno: 1)), .eperm),
    (.system(SystemError(errno: 30)), .eperm),
    (.system(SystemError(errno: 12)), .enomem),
    (.system(SystemError(errno: 22)), .einval),
    (.system(SystemError(errno: 6)), .eio),
    (.readOnly, .eperm),
    (.truncated, .eio),
    (.range, .einval),
  ]

  @Test("passes each error of the backend on, and goes on", arguments: errors)
  func errorMapping(error: BackendError, number: ErrorNumber) throws {
    let backend = ErrorBackend(over: MemoryBackend(byteCount: 65536))
    let server = try ServerUnderTest(backend)
    let client = try server.enter()
    backend.switchTo(.failing(.all, error))
    for command in [CommandCode.read, .trim, .writeZeroes] {
      #expect(try client.ask(Request(command: command, cookie: 1, length: 512)) == number)
    }
    #expect(try client.ask(Request(command: .flush, cookie: 2)) == number)
    let write = Request(command: .write, cookie: 3, length: 512)
    #expect(try client.ask(write, [UInt8](repeating: 1, count: 512)) == number)
    backend.switchTo(.working)
    #expect(try client.ask(Request(command: .read, cookie: 4, length: 512)) == .none)
    #expect(client.lastData == [UInt8](repeating: 0, count: 512))
  }

  /// Requests on an export of 1 MiB, and their errors. Source: NBD `doc/proto.md`, "Request types".
  static let requests: [(Request, ErrorNumber)] = [
    (Request(command: .read, cookie: 1, offset: mebibyte - 1, length: 1), .none),
    (Request(command: .read, cookie: 1, offset: mebibyte - 1, length: 2), .einval),
    (Request(command: .read, cookie: 1, offset: .max, length: .max), .einval),
    (Request(command: .read, cookie: 1, offset: .max - 1, length: 512), .einval),
    (Request(command: .read, cookie: 1, length: 32 << 20 + 1), .einval),
    (Request(flags: .df, command: .read, cookie: 1, length: 1), .einval),
    (Request(flags: .fua, command: .read, cookie: 1, length: 1), .none),
    (Request(flags: .noHole, command: .read, cookie: 1, length: 1), .einval),
    (Request(command: .writeZeroes, cookie: 1, offset: mebibyte, length: 1), .enospc),
    (Request(command: .writeZeroes, cookie: 1, length: .max), .enospc),
    (Request(flags: [.noHole, .fua], command: .writeZeroes, cookie: 1, length: 9), .none),
    (Request(flags: .fastZero, command: .writeZeroes, cookie: 1, length: 9), .none),
    (Request(command: .trim, cookie: 1, offset: mebibyte, length: 1), .einval),
    (Request(flags: .fua, command: .trim, cookie: 1, length: 1), .none),
    (Request(flags: .noHole, command: .trim, cookie: 1, length: 1), .einval),
    (Request(command: .flush, cookie: 1, offset: 1), .einval),
    (Request(command: .flush, cookie: 1, length: 1), .einval),
    (Request(flags: .fua, command: .flush, cookie: 1), .none),
    (Request(command: .cache, cookie: 1, length: 1), .none),
    (Request(command: .cache, cookie: 1, offset: mebibyte, length: 1), .einval),
    (Request(command: .blockStatus, cookie: 1, length: 1), .einval),
    (Request(command: .resize, cookie: 1, offset: 1), .einval),
    (Request(command: CommandCode(rawValue: .max), cookie: 1, length: .max), .einval),
    (Request(flags: CommandFlags(rawValue: 1 << 15), command: .flush, cookie: 1), .einval),
    (Request(command: .read, cookie: 1), .none),
    (Request(command: .trim, cookie: 1, offset: mebibyte), .none),
    (Request(command: .read, cookie: 1, offset: mebibyte + 1), .einval),
  ]

  @Test("answers a request by its rules and stays in frame", arguments: requests)
  func rules(request: Request, error: ErrorNumber) throws {
    let client = try ServerUnderTest(MemoryBackend(byteCount: 1 << 20)).enter()
    #expect(try client.ask(request) == error)
    #expect(try client.ask(Request(command: .read, cookie: 9, offset: 4096, length: 16)) == .none)
  }

  /// WRITEs that are refused: their payload is taken all the same.
  static let refusedWrites: [(Request, AccessMode, ErrorNumber)] = [
    (Request(command: .write, cookie: 1, length: 512), .readOnly, .eperm),
    (Request(command: .write, cookie: 1, length: 3 << 20), .readOnly, .eperm),
    (Request(command: .write, cookie: 1, offset: mebibyte, length: 1), .readWrite, .enospc),
    (Request(command: .write, cookie: 1, offset: .max, length: 5 << 20), .readWrite, .enospc),
    (Request(command: .write, cookie: 1, length: 32 << 20 + 1), .readWrite, .einval),
    (Request(flags: .noHole, command: .write, cookie: 1, length: 70_000), .readWrite, .einval),
    (Request(flags: .df, command: .write, cookie: 1, length: 0), .readWrite, .einval),
  ]

  @Test("takes the payload of a write that it refuses", arguments: refusedWrites)
  func refusedWrite(request: Request, access: AccessMode, error: ErrorNumber) throws {
    let backend = MemoryBackend(byteCount: 1 << 20)
    let client = try ServerUnderTest(backend, access: access).enter()
    #expect(try client.ask(request, [UInt8](repeating: 1, count: Int(request.length))) == error)
    #expect(try client.ask(Request(command: .read, cookie: 9, length: 1 << 20)) == .none)
    #expect(client.lastData.allSatisfy { $0 == 0 })
  }

  @Test("refuses every kind of write on a read-only export with EPERM")
  func readOnly() throws {
    let client = try ServerUnderTest(MemoryBackend(byteCount: 4096), access: .readOnly).enter()
    for command in [CommandCode.trim, .writeZeroes] {
      #expect(try client.ask(Request(command: command, cookie: 1, length: 1)) == .eperm)
    }
    #expect(
      try client.ask(Request(flags: .fua, command: .write, cookie: 1, length: 1), [1]) == .eperm)
    #expect(try client.ask(Request(command: .flush, cookie: 1)) == .none)
  }

  @Test("moves the longest request that there may be, and leaves no trace of its memory")
  func longest() throws {
    let backend = MemoryBackend(byteCount: 32 << 20)
    let client = try ServerUnderTest(backend).enter()
    let data = [UInt8](repeating: 0x5a, count: 32 << 20)
    #expect(try client.ask(Request(command: .write, cookie: 1, length: 32 << 20), data) == .none)
    #expect(difference(of: backend.bytes, from: data) == nil)
    #expect(try client.ask(Request(command: .read, cookie: 1, length: 32 << 20)) == .none)
    #expect(difference(of: client.lastData, from: data) == nil)
  }

  @Test("asks the backend for durability where the client does, and only there")
  func durability() throws {
    let backend = RecordingBackend(byteCount: 8 << 20)
    let client = try ServerUnderTest(backend).enter()
    let data = [UInt8](repeating: 0, count: 3 << 20)
    try client.ask(
      Request(flags: .fua, command: .write, cookie: 1, length: 512), Array(data.prefix(512)))
    try client.ask(Request(command: .write, cookie: 1, length: 512), Array(data.prefix(512)))
    try client.ask(Request(flags: .fua, command: .write, cookie: 1, length: 3 << 20), data)
    try client.ask(Request(flags: [.fua, .noHole], command: .writeZeroes, cookie: 1, length: 7))
    try client.ask(Request(command: .writeZeroes, cookie: 1, length: 7))
    try client.ask(Request(flags: .fua, command: .trim, cookie: 1, length: 7))
    try client.ask(Request(command: .flush, cookie: 1))
    let calls: [RecordingBackend.Call] = [
      .write(0, 512, isDurable: true), .write(0, 512, isDurable: false),
      // A long write goes down in pieces; the last makes all of them durable.
      .write(0, 1 << 20, isDurable: false), .write(1 << 20, 1 << 20, isDurable: false),
      .write(2 << 20, 1 << 20, isDurable: true),
      .zero(0..<7, mayPunch: false, isDurable: true),
      .zero(0..<7, mayPunch: true, isDurable: false), .trim(0..<7, isDurable: true), .flush,
    ]
    #expect(backend.calls == calls)
  }

  @Test("refuses what is not a multiple of the minimum block")
  func alignment() throws {
    let backend = RecordingBackend(byteCount: 1 << 20, minimum: 512)
    let client = try ServerUnderTest(backend).enter()
    #expect(try client.ask(Request(command: .read, cookie: 1, offset: 1, length: 512)) == .einval)
    #expect(try client.ask(Request(command: .trim, cookie: 1, offset: 512, length: 1)) == .einval)
    #expect(
      try client.ask(Request(command: .write, cookie: 1, length: 7), [1, 2, 3, 4, 5, 6, 7])
        == .einval)
    #expect(try client.ask(Request(command: .read, cookie: 1, offset: 512, length: 512)) == .none)
    #expect(backend.calls == [.read(512, 512)])
  }

  /// A stream of requests, with what the server must answer, in order.
  private static func stream(
    _ count: Int, using generator: inout SeededGenerator
  ) -> (sent: [UInt8], answer: [UInt8], final: [UInt8]) {
    var model = [UInt8](repeating: 0, count: 65536)
    var sent: [UInt8] = []
    var answer: [UInt8] = []
    for cookie in 0..<UInt64(count) {
      let offset = Int.random(in: 0...65536, using: &generator)
      let length = Int.random(in: 0...min(3000, 65536 - offset), using: &generator)
      let command: CommandCode =
        [.read, .write, .writeZeroes, .flush, .resize]
        .randomElement(using: &generator) ?? .read
      let isFlush = command == .flush
      let request = Request(
        command: command, cookie: cookie, offset: isFlush ? 0 : UInt64(offset),
        length: isFlush ? 0 : UInt32(length))
      sent.append(encoding: request)
      let error: ErrorNumber = command == .resize ? .einval : .none
      answer.append(encoding: SimpleReply(error: error, cookie: cookie))
      switch command {
      case .read: answer += model[offset..<(offset + length)]
      case .write:
        let value = UInt8.random(in: 0...255, using: &generator)
        sent += [UInt8](repeating: value, count: length)
        for index in offset..<(offset + length) { model[index] = value }
      case .writeZeroes: for index in offset..<(offset + length) { model[index] = 0 }
      default: break
      }
    }
    return (sent, answer, model)
  }

  @Test(
    "answers requests in the order in which they came, however the stream is split",
    arguments: [1, 13, 1000, .max])
  func splits(piece: Int) throws {
    var generator = SeededGenerator(printingAs: "requests in pieces of \(piece)")
    let backend = MemoryBackend(byteCount: 65536)
    let client = try ServerUnderTest(backend).enter()
    let stream = Self.stream(piece == 1 ? 10 : 100, using: &generator)
    var rest = stream.sent[...]
    while !rest.isEmpty {
      try client.send(Array(rest.prefix(piece)))
      rest = rest.dropFirst(piece)
    }
    let answer = try client.receive(stream.answer.count)
    #expect(difference(of: answer, from: stream.answer) == nil, "seed \(generator.seed)")
    #expect(difference(of: backend.bytes, from: stream.final) == nil, "seed \(generator.seed)")
  }
}

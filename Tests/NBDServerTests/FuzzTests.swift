// SPDX-License-Identifier: Apache-2.0
// Hostile clients, made up by the thousand from a seed, beside a client that only wants its data.
//
// ROOTLINK_TEST_SEED brings a run back; ROOTLINK_FUZZ_SECONDS makes it last so long instead of its
// few thousand sessions; ROOTLINK_FUZZ_FIRST begins with the session of that number.

import BlockBackends
import BlockServer
import CLinux
import Foundation
import LinuxSystem
import NBDProtocol
import NBDServer
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Reads from an export and compares, as long as it lives, on one connection after the other.
final class SteadyClient: Sendable {
  private struct State {
    var readCount = 0
    var failure: String?
    var isOver = false
  }
  private let state = Mutex(State())
  private let isStopping = Atomic(false)

  init(_ server: ServerUnderTest, _ export: ByteString, contents: [UInt8], seed: UInt64) {
    Thread.detachNewThread { [self] in
      do {
        var generator = SeededGenerator(seed: seed)
        while !isStopping.load(ordering: .relaxed) {
          try serve(server, export, contents, &generator)
        }
      } catch {
        state.withLock { $0.failure = "\(error)" }
      }
      state.withLock { $0.isOver = true }
    }
  }

  private func serve(
    _ server: ServerUnderTest, _ export: ByteString, _ contents: [UInt8],
    _ generator: inout SeededGenerator
  ) throws {
    let style: ReplyStyle = [.simple, .structured, .extended][Int(generator.next() % 3)]
    let client = try StyledClient(server, export, style: style)
    for _ in 0..<200 where !isStopping.load(ordering: .relaxed) {
      let offset = Int.random(in: 0..<contents.count, using: &generator)
      let count = Int.random(in: 1...min(65536, contents.count - offset), using: &generator)
      let answer = try client.ask(.read, at: UInt64(offset), count: UInt64(count))
      guard answer.error == .none, answer.data[...] == contents[offset..<(offset + count)] else {
        throw Violation("\(count) bytes from \(offset) were read wrong")
      }
      state.withLock { $0.readCount += 1 }
    }
  }

  var readCount: Int { state.withLock { $0.readCount } }
  var failure: String? { state.withLock { $0.failure } }

  /// Ends it and returns once it has ended.
  func stop() throws {
    isStopping.store(true, ordering: .relaxed)
    try wait("the end of the working client") { state.withLock { $0.isOver } }
  }
}

@Suite("Hostile clients")
struct FuzzTests {
  private static func number(_ name: String) -> Int? {
    ProcessInfo.processInfo.environment[name].flatMap { Int($0) }
  }
  /// About 20 s of an otherwise idle processor.
  private static let sessionCount = 2500

  private static func entryCount(_ directory: String) -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: directory).count) ?? 0
  }
  /// Descriptors and threads of this process.
  private static var resources: (descriptors: Int, threads: Int) {
    (entryCount("/proc/self/fd"), entryCount("/proc/self/task"))
  }

  private static func exports(
    _ directory: TemporaryDirectory
  ) throws -> (served: [Export], known: [FuzzExport]) {
    var generator = SeededGenerator(seed: 7)
    let pattern = (0..<(1 << 20)).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    let file = try FileBackend(ByteString(directory.file("file")), byteCount: 4 << 20)
    // Past the page cache, where the file system can: requests overtake each other there.
    let path = ByteString(try directory.file("direct"))
    let direct =
      try (try? FileBackend(path, options: .direct, byteCount: 1 << 20))
      ?? FileBackend(path, byteCount: 1 << 20)
    return (
      [
        Export(name: "file", base: file),
        Export(name: "blocks", base: BlockyBackend(byteCount: 1 << 20)),
        Export(
          name: "layer", access: .overlay, base: MemoryBackend(contents: pattern),
          overlayDirectory: ByteString(directory.path)),
        Export(name: "direct", base: direct),
        Export(name: "fixed", access: .readOnly, base: MemoryBackend(contents: pattern)),
      ],
      [
        FuzzExport("file", [UInt8](repeating: 0, count: 4 << 20)),
        FuzzExport("blocks", [UInt8](repeating: 0, count: 1 << 20), alignment: 512),
        FuzzExport("layer", pattern, isFresh: true),
        FuzzExport(
          "direct", [UInt8](repeating: 0, count: 1 << 20),
          alignment: UInt64(direct.blockSizes.minimum)),
        FuzzExport("fixed", pattern, isReadOnly: true),
      ]
    )
  }

  @Test("get the right error or a closed connection, and others never notice")
  func fuzz() throws {
    let base = SeededGenerator(printingAs: "hostile clients").seed
    let directory = try TemporaryDirectory()
    var (served, known) = try Self.exports(directory)
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = 60_000
    let server = try ServerUnderTest(served, limits: limits)
    let steady = SteadyClient(server, "fixed", contents: known[4].initial, seed: base)

    let first = Self.number("ROOTLINK_FUZZ_FIRST") ?? 0
    let deadline = Self.number("ROOTLINK_FUZZ_SECONDS").map {
      Deadline.milliseconds(UInt64($0) * 1000)
    }
    var before = Self.resources
    var done = 0
    while deadline.map({ !$0.hasPassed }) ?? (done < Self.sessionCount) {
      let session = first + done
      // The working client has one connection, and between two none.
      if done == 100 { before = Self.resources }
      do {
        var fuzz = FuzzSession(seed: base &+ UInt64(session) &* 0x9e37_79b9_7f4a_7c15)
        try fuzz.run(on: server, exports: &known)
        try wait("the end of the session") { server.registry.connectionCount <= 1 }
      } catch {
        Issue.record(
          "\(error); again with ROOTLINK_TEST_SEED=\(base) ROOTLINK_FUZZ_FIRST=\(session)")
        break
      }
      done += 1
      if let failure = steady.failure {
        Issue.record("the working client: \(failure), beside session \(session) of seed \(base)")
        break
      }
    }
    try steady.stop()
    try server.waitForEnd()
    #expect(steady.failure == nil)
    #expect(steady.readCount > 0)
    print("hostile clients: \(done) sessions, \(steady.readCount) reads beside them")
    // Other suites of this process have descriptors and threads, too, but not one a session.
    let slack = max(100, done / 10)
    try wait("that descriptors and threads are given back") {
      let after = Self.resources
      return after.descriptors < before.descriptors + slack
        && after.threads < before.threads + slack
    }
  }

  @Test("that take their time with the handshake, two hundred of them, hold nobody up")
  func slowHandshakes() throws {
    var generator = SeededGenerator(seed: 7)
    let pattern = (0..<(1 << 20)).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = 600_000
    let server = try ServerUnderTest(
      [Export(name: "disk", access: .readOnly, base: MemoryBackend(contents: pattern))],
      limits: limits, connectionCountMaximum: 400)
    func option(_ code: OptionCode, _ data: [UInt8] = []) -> [UInt8] {
      OptionHeader(option: code, dataByteCount: UInt32(data.count)).encoded + data
    }
    let handshake =
      ClientFlags([.fixedNewstyle, .noZeroes]).encoded
      + option(.structuredReply)
      + option(
        .setMetaContext,
        MetaContextRequest(name: "disk", queries: ["base:allocation"]).encoded)
      + option(.info, InformationRequest(name: "disk", items: []).encoded)
    let slow = try (0..<200).map { _ in try server.connect() }
    let steady = SteadyClient(server, "disk", contents: pattern, seed: 1)
    for byte in handshake {
      let before = steady.readCount
      for client in slow { try client.send([byte]) }
      try wait("a read beside slow handshakes") {
        steady.readCount > before || steady.failure != nil
      }
    }
    try steady.stop()
    #expect(steady.failure == nil)
    // They are answered all the same, to the last: the answer to INFO ends with an ACK.
    for client in slow {
      try client.send(option(.abort))
      let answer = try client.receiveToEnd()
      #expect(
        answer.suffix(20)
          == OptionReplyHeader(option: .abort, type: .ack, dataByteCount: 0).encoded[...])
    }
    try server.waitForEnd()
  }
}

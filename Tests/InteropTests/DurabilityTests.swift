// SPDX-License-Identifier: Apache-2.0
// What was acknowledged is there when the server has been killed or stopped under load.

import Foundation
import LinuxSystem
import NBDClient
import NBDProtocol
import TestSupport
import Testing
import WireFormat

/// An export in one of the ways in which its bytes can be kept.
struct KeptExport: CustomTestStringConvertible, Sendable {
  let testDescription: String
  /// What follows the path in `--export`; `@` stands for the directory.
  let options: String
  var isOverlay: Bool { options.contains("overlay") }

  static let all = [
    KeptExport(testDescription: "file", options: ""),
    KeptExport(testDescription: "sync file", options: ",sync"),
    KeptExport(testDescription: "direct file", options: ",direct"),
    KeptExport(
      testDescription: "overlay with a directory for layers", options: ",overlay,layers=@"),
  ]
}

@Suite("Under load, rootlinkd", .serialized)
struct DurabilityTests {
  static let blockCount = 2000
  static let byteCount = blockCount * LoadClient.blockByteCount
  let directory: TemporaryDirectory
  let layers: TemporaryDirectory
  let image: String

  init() throws {
    directory = try TemporaryDirectory()
    layers = try TemporaryDirectory()
    image = try directory.file("image", [UInt8](repeating: 1, count: Self.byteCount))
  }

  private func serve(_ export: KeptExport, drainSeconds: Int = 10) throws -> ServerUnderTest {
    let options = export.options.replacingOccurrences(of: "@", with: layers.path)
    let configuration = try directory.file(
      "toml", Array("[limits]\ndrain_seconds = \(drainSeconds)\n".utf8))
    return try ServerUnderTest(
      directory, exports: ["disk=\(image)\(options)"], arguments: ["--config", configuration])
  }

  private func finish(_ client: LoadClient, _ export: KeptExport) throws {
    let server = try serve(export)
    let connection = try client.connect(port: server.port)
    try client.verify(on: connection, base: 1)
    try client.write(on: connection) { _ in true }
    #expect(client.unansweredCount == 0)
    try client.verify(on: connection, base: 1)
    try client.disconnect(connection)
    try server.process.waitForLine(containing: "left 'disk': disconnected")
    #expect(try server.process.terminate() == 0)
    if export.isOverlay {
      #expect(try contents(image).allSatisfy { $0 == 1 })
      #expect(try FileManager.default.contentsOfDirectory(atPath: layers.path).isEmpty)
    } else {
      try client.verify(image: contents(image), base: 1)
    }
    #expect(client.errors.isEmpty)
  }

  @Test("loses nothing that it acknowledged when it is killed", arguments: KeptExport.all)
  func killed(export: KeptExport) throws {
    let client = LoadClient(
      blockCount: Self.blockCount, printingAs: "kills of \(export.testDescription)")
    for _ in 0..<4 {
      let server = try serve(export)
      let connection = try client.connect(port: server.port)
      try client.verify(on: connection, base: 1)
      let limit = client.acknowledgementCount + Int.random(in: 1...250)
      try client.write(on: connection) { client in
        if client.acknowledgementCount == limit { server.process.send(signal: SIGKILL) }
        return false
      }
      #expect(try server.process.waitForExit() == 256 + SIGKILL)
    }
    try finish(client, export)
  }

  @Test("answers what it has read when it is told to stop, and no error", arguments: KeptExport.all)
  func drained(export: KeptExport) throws {
    let client = LoadClient(
      blockCount: Self.blockCount, printingAs: "ends of \(export.testDescription)")
    for _ in 0..<4 {
      let server = try serve(export)
      let connection = try client.connect(port: server.port)
      try client.verify(on: connection, base: 1)
      let limit = client.acknowledgementCount + Int.random(in: 1...250)
      try client.write(on: connection) { client in
        if client.acknowledgementCount == limit { server.process.send(signal: SIGTERM) }
        return false
      }
      #expect(try server.process.waitForExit(seconds: 8) == 0, "\(server.process.standardError)")
      #expect(client.errors.isEmpty, "an error would reach the file system of the client")
      #expect(server.process.standardError.contains("left 'disk': the server is stopping"))
    }
    try finish(client, export)
  }

  /// A connection that is neither used nor closed any more.
  private final class Abandoned {
    let connection: NBDConnection
    init(_ connection: consuming NBDConnection) { self.connection = connection }
  }

  @Test(
    "executes nothing that a client has left behind on older connections",
    arguments: [KeptExport.all[0], KeptExport(testDescription: "overlay", options: ",overlay")])
  func abandoned(export: KeptExport) throws {
    let client = LoadClient(
      blockCount: Self.blockCount, printingAs: "abandoned connections to \(export.testDescription)")
    let server = try serve(export)
    var abandoned: [Abandoned] = []
    for _ in 0..<15 {
      let connection = try client.connect(port: server.port)
      try client.verify(on: connection, base: 1)
      let limit = client.acknowledgementCount + Int.random(in: 1...30)
      // Up to eight writes are on their way at this moment, and are repeated on the next.
      try client.write(on: connection, waitsForAnswers: false) {
        $0.acknowledgementCount >= limit
      }
      abandoned.append(Abandoned(connection))
    }
    let connection = try client.connect(port: server.port)
    try client.write(on: connection) { _ in true }
    #expect(client.unansweredCount == 0)
    let deadline = Deadline.milliseconds(30_000)
    let ending = "a newer connection of this client took its place"
    while server.process.standardError.components(separatedBy: ending).count <= abandoned.count {
      try #require(!deadline.hasPassed, "the abandoned sessions did not end")
      pause(milliseconds: 10)
    }
    try client.verify(on: connection, base: 1)
    try client.disconnect(connection)
    #expect(client.errors.isEmpty)
    if !export.isOverlay {
      #expect(try server.process.terminate() == 0)
      try client.verify(image: contents(image), base: 1)
    }
  }

  @Test("accepts nobody while it stops, and does not wait for ever for a client that never reads")
  func neverReading() throws {
    let server = try serve(KeptExport.all[0], drainSeconds: 1)
    let client = LoadClient(blockCount: Self.blockCount, printingAs: "never reading")
    let connection = try client.connect(port: server.port)
    // Many times what the sockets hold.
    for number in 0..<16 {
      let request = Request(
        command: .read, cookie: UInt64(number), length: UInt32(Self.byteCount))
      try connection.socket.send(request.encoded, until: .milliseconds(10_000))
    }
    var byte: [UInt8] = []
    try connection.socket.receive(into: &byte, maximum: 1, until: .milliseconds(10_000))
    server.process.send(signal: SIGTERM)
    try server.process.waitForLine(containing: "stopping on SIGTERM")
    var refusal: ConnectionError?
    while refusal == nil {
      do { _ = try client.connect(port: server.port, slot: 1) } catch { refusal = error }
    }
    #expect(server.process.exitStatus == nil, "it ended before the client had its time")
    #expect(try server.process.waitForExit(seconds: 10) == 0)
    #expect(server.process.standardError.contains("1 sessions did not end and are cut off"))
    withExtendedLifetime(byte) {}
  }

  @Test("refuses the layer of a client without a directory for it, after it was killed")
  func layerGone() throws {
    let export = KeptExport(testDescription: "overlay", options: ",overlay")
    let client = LoadClient(blockCount: Self.blockCount, printingAs: "layers that go")
    do {
      let server = try serve(export)
      let connection = try client.connect(port: server.port)
      try client.write(on: connection) { $0.acknowledgementCount > 50 }
      let again = try client.connect(port: server.port)
      try client.verify(on: again, base: 1)
      server.process.send(signal: SIGKILL)
      try server.process.waitForExit()
    }
    let server = try serve(export)
    let error = try #require(throws: ConnectionError.self) {
      _ = try client.connect(port: server.port)
    }
    #expect(
      error.report.reason.contains("the overlay of this attachment is gone"),
      "\(error.report.reason)")
  }
}

// SPDX-License-Identifier: Apache-2.0
// Clients that vanish without a word, as with a pulled cable: a socket filter that drops every
// packet makes a living one look like that.

import Foundation
import LinuxSystem
import NBDClient
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A client that says nothing any more")
struct DeadClientTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Python: enters export `disk` and does not hear anything from then on; `more` comes before. It has
  /// an attachment when it has a generation.
  private func deafClient(
    _ port: UInt16, _ more: String, generation: UInt64 = 0
  ) throws -> RunningProcess {
    let session =
      generation == 0
      ? ""
      : "s.sendall(struct.pack('>8sIIQQQHH', b'IHAVEOPT', 0x726c6b01, 28, 0, 7, \(generation), 0, 0));"
        + " s.recv(20, socket.MSG_WAITALL)"
    return try RunningProcess(
      "/usr/bin/python3",
      [
        "-c",
        """
        import ctypes, socket, struct, time
        s = socket.create_connection(("127.0.0.1", \(port)))
        s.recv(18, socket.MSG_WAITALL)
        s.sendall(struct.pack(">I", 3))
        \(session)
        s.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, 4) + b"disk")
        s.recv(10, socket.MSG_WAITALL)
        \(more)
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
        s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(drop)))
        print("deaf", flush=True)
        time.sleep(60)
        """,
      ])
  }

  @Test("is gone for the server when its time is over, idle or with an answer on the way")
  func silence() throws {
    let image = try directory.file("image", [UInt8](repeating: 0, count: 8 << 20))
    let configuration = try directory.file("toml", Array("[limits]\nsilence_seconds = 3\n".utf8))
    let server = try ServerUnderTest(
      directory, exports: ["disk=\(image)"], arguments: ["--config", configuration])
    let read = "s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, 1, 0, 8 << 20))"
    let clients = [try deafClient(server.port, ""), try deafClient(server.port, read)]
    for client in clients { try client.waitForLine(containing: "deaf", on: .standardOutput) }
    // One that is idle and alive stays.
    let living = try NBDConnection.open(
      to: SocketAddress(ipv4: [127, 0, 0, 1], port: server.port), names: ["disk"])
    for session in 1...2 {
      let line = try server.process.waitForLine(
        containing: "session \(session): tcp:127.0.0.1", seconds: 20)
      #expect(line.contains("opened"))
    }
    var lines: [Substring] = []
    let deadline = Deadline.milliseconds(30_000)
    while lines.count < 2, !deadline.hasPassed {
      lines = server.process.standardError.split(separator: "\n").filter { $0.contains(" left ") }
      pause(milliseconds: 20)
    }
    #expect(lines.count == 2 && lines.allSatisfy { $0.contains("timed out") }, "\(lines)")
    #expect(clients.allSatisfy { $0.exitStatus == nil })
    let status = try run(
      builtProgram("rootlinkd"), ["status", "--control", server.controlPath], seconds: 30)
    #expect(status.standardOutput.contains("1 sessions, 3 since"), "\(status.standardOutput)")
    withExtendedLifetime(living.export) {}
  }

  @Test("does not keep its next connection waiting, and writes nothing any more")
  func takeover() throws {
    let image = try directory.file("image", [UInt8](repeating: 0, count: 1 << 20))
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    // The first half of a write has arrived; the rest of it is on its way for ever.
    let half = "s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, 1, 0, 4096) + b'x' * 2048)"
    let old = try deafClient(server.port, half, generation: 1)
    try old.waitForLine(containing: "deaf", on: .standardOutput)
    let client = try NBDConnection.open(
      to: SocketAddress(ipv4: [127, 0, 0, 1], port: server.port), names: ["disk"],
      identity: SessionIdentity(
        token: SessionToken(high: 0, low: 7), generation: 2, flags: .resume),
      until: .milliseconds(5000))
    #expect(client.export.isSessionAccepted)
    try server.process.waitForLine(
      containing: "left 'disk': a newer connection of this client took its place")
    #expect(old.exitStatus == nil)
    #expect(throws: ConnectionError.self) {
      _ = try NBDConnection.open(
        to: SocketAddress(ipv4: [127, 0, 0, 1], port: server.port), names: ["disk"],
        identity: SessionIdentity(token: SessionToken(high: 0, low: 7), generation: 1))
    }
    try server.process.waitForLine(containing: "a newer connection of this attachment has slot 0")
    #expect(try contents(image).allSatisfy { $0 == 0 })
  }
}

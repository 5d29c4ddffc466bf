// SPDX-License-Identifier: Apache-2.0
// Clients that vanish without a word, as with a pulled cable: a socket filter that drops every
// packet makes a living one look like that.

import Foundation
import LinuxSystem
import NBDClient
import TestSupport
import Testing
import WireFormat

@Suite("A client that says nothing any more")
struct DeadClientTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Python: enters export `disk` and does not hear anything from then on; `more` comes before.
  private func deafClient(_ port: UInt16, _ more: String) throws -> RunningProcess {
    try RunningProcess(
      "/usr/bin/python3",
      [
        "-c",
        """
        import ctypes, socket, struct, time
        s = socket.create_connection(("127.0.0.1", \(port)))
        s.recv(18, socket.MSG_WAITALL)
        s.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 4) + b"disk")
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
}

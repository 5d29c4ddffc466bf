// SPDX-License-Identifier: Apache-2.0
// A server that was stopped and goes on, while its client did not wait for it.

import CLinux
import Foundation
import LinuxSystem
import NBDClient
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A server that was stopped")
struct StoppedServerTests {
  @Test(
    "writes nothing that a client had sent and given up meanwhile", arguments: [true, false])
  func givenUp(isGivenUp: Bool) throws {
    let directory = try TemporaryDirectory()
    let image = try directory.file("image", [UInt8](repeating: 1, count: 1 << 20))
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    let connection = try NBDConnection.open(
      to: SocketAddress(ipv4: [127, 0, 0, 1], port: server.port), names: ["disk"],
      identity: SessionIdentity(
        token: SessionToken(high: 1, low: 2), generation: 1, slot: 0, flags: []))
    try stop(server.process)
    let write = Request(flags: [], command: .write, cookie: 1, offset: 0, length: 4096)
    let deadline = Deadline.milliseconds(10_000)
    try connection.socket.send(
      write.encoded + [UInt8](repeating: 2, count: 4096), until: deadline)
    // Longer than the time between two looks of the server, and the only way to be that.
    pause(milliseconds: 700)
    if isGivenUp { clinux_cut_connection(connection.socket.descriptor.rawValue) }
    server.process.send(signal: SIGCONT)
    if isGivenUp {
      try server.process.waitForLine(containing: "left 'disk'")
    } else {
      var reply: [UInt8] = []
      try connection.socket.receive(into: &reply, maximum: 16, until: deadline)
      #expect(reply.count == 16)
    }
    #expect(try contents(image).prefix(4096).allSatisfy { $0 == (isGivenUp ? 1 : 2) })
  }

  /// The signal takes its time until each thread has stopped.
  private func stop(_ process: RunningProcess) throws {
    process.send(signal: SIGSTOP)
    let tasks = "/proc/\(process.processIdentifier)/task"
    let deadline = Deadline.milliseconds(10_000)
    while true {
      let states = try FileManager.default.contentsOfDirectory(atPath: tasks).map {
        try String(contentsOfFile: "\(tasks)/\($0)/stat", encoding: .utf8)
          .components(separatedBy: ") ").last?.first
      }
      if states.allSatisfy({ $0 == "T" }) { return }
      try #require(!deadline.hasPassed, "it does not stop: \(states)")
      pause(milliseconds: 5)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client program as a person or a hook calls it: its exit status, its one line, its end.
// What needs a kernel with the nbd driver is tested in guests.

import Foundation
import TestSupport
import Testing

@Suite("The rootlink program")
struct CommandTests {
  func rootlink(_ arguments: [String]) throws -> FinishedProcess {
    try run(builtProgram("rootlink"), arguments)
  }

  /// Words, exit status, what the line on standard error holds.
  static let refusals: [([String], Int32, String)] = [
    ([], 2, "a command is missing"),
    (["mount"], 2, "unexpected 'mount'"),
    (["plan", "--colour"], 2, "unknown option '--colour'"),
    (["plan", "--cmdline"], 2, "--cmdline needs a value"),
    (["plan", "--format", "xml", "--cmdline", ""], 2, "json or shell expected"),
    (["attach", "nbd://h/e", "--device", "/dev/sda"], 2, "/dev/nbdN"),
    (["attach", "nbd://h/e", "--device", "nbd0p1"], 2, "without a partition"),
    (["attach", "nbd://h/e", "--connections", "0"], 2, "from 1 to 16"),
    (["attach", "nbd://h/e", "--connections", "17"], 2, "from 1 to 16"),
    (["attach", "nbd://h/e", "--timeout", "-1"], 2, "a number from 0"),
    (["attach", "nbd://h/e", "--once", "--once"], 2, "given twice"),
    (["attach", "nbd://h/e", "nbd://h/f"], 2, "unexpected 'nbd://h/f'"),
    (["attach", "nbd://h/e", "--cmdline", "x"], 2, "exclude each other"),
    (["attach", "nbd://h/\"x"], 2, "nbd://HOST[:PORT]/EXPORT expected"),
    (["detach"], 2, "DEVICE is missing"),
    (["attach", "--cmdline", "nbdroot=192.0.2.1:70000/x"], 2, "character 11 of the value"),
    (["attach", "nbd://192.0.2.1:70000/x", "--once"], 2, "a port from 1 to 65535"),
    (["attach", "nbds://127.0.0.1/x", "--once"], 1, "asks for TLS"),
    (
      ["attach", "--once", "--cmdline", "ibnbd-root=path=ip:127.0.0.1,device_path=sda"], 1,
      "no RDMA device"
    ),
    (["attach", "nbd://127.0.0.1:1/x", "--once"], 1, "refuses the connection"),
    (["attach", "nbd+unix:///x?socket=/nonexistent", "--once"], 1, "no such file"),
    (["attach", "--once", "--cmdline", "nbdroot=/x"], 1, "leaves the server to DHCP"),
  ]

  @Test("says in one line why it cannot, and ends with the documented status", arguments: refusals)
  func refusal(arguments: [String], status: Int32, text: String) throws {
    let result = try rootlink(arguments)
    #expect(result.exitStatus == status, "\(result.standardError)")
    #expect(result.standardError.contains(text), "\(result.standardError)")
    #expect(result.standardOutput.isEmpty)
    for line in result.standardError.split(separator: "\n") {
      #expect(line.hasPrefix("rootlink: "))
    }
  }

  @Test("does nothing and says nothing when the command line asks for nothing")
  func nothing() throws {
    let result = try rootlink(["attach", "--cmdline", "root=/dev/sda1 ro quiet"])
    #expect(result.exitStatus == 0)
    #expect(result.standardError.isEmpty && result.standardOutput.isEmpty)
  }

  @Test("counts the repeats of a failure, and gives up when its time is over")
  func timeout() throws {
    let result = try rootlink(["attach", "nbd://127.0.0.1:1/x", "--timeout", "2"])
    #expect(result.exitStatus == 1)
    let lines = result.standardError.split(separator: "\n")
    #expect(lines.filter { $0.contains("start the server") }.count == 1)
    #expect(lines.contains { $0.contains("times more") })
    #expect(lines.last?.contains("gave up after 2 s") == true)
  }

  @Test("says what a server of another protocol began with")
  func foreignServer() throws {
    let server = try ScriptedServer([[.send(Array("SSH-2.0-OpenSSH_9.2p1\r\n".utf8))]])
    let result = try rootlink(["attach", "nbd://127.0.0.1:\(server.port)/x", "--once"])
    #expect(result.exitStatus == 1)
    #expect(result.standardError.contains("not NBDMAGIC"))
    withExtendedLifetime(server) {}
  }

  @Test("shows its help and its version on standard output", arguments: ["--help", "--version"])
  func help(option: String) throws {
    let result = try rootlink([option])
    #expect(result.exitStatus == 0)
    #expect(result.standardOutput.contains("rootlink"))
    #expect(result.standardError.isEmpty)
  }
}

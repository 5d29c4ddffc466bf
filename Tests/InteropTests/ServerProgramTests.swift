// SPDX-License-Identifier: Apache-2.0
// rootlinkd as a program: its arguments, exit status, configuration, status, and its end.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd, the program")
struct ServerProgramTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func rootlinkd(_ arguments: String...) throws -> FinishedProcess {
    try run(builtProgram("rootlinkd"), arguments, seconds: 30)
  }

  /// Arguments that cannot be meant, and a word of the line that says so.
  static let wrongRequests: [([String], String)] = [
    ([], "no command was given"),
    (["swerve"], "swerve"),
    (["serve", "--bogus"], "--bogus"),
    (["serve", "--export"], "--export"),
    (["serve", "--export", "root"], "'root' has no '='"),
    (["serve", "--export", "root=/a,readonly"], "'readonly' is no option"),
    (["serve", "--export", "a=/a", "--listen", "10809"], "'10809' begins with no known kind"),
    (["serve", "--export", "a=/a", "--export", "a=/b"], "two exports 'a'"),
    (["status", "extra"], "extra"),
  ]

  @Test("ends with 2 when the request is wrong, and says which word", arguments: wrongRequests)
  func wrongRequest(arguments: [String], word: String) throws {
    let result = try run(builtProgram("rootlinkd"), arguments, seconds: 30)
    #expect(result.exitStatus == 2, "\(result.standardError)")
    #expect(result.standardError.contains(word), "\(result.standardError)")
    #expect(result.standardOutput.isEmpty)
  }

  @Test("tells its version and its help on standard output")
  func help() throws {
    let version = try rootlinkd("--version")
    #expect(version.exitStatus == 0)
    #expect(version.standardOutput.hasPrefix("rootlinkd "))
    for arguments in [
      ["--help"], ["serve", "--help"], ["check", "--help"], ["status", "--help"],
    ] {
      let help = try run(builtProgram("rootlinkd"), arguments, seconds: 30)
      #expect(help.exitStatus == 0)
      #expect(help.standardOutput.contains("USAGE: rootlinkd"))
    }
  }

  @Test("ends with 1 and one line when a file is missing, unreadable in kind, or a port is taken")
  func couldNot() throws {
    let image = try directory.file("image", [1])
    let control = directory.path("c")
    let missing = try rootlinkd("serve", "--control", control, "--export", "a=/nosuch")
    #expect(missing.exitStatus == 1)
    #expect(
      missing.standardError
        == "rootlinkd: export 'a': there is no file /nosuch; "
        + "check the path of the export, or create the image\n")
    let device = try rootlinkd("serve", "--control", control, "--export", "a=/dev/null")
    #expect(device.exitStatus == 1)
    #expect(device.standardError.contains("neither a regular file nor a block device"))

    let server = try ServerUnderTest(directory, exports: ["a=\(image)"])
    let address = "tcp:127.0.0.1:\(server.port)"
    let taken = try rootlinkd(
      "serve", "--control", control, "--export", "a=\(image)", "--listen", address)
    #expect(taken.exitStatus == 1)
    #expect(taken.standardError.contains("\(address) is in use; stop the other server"))
    let socket = try rootlinkd(
      "serve", "--control", control, "--export", "a=\(image)", "--listen",
      "unix:\(server.socketPath)")
    #expect(socket.exitStatus == 1)
    #expect(socket.standardError.contains("is in use"))
    // What is not a socket is never removed to make place for one.
    let file = try rootlinkd(
      "serve", "--control", control, "--export", "a=\(image)", "--listen", "unix:\(image)")
    #expect(file.exitStatus == 1)
    #expect(try contents(image) == [1])
    let nobody = try rootlinkd("status", "--control", directory.path("nobody"))
    #expect(nobody.exitStatus == 1)
    #expect(nobody.standardError.contains("start 'rootlinkd serve'"))
  }

  @Test("takes the place of a socket that a killed server has left")
  func abandonedSocket() throws {
    let image = try directory.file("image", [1])
    let path = directory.path("socket")
    for signal in [SIGKILL, SIGTERM] {
      let process = try RunningProcess(
        builtProgram("rootlinkd"),
        ["serve", "--control", directory.path("c"), "--export", "a=\(image)"]
          + ["--listen", "unix:\(path)"])
      try process.waitForLine(containing: "listening on unix:\(path)")
      process.send(signal: signal)
      #expect(try process.waitForExit() == (signal == SIGKILL ? 256 + SIGKILL : 0))
    }
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test("listens on both families of loopback by a host name", .enabled(if: hasNBDShell))
  func bothFamilies() throws {
    let image = try directory.file("image", [UInt8](repeating: 0, count: 512))
    let process = try RunningProcess(
      builtProgram("rootlinkd"),
      ["serve", "--control", directory.path("c"), "--export", "a=\(image)"]
        + ["--listen", "tcp:[::]:0"])
    let line = try process.waitForLine(containing: "listening on tcp:")
    let port = try #require(line.split(separator: ":").last)
    let hosts = line.contains("[::]") ? ["127.0.0.1", "[::1]"] : ["127.0.0.1"]
    for host in hosts {
      let result = try nbdsh("h.connect_uri('nbd://\(host):\(port)/a'); h.shutdown()")
      #expect(result.exitStatus == 0, "\(result.standardError)")
    }
    #expect(try process.terminate() == 0)
  }

  /// Files that `check` refuses, and a piece of the line that says why.
  static let badFiles: [(String, String)] = [
    ("listen = [\"tcp:[::]:1\"\n", "line 1, column 24"),
    ("[export.a]\npath = \"/a\"\npath = \"/b\"\n", "line 3"),
    ("", "there is nothing to serve"),
    ("speed = 9\n", "unknown key 'speed'"),
    ("[export.a]\npath = \"/a\"\nmod = \"ro\"\n", "unknown key 'mod' in [export.a]"),
    ("[export.a]\nmode = \"ro\"\n", "[export.a] has no path"),
    ("[export.a]\npath = \"/a\"\nmode = \"wr\"\n", "mode is \"wr\""),
    ("[export.a]\npath = \"/a\"\nsize = -1\n", "'size' in [export.a] is not a number"),
    ("[export.a]\npath = \"/a\"\nsync = \"yes\"\n", "'sync' in [export.a] is not true or false"),
    ("[export.a]\npath = 7\n", "'path' in [export.a] is not a text"),
    ("export = 7\n", "'export' is not a table"),
    ("listen = \"tcp:[::]:1\"\n", "'listen' is not a list"),
    ("listen = [\"[::]:1\"]\n", "begins with no known kind"),
    ("[limits]\nconnections = 0\n", "'connections' in [limits] is not a number from 1"),
    ("[limits]\nsilence_seconds = 2\n", "'silence_seconds' in [limits] is not a number from 3"),
    ("[limits]\ndrain_seconds = 0\n", "'drain_seconds' in [limits] is not a number from 1"),
    ("[limits]\nabsent_seconds = -1\n", "'absent_seconds' in [limits] is not a number from 0"),
    ("[export.a]\npath = \"/a\"\nlayers = \"/b\"\n", "a directory for layers and is no overlay"),
    ("[limits]\nhandshake = 1\n", "unknown key 'handshake' in [limits]"),
  ]

  @Test("refuses a configuration that is not right, with its place", arguments: badFiles)
  func badConfiguration(text: String, word: String) throws {
    let path = try directory.file("rootlinkd.toml", [UInt8](text.utf8))
    let result = try rootlinkd("check", "--config", path)
    #expect(result.exitStatus == 2)
    #expect(result.standardError.hasPrefix("rootlinkd: \(path): "), "\(result.standardError)")
    #expect(result.standardError.contains(word), "\(result.standardError)")
    #expect(result.standardError.count { $0 == "\n" } == 1, "\(result.standardError)")
  }

  @Test("serves what its configuration file says", .enabled(if: hasNBDShell))
  func configuration() throws {
    let image = try directory.file("image", [UInt8](repeating: 1, count: 4096))
    let control = directory.path("control")
    let socket = directory.path("socket")
    let path = try directory.file(
      "rootlinkd.toml",
      [UInt8](
        """
        listen = ["unix:\(socket)"]
        control = "\(control)"
        overlay_directory = "\(directory.path)"
        [limits]
        connections = 3
        handshake_seconds = 5
        silence_seconds = 30
        drain_seconds = 5
        absent_seconds = 0
        absent_attachments = 0
        [export.root]
        path = "\(image)"
        mode = "overlay"
        layers = "\(directory.path)"
        description = "a small disk"
        [export."two words"]
        path = "\(image)"
        mode = "ro"
        size = 512
        """.utf8))
    let check = try rootlinkd("check", "--config", path)
    #expect(check.exitStatus == 0, "\(check.standardError)")
    #expect(check.standardOutput == "\(path): 2 exports, no errors\n")

    let process = try RunningProcess(builtProgram("rootlinkd"), ["serve", "--config", path])
    try process.waitForLine(containing: "listening on unix:\(socket)")
    let result = try nbdsh(
      """
      h.set_opt_mode(True)
      h.connect_unix("\(socket)")
      names = []
      h.opt_list(lambda name, text: names.append((name, text)))
      assert names == [("root", "a small disk"), ("two words", "")], names
      h.set_export_name("two words")
      h.opt_go()
      assert h.get_size() == 512 and h.is_read_only()
      print(h.pread(3, 0))
      h.shutdown()
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    #expect(try process.terminate() == 0)
    #expect(process.standardError.contains("stopping on SIGTERM"))
  }

  @Test("shows sessions and counters of the running server", .enabled(if: hasNBDShell))
  func status() throws {
    struct Status: Decodable {
      struct Counters: Decodable, Equatable {
        var reads: Int
        var readBytes: Int
        var writes: Int
        var errors: Int
      }
      struct Session: Decodable {
        var client: String
        var counters: Counters
      }
      struct Export: Decodable {
        var name: String
        var access: String
        var size: Int
        var sessionsSinceStart: Int
        var counters: Counters
        var sessions: [Session]
      }
      var exports: [Export]
      var listening: [String]
    }
    let image = try directory.file("image", [UInt8](repeating: 0, count: 65536))
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    // The client asks for the status itself, while it is connected.
    let script = """
      import subprocess
      h.connect_uri("\(server.uri("disk"))")
      h.set_strict_mode(0)
      h.pread(4096, 0); h.pread(512, 0); h.pwrite(b"x", 9)
      try:
          h.pread(1, 65536)
      except nbd.Error:
          pass
      print(subprocess.run(["\(try builtProgram("rootlinkd"))", "status", "--json", "--control",
        "\(server.controlPath)"], check=True, capture_output=True, text=True).stdout)
      h.shutdown()
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    let status = try JSONDecoder().decode(Status.self, from: Data(result.standardOutput.utf8))
    let export = try #require(status.exports.first)
    let counters = Status.Counters(reads: 2, readBytes: 4608, writes: 1, errors: 1)
    #expect(export.name == "disk" && export.access == "rw" && export.size == 65536)
    #expect(export.sessions.map(\.counters) == [counters])
    #expect(export.sessions.first?.client.hasPrefix("tcp:127.0.0.1:") == true)
    #expect(status.listening == ["tcp:127.0.0.1:\(server.port)", "unix:\(server.socketPath)"])

    try server.process.waitForLine(containing: "left 'disk': disconnected")
    let text = try rootlinkd("status", "--control", server.controlPath)
    #expect(text.standardOutput.contains("export 'disk' rw 65536 bytes"), "\(text.standardOutput)")
    #expect(text.standardOutput.contains("0 sessions, 1 since the start; 2 reads (4608 bytes)"))
  }
}

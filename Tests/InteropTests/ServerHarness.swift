// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

/// A `rootlinkd serve` of the test's own: on loopback and on a Unix socket, gone with the object.
final class ServerUnderTest: Sendable {
  let process: RunningProcess
  let directory: TemporaryDirectory
  let port: UInt16
  let socketPath: String
  let controlPath: String

  /// `exports` are `--export` arguments; `directory` holds what they name.
  init(
    _ directory: TemporaryDirectory, exports: [String], arguments: [String] = []
  ) throws {
    self.directory = directory
    let number = UInt32.random(in: 0 ... .max)
    socketPath = directory.path("s\(number)")
    controlPath = directory.path("c\(number)")
    process = try RunningProcess(
      builtProgram("rootlinkd"),
      ["serve", "--control", controlPath, "--listen", "tcp:127.0.0.1:0"]
        + ["--listen", "unix:\(socketPath)", "--overlay-directory", directory.path]
        + exports.flatMap { ["--export", $0] } + arguments)
    // The last line of the start: everything before it is there, too.
    try process.waitForLine(containing: "listening on unix:")
    let line = try process.waitForLine(containing: "listening on tcp:127.0.0.1:")
    port = try #require(line.split(separator: ":").last.flatMap { UInt16($0) })
  }

  func uri(_ export: String) -> String { "nbd://127.0.0.1:\(port)/\(export)" }
  func unixURI(_ export: String) -> String { "nbd+unix:///\(export)?socket=\(socketPath)" }
}

/// Runs Python with libnbd's module, as nbdsh does; `h` is not connected. The Debian python3 is
/// named, for that is the one which has the module.
func nbdsh(_ script: String, seconds: Double = 60) throws -> FinishedProcess {
  try run(
    "/usr/bin/python3", ["-c", "import nbd, os, errno\nh = nbd.NBD()\n" + script],
    seconds: seconds)
}

/// Whether libnbd's Python module is there.
let hasNBDShell: Bool = {
  if mayNotSkip { return true }
  return (try? run("/usr/bin/python3", ["-c", "import nbd"]))?.exitStatus == 0
}()

/// `count` bytes that no shift or swap of blocks reproduces.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var generator = SeededGenerator(seed: seed)
  let words = (0..<(count / 8 + 1)).map { _ in generator.next() }
  // SAFETY: integers, looked at as the bytes that they are.
  return unsafe words.withUnsafeBytes { unsafe [UInt8]($0.prefix(count)) }
}

func contents(_ path: String) throws -> [UInt8] {
  try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
}

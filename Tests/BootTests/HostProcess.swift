// SPDX-License-Identifier: Apache-2.0
// A child process on the host: its output goes to a file, its life has a deadline, and it is ended
// with its own process group, never by name.

import Foundation

enum HostProcessError: Error, CustomStringConvertible {
  case failed(command: String, status: Int32, output: String)
  case deadline(command: String, seconds: Double, output: String)

  var description: String {
    switch self {
    case .failed(let command, let status, let output):
      "'\(command)' ended with status \(status): \(output)"
    case .deadline(let command, let seconds, let output):
      "'\(command)' had not ended after \(seconds) s: \(output)"
    }
  }
}

final class HostProcess: Sendable {
  let output: URL
  private let command: String
  private let process: Process

  /// Starts `arguments`, standard output and error to the file `output` (made anew). `timeout(1)`
  /// stands in front, so that the child ends even if the tests are killed.
  init(_ arguments: [String], output: URL, lifetimeSeconds: Int) throws {
    self.output = output
    command = arguments.joined(separator: " ")
    process = Process()
    try FileManager.default.createDirectory(
      at: output.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data().write(to: output)
    let handle = try FileHandle(forWritingTo: output)
    process.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
    process.arguments = ["--kill-after=5", String(lifetimeSeconds)] + arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = handle
    process.standardError = handle
    try process.run()
    try handle.close()
  }

  deinit { end() }

  var isRunning: Bool { process.isRunning }
  var processIdentifier: Int32 { process.processIdentifier }

  /// What it has written so far, without terminal colours and carriage returns.
  var text: String {
    // On the bytes: a carriage return and the line feed after it are one Character.
    let raw = ((try? Data(contentsOf: output)) ?? Data()).filter { $0 != UInt8(ascii: "\r") }
    // A decoder that repairs: a console may carry anything.
    let text = String(decoding: raw, as: UTF8.self)  // swift-format-ignore
    return text.replacing(#/\u{1B}\[[0-9;?]*[A-Za-z]/#, with: "")
  }

  /// `timeout` makes a process group of itself and the child.
  func end() {
    if process.isRunning { kill(-process.processIdentifier, SIGKILL) }
  }

  /// The exit status, when it has ended.
  func status(withinSeconds seconds: Double) async throws -> Int32 {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(seconds)
    while process.isRunning {
      guard clock.now < deadline else {
        end()
        throw HostProcessError.deadline(
          command: command, seconds: seconds, output: lastLines(of: text))
      }
      try await Task.sleep(for: .milliseconds(50))
    }
    return process.terminationStatus
  }

  /// Runs a command that must succeed; its standard output and error together.
  static func run(_ arguments: [String], withinSeconds seconds: Int = 30) async throws -> String {
    let output = FileManager.default.temporaryDirectory.appending(path: "run-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: output) }
    let child = try HostProcess(arguments, output: output, lifetimeSeconds: seconds)
    let status = try await child.status(withinSeconds: Double(seconds) + 10)
    guard status == 0 else {
      throw HostProcessError.failed(
        command: arguments.joined(separator: " "), status: status, output: lastLines(of: child.text)
      )
    }
    return child.text
  }
}

/// The end of a log, for a person to read.
func lastLines(of text: String, count: Int = 30) -> String {
  text.split(separator: "\n").suffix(count).joined(separator: "\n")
}

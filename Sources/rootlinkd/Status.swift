// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import BlockServer
import Foundation
import LinuxSystem
import WireFormat

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show exports, sessions and counters of the running server.")

  /// No server with its sessions comes near it.
  private static let answerByteCountMaximum = 64 << 20

  @Flag(help: "Print the JSON as the server sends it.")
  var json = false

  @Option(
    help: ArgumentHelp(
      "Ask on this Unix socket (default /run/rootlinkd.sock).", valueName: "path"))
  var control: String?

  func run() throws {
    let (path, answer) = try ask()
    let output: String
    do {
      let status = try JSONDecoder().decode(ServerStatus.self, from: Data(answer))
      output = json ? String(decoding: answer, as: UTF8.self) : status.text + "\n"
    } catch {
      throw Failure.couldNot(
        ("what answers on \(path.printable) is not rootlinkd", "check --control"))
    }
    guard writeStandardOutput(ByteString(output)) else {
      throw Failure.couldNot(("standard output is closed", "give it a reader"))
    }
  }

  /// The first place where a server answers.
  private func ask() throws -> (path: ByteString, answer: [UInt8]) {
    var failure: Failure?
    for path in control.map({ [ByteString($0)] }) ?? standardControlPaths() {
      do { return (path, try Self.ask(path)) } catch {
        failure =
          failure
          ?? .couldNot(
            (
              "no server answers on \(path.printable): \(error.text)",
              "start 'rootlinkd serve', or name its socket with --control"
            ))
      }
    }
    throw failure ?? .couldNot(("there is no server to ask", "name its socket with --control"))
  }

  private static func ask(_ path: ByteString) throws(SystemError) -> [UInt8] {
    let deadline = Deadline.milliseconds(5000)
    let socket = try StreamSocket.connect(to: SocketAddress(unixPath: path), until: deadline)
    var answer: [UInt8] = []
    while answer.count < answerByteCountMaximum {
      let count = answer.count
      try socket.receive(into: &answer, maximum: 65536, until: deadline)
      if answer.count == count { return answer }
    }
    throw .fileTooLarge
  }
}

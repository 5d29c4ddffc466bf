// SPDX-License-Identifier: Apache-2.0
// The server program. Exit status: 0 done, 1 it could not be done, 2 the request is wrong.

import ArgumentParser
import Foundation
import LinuxSystem
import WireFormat

let programVersion = "0.1.0"

struct Rootlinkd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rootlinkd",
    abstract: "Serves images and block devices to machines that boot from the network.",
    discussion: "Exit status: 0 done, 1 could not be done, 2 the request is wrong. "
      + "Manual: rootlinkd(8).",
    version: "rootlinkd \(programVersion)",
    subcommands: [Serve.self, Check.self, Status.self])

  func run() throws {
    throw Failure.wrongRequest(("no command was given", "see rootlinkd --help"))
  }
}

/// Why the program ends without having done what it was asked to.
struct Failure: Error {
  enum Kind: Int32 {
    case couldNot = 1
    case wrongRequest = 2
  }
  var kind: Kind
  var reason: String
  var advice: String

  func write() { writeLine("rootlinkd: \(reason); \(advice)") }

  static func couldNot(_ report: (reason: String, advice: String)) -> Failure {
    Failure(kind: .couldNot, reason: report.reason, advice: report.advice)
  }
  static func wrongRequest(_ report: (reason: String, advice: String)) -> Failure {
    Failure(kind: .wrongRequest, reason: report.reason, advice: report.advice)
  }
}

@main
enum Program {
  static func main() {
    do {
      var command = try Rootlinkd.parseAsRoot()
      try command.run()
    } catch let failure as Failure {
      failure.write()
      exit(failure.kind.rawValue)
    } catch {
      let message = Rootlinkd.fullMessage(for: error)
      guard Rootlinkd.exitCode(for: error) == .success else {
        writeLine(message)
        exit(Failure.Kind.wrongRequest.rawValue)
      }
      exit(writeStandardOutput(.init(message + "\n")) ? 0 : 1)
    }
  }
}

/// One line to standard error, in one write so that lines of several threads do not mix.
func writeLine(_ text: String) { writeText(text + "\n") }

func writeText(_ text: String) {
  // A disk that is full, or a reader that has left, is no reason to end.
  try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
}

// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import BlockBackends
import BlockServer
import LinuxSystem
import WireFormat

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Validate a configuration and the paths in it; change nothing.")

  @Option(
    help: ArgumentHelp(
      "Read the configuration from FILE (default /etc/rootlinkd.toml).", valueName: "file"))
  var config: String?

  func run() throws {
    let path = ByteString(config ?? standardConfigurationPath)
    let configuration = try readConfiguration(path)
    do {
      try configuration.validate()
    } catch {
      throw Failure.wrongRequest((path.printable + ": " + error.report.reason, error.report.advice))
    }
    for export in configuration.exports {
      do {
        try FileBackend.check(export.path)
      } catch {
        throw Failure.couldNot(
          ("export '\(export.name.printable)': " + error.report.reason, error.report.advice))
      }
    }
    let count = configuration.exports.count
    guard writeStandardOutput(ByteString("\(path.printable): \(count) exports, no errors\n")) else {
      throw Failure.couldNot(("standard output is closed", "give it a reader"))
    }
  }
}

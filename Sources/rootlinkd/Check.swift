// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import BlockBackends
import BlockServer
import ConfigurationFile
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
    let parsed = try readConfiguration(path)
    let configuration = parsed.configuration
    do {
      try configuration.validate()
    } catch {
      throw Failure.wrongRequest((path.printable + ": " + error.report.reason, error.report.advice))
    }
    var failures: [Failure] = []
    for export in configuration.exports {
      let place = parsed.exportPlaces[export.name].map { "line \($0.line): " } ?? ""
      for report in problems(of: export) {
        failures.append(
          .couldNot(
            (
              "\(path.printable): \(place)export '\(export.name.printable)': \(report.reason)",
              report.advice
            )))
      }
    }
    for failure in failures.dropLast() { failure.write() }
    if let last = failures.last { throw last }
    let count = configuration.exports.count
    guard writeStandardOutput(ByteString("\(path.printable): \(count) exports, no errors\n")) else {
      throw Failure.couldNot(("standard output is closed", "give it a reader"))
    }
  }

  /// Of files, devices and directories, as far as looking tells.
  private func problems(of export: ExportDefinition) -> [(reason: String, advice: String)] {
    var problems: [(reason: String, advice: String)] = []
    for path in export.backend?.paths ?? [export.path] {
      do { try FileBackend.check(path) } catch { problems.append(error.report) }
    }
    if let directory = export.layersDirectory,
      (try? fileStatus(directory))?.kind != .directory
    {
      problems.append(
        ("layers: there is no directory \(directory.printable)", "make it, or name another one"))
    }
    return problems
  }
}

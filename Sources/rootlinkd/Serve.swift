// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import BlockServer
import ConfigurationFile
import LinuxSystem
import Logging
import NBDServer
import WireFormat

struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve exports until SIGTERM or SIGINT.")

  @Option(
    help: ArgumentHelp("Read the configuration from FILE (TOML).", valueName: "file"))
  var config: String?

  @Option(
    name: .customLong("export"),
    help: ArgumentHelp(
      """
      Offer PATH, a file or block device, as NAME. Options: ro, rw (default, one client writes), \
      migration (two may), overlay (one fresh copy-on-write layer a session), layers=DIRECTORY \
      (keep layers of clients that come back), sync, async, direct, io=blockio or fileio, \
      size=BYTES, blocksize=BYTES, allow=NETWORK (may be repeated). May be repeated.
      """, valueName: "name=path[,option...]"))
  var exports: [String] = []

  @Option(
    help: ArgumentHelp(
      """
      Listen on tcp:HOST:PORT, tcp:[V6]:PORT, unix:PATH or rdma:HOST[:PORT] (default \
      tcp:[::]:10809, both families). May be repeated.
      """, valueName: "address"))
  var listen: [String] = []

  @Option(
    help: ArgumentHelp(
      "Answer 'rootlinkd status' on this Unix socket (default /run/rootlinkd.sock).",
      valueName: "path"))
  var control: String?

  @Option(
    help: ArgumentHelp(
      "Keep the layers of overlay exports in this directory (default /var/tmp).",
      valueName: "directory"))
  var overlayDirectory: String?

  func run() throws {
    let configuration = try configuration()
    let log = ServerLog(configuration.log)
    defer { log.flush(milliseconds: 2000) }
    try RunningServer(configuration, log: log, load: self.configuration).run()
  }

  /// What the file says, with what the command line says added or in its place.
  private func configuration() throws -> ServerConfiguration {
    var configuration = ServerConfiguration()
    if let path = try configurationPath(config, isOptional: !exports.isEmpty) {
      configuration = try readConfiguration(path).configuration
    }
    for argument in exports {
      do {
        configuration.exports.append(try ExportDefinition(argument: ByteString(argument)))
      } catch {
        throw Failure.wrongRequest(("--export: " + error.report.reason, error.report.advice))
      }
    }
    if !listen.isEmpty { configuration.listen = [] }
    for argument in listen {
      do {
        configuration.listen.append(try ListenAddress(ByteString(argument)))
      } catch {
        throw Failure.wrongRequest(("--listen: " + error.report.reason, error.report.advice))
      }
    }
    if let control { configuration.controlPath = ByteString(control) }
    if let overlayDirectory { configuration.overlayDirectory = ByteString(overlayDirectory) }
    do {
      try configuration.validate()
    } catch {
      throw Failure.wrongRequest(error.report)
    }
    return configuration
  }
}

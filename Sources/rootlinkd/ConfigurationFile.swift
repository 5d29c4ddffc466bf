// SPDX-License-Identifier: Apache-2.0
// The configuration file: TOML, every key known or refused.
//
//   listen = ["tcp:[::]:10809", "unix:/run/rootlink.nbd"]
//   control = "/run/rootlinkd.sock"
//   overlay_directory = "/var/tmp"
//   [limits]
//   connections = 1024
//   handshake_seconds = 10
//   silence_seconds = 120
//   drain_seconds = 10
//   absent_seconds = 600
//   absent_attachments = 2048
//   [rdma]
//   dev_search_path = "/srv/boards/%SESSNAME%"
//   queue_depth = 128
//   io_size = 131072
//   sessions = 64
//   memory = 2147483648
//   silence_seconds = 12
//   [export.root]
//   path = "/srv/debian.img"
//   mode = "overlay"            # ro, rw, overlay
//   layers = "/srv/layers"      # for overlay
//   sync = false
//   direct = false
//   size = 4294967296
//   description = "Debian 12"

import BlockServer
import LinuxSystem
import RNBDServer
import TOMLKit
import WireFormat

let standardConfigurationPath = "/etc/rootlinkd.toml"
private let limitKeys = [
  "connections", "handshake_seconds", "silence_seconds", "drain_seconds", "absent_seconds",
  "absent_attachments",
]
private let rdmaKeys = [
  "dev_search_path", "queue_depth", "io_size", "sessions", "memory", "silence_seconds",
]
private let exportKeys = ["path", "mode", "layers", "sync", "direct", "size", "description"]
private let configurationByteCountMaximum = 4 << 20

/// The file to read; nil when none was named, none is needed, or the standard one is not there.
func configurationPath(_ argument: String?, isOptional: Bool) throws -> ByteString? {
  if let argument { return ByteString(argument) }
  let standard = ByteString(standardConfigurationPath)
  return !isOptional && fileExists(standard) ? standard : nil
}

func readConfiguration(_ path: ByteString) throws -> ServerConfiguration {
  let text: ByteString
  do {
    text = try readFile(path, limit: configurationByteCountMaximum)
  } catch {
    throw Failure.couldNot(
      ("\(path.printable) cannot be read: \(error.text)", "name a readable file with --config"))
  }
  do {
    return try parseConfiguration(text)
  } catch let error as ConfigurationError {
    throw Failure.wrongRequest(("\(path.printable): \(error.reason)", error.advice))
  }
}

/// What is wrong with a configuration file.
struct ConfigurationError: Error, Equatable {
  var reason: String
  var advice: String
}

func parseConfiguration(_ text: ByteString) throws -> ServerConfiguration {
  let root: TOMLTable
  do {
    root = try TOMLTable(string: String(decoding: text.bytes, as: UTF8.self))
  } catch let error as TOMLParseError {
    throw ConfigurationError(
      reason: "line \(error.source.begin.line), column \(error.source.begin.column): "
        + error.description,
      advice: "correct the line; rootlinkd(8) has an example")
  }
  var configuration = ServerConfiguration()
  let top = Section(
    root, name: "", known: ["listen", "control", "overlay_directory", "limits", "rdma", "export"])
  try top.refuseUnknownKeys()
  for address in try top.strings("listen") ?? [] {
    do {
      configuration.listen.append(try ListenAddress(ByteString(address)))
    } catch {
      throw ConfigurationError(
        reason: "listen: " + error.report.reason, advice: error.report.advice)
    }
  }
  if let control = try top.string("control") { configuration.controlPath = ByteString(control) }
  if let directory = try top.string("overlay_directory") {
    configuration.overlayDirectory = ByteString(directory)
  }
  if let section = try top.section("limits", known: limitKeys) {
    try readLimits(section, into: &configuration)
  }
  if let section = try top.section("rdma", known: rdmaKeys) {
    configuration.rdma = try readRDMA(section)
  }
  for (name, section) in try top.sections(
    "export", known: exportKeys)
  {
    configuration.exports.append(try export(name, section))
  }
  return configuration
}

private func readLimits(_ limits: Section, into configuration: inout ServerConfiguration) throws {
  typealias Limits = ServerConfiguration
  if let count = try limits.integer("connections", in: 1...Limits.connectionCountMaximumLimit) {
    configuration.connectionCountMaximum = count
  }
  if let seconds = try limits.seconds("handshake_seconds", in: 1...Limits.handshakeSecondsLimit) {
    configuration.handshakeSeconds = seconds
  }
  if let seconds = try limits.seconds("silence_seconds", in: Limits.silenceSecondsRange) {
    configuration.silenceSeconds = seconds
  }
  if let seconds = try limits.seconds("drain_seconds", in: 1...Limits.drainSecondsLimit) {
    configuration.drainSeconds = seconds
  }
  if let seconds = try limits.seconds("absent_seconds", in: 0...Limits.absentSecondsLimit) {
    configuration.absentSeconds = seconds
  }
  if let count = try limits.integer("absent_attachments", in: 0...Limits.absentCountLimit) {
    configuration.absentCount = count
  }
}

private func readRDMA(_ section: Section) throws -> RDMASettings {
  typealias Limits = RNBDServerLimits
  var settings = RDMASettings()
  if let path = try section.string("dev_search_path") {
    do { settings.searchPath = try SearchPath(ByteString(path)) } catch {
      throw ConfigurationError(
        reason: "rdma.dev_search_path: " + error.report.reason, advice: error.report.advice)
    }
  }
  settings.queueDepth = try section.integer("queue_depth", in: Limits.queueDepthRange)
  settings.dataByteCountMaximum = try section.integer("io_size", in: Limits.dataByteCountRange)
  settings.sessionCountMaximum = try section.integer("sessions", in: Limits.sessionCountRange)
  settings.memoryByteCountMaximum = try section.integer("memory", in: 1...Int.max)
  settings.silenceSeconds = try section.seconds("silence_seconds", in: Limits.silenceSecondsRange)
  return settings
}

private func export(_ name: String, _ section: Section) throws -> ExportDefinition {
  guard let path = try section.string("path") else {
    throw ConfigurationError(
      reason: "[\(section.name)] has no path", advice: "add path = \"FILE\"")
  }
  var export = ExportDefinition(name: ByteString(name), path: ByteString(path))
  if let mode = try section.string("mode") {
    guard let access = AccessMode(rawValue: mode) else {
      throw ConfigurationError(
        reason: "[\(section.name)] mode is \"\(ByteString(mode).printable)\"",
        advice: "write \"ro\", \"rw\" or \"overlay\"")
    }
    export.access = access
  }
  export.layersDirectory = try section.string("layers").map { ByteString($0) }
  export.isSync = try section.bool("sync") ?? false
  export.isDirect = try section.bool("direct") ?? false
  export.byteCount = try section.integer("size", in: 1...Int.max).map { UInt64($0) }
  export.description = ByteString(try section.string("description") ?? "")
  return export
}

/// One table of the file, asked for values of one kind each.
private struct Section {
  let name: String
  private let table: TOMLTable
  private let known: [String]

  init(_ table: TOMLTable, name: String, known: [String]) {
    self.table = table
    self.name = name
    self.known = known
  }

  func refuseUnknownKeys() throws {
    for key in table.keys.sorted() where !known.contains(key) {
      throw ConfigurationError(
        reason: "unknown key '\(ByteString(key).printable)'"
          + (name.isEmpty ? "" : " in [\(name)]"),
        advice: "known here: " + known.joined(separator: ", "))
    }
  }

  private func wrong(_ key: String, _ wanted: String) -> ConfigurationError {
    ConfigurationError(
      reason: "'\(key)'" + (name.isEmpty ? "" : " in [\(name)]") + " is not \(wanted)",
      advice: "rootlinkd(8) has an example")
  }

  func string(_ key: String) throws -> String? {
    guard let value = table[key] else { return nil }
    guard let string = value.string else { throw wrong(key, "a text in quotes") }
    return string
  }

  func strings(_ key: String) throws -> [String]? {
    guard let value = table[key] else { return nil }
    guard let array = value.array else { throw wrong(key, "a list of texts") }
    return try array.map { element in
      guard let string = element.string else { throw wrong(key, "a list of texts") }
      return string
    }
  }

  func bool(_ key: String) throws -> Bool? {
    guard let value = table[key] else { return nil }
    guard let bool = value.bool else { throw wrong(key, "true or false") }
    return bool
  }

  func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int? {
    guard let value = table[key] else { return nil }
    guard let integer = value.int, range.contains(integer) else {
      throw wrong(key, "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  func seconds(_ key: String, in range: ClosedRange<UInt64>) throws -> UInt64? {
    try integer(key, in: Int(range.lowerBound)...Int(range.upperBound)).map { UInt64($0) }
  }

  func section(_ key: String, known: [String]) throws -> Section? {
    guard let value = table[key] else { return nil }
    guard let table = value.table else { throw wrong(key, "a table") }
    let section = Section(table, name: name.isEmpty ? key : "\(name).\(key)", known: known)
    try section.refuseUnknownKeys()
    return section
  }

  /// The tables inside table `key`, sorted by their names.
  func sections(_ key: String, known: [String]) throws -> [(String, Section)] {
    guard let value = table[key] else { return [] }
    guard let tables = value.table else { throw wrong(key, "a table of tables") }
    let outer = Section(tables, name: key, known: tables.keys)
    var sections: [(String, Section)] = []
    for name in tables.keys.sorted() {
      guard let section = try outer.section(name, known: known) else { continue }
      sections.append((name, section))
    }
    return sections
  }
}

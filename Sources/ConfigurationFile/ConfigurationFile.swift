// SPDX-License-Identifier: Apache-2.0
// The configuration file: TOML, every key known or refused, with its line. rootlinkd.toml(5) tells
// what each of them means; a test compares the two.

public import BlockServer
public import WireFormat

/// All keys, as they are grouped in the file.
public enum ConfigurationKeys {
  static let top = [
    "listen", "control", "overlay_directory", "default_export", "limits", "nbd", "rdma", "metrics",
    "log", "export",
  ]
  static let limits = [
    "connections", "connections_per_client", "handshake_seconds", "idle_seconds",
    "silence_seconds", "drain_seconds", "absent_seconds", "absent_attachments", "request_size",
    "memory",
  ]
  static let nbd = ["dev_search_path", "mode", "allow"]
  static let rdma = [
    "dev_search_path", "mode", "allow", "queue_depth", "io_size", "sessions", "memory",
    "silence_seconds",
  ]
  static let metrics = ["listen"]
  static let log = ["format", "level"]
  static let export = [
    "path", "backend", "mode", "allow", "layers", "sync", "async", "direct", "io_mode", "size",
    "blocksize", "description",
  ]

  /// With their sections: `limits.connections`, `export.NAME.path`, `export.NAME.backend.type`.
  public static var all: [String] {
    top.filter { !["limits", "nbd", "rdma", "metrics", "log", "export"].contains($0) }
      + limits.map { "limits." + $0 } + nbd.map { "nbd." + $0 } + rdma.map { "rdma." + $0 }
      + metrics.map { "metrics." + $0 } + log.map { "log." + $0 }
      + export.map { "export.NAME." + $0 }
      + BackendSection.allKeys.map { "export.NAME.backend." + $0 }
  }
}

/// What a file says.
public struct ParsedConfiguration: Equatable, Sendable {
  public var configuration: ServerConfiguration
  /// Where each export is written.
  public var exportPlaces: [ByteString: Place]
}

/// Everything in what comes back is well-formed, and `validate` has found nothing; but whether there is
/// anything to serve is for whoever adds what the command line says.
public func parseConfiguration(_ text: ByteString) throws(ConfigurationError) -> ParsedConfiguration
{
  guard let string = String(validating: text.bytes, as: UTF8.self) else {
    throw ConfigurationError(at: nil, "it is not UTF-8", advice: "save it as UTF-8")
  }
  let top = try Section(
    ConfigurationNode(document: string), name: "", known: ConfigurationKeys.top)
  var configuration = ServerConfiguration()
  configuration.listen = try addresses(top)
  configuration.controlPath = try top.text("control")
  if let directory = try top.text("overlay_directory") {
    configuration.overlayDirectory = directory
  }
  configuration.defaultExport = try top.text("default_export")
  if let section = try top.section("limits", known: ConfigurationKeys.limits) {
    try readLimits(section, into: &configuration)
  }
  if let section = try top.section("nbd", known: ConfigurationKeys.nbd) {
    configuration.nbdSearch = try search(section)
  }
  if let section = try top.section("rdma", known: ConfigurationKeys.rdma) {
    configuration.rdma = try rdma(section)
  }
  if let section = try top.section("metrics", known: ConfigurationKeys.metrics) {
    configuration.metricsAddress = try metricsAddress(section)
  }
  if let section = try top.section("log", known: ConfigurationKeys.log) {
    if let format = try section.word("format", LogSettings.Format.self) {
      configuration.log.format = format
    }
    if let level = try section.word("level", LogSettings.Level.self) {
      configuration.log.level = level
    }
  }
  var places: [ByteString: Place] = [:]
  for (name, section) in try top.sections("export", known: ConfigurationKeys.export) {
    let definition = try exportDefinition(name, section)
    configuration.exports.append(definition)
    places[definition.name] = section.place
  }
  do {
    try configuration.validate()
  } catch .noExports {
    // The command line may have some.
  } catch {
    var place = error.export.flatMap { places[$0] }
    if case .unknownDefault = error { place = top.node("default_export")?.valuePlace }
    if case .memoryForNobody = error { place = top.node("limits")?.place }
    throw ConfigurationError(at: place, error.report.reason, advice: error.report.advice)
  }
  return ParsedConfiguration(configuration: configuration, exportPlaces: places)
}

private func addresses(_ top: Section) throws(ConfigurationError) -> [ListenAddress] {
  var addresses: [ListenAddress] = []
  for (text, place) in try top.strings("listen") ?? [] {
    do {
      addresses.append(try ListenAddress(ByteString(text)))
    } catch {
      throw ConfigurationError(
        at: place, "listen: " + error.report.reason, advice: error.report.advice)
    }
  }
  return addresses
}

private func metricsAddress(_ section: Section) throws(ConfigurationError) -> ListenAddress? {
  guard let text = try section.text("listen") else {
    throw section.missing("listen", advice: "add listen = \"tcp:127.0.0.1:9810\"")
  }
  let address: ListenAddress
  do { address = try ListenAddress(text) } catch {
    throw section.wrong(
      "listen", "metrics.listen: " + error.report.reason,
      advice: "write tcp:HOST:PORT, tcp:[V6]:PORT or unix:PATH")
  }
  if case .rdma = address {
    throw section.wrong(
      "listen", "metrics.listen: HTTP is not spoken over RDMA",
      advice: "write tcp:HOST:PORT, tcp:[V6]:PORT or unix:PATH")
  }
  return address
}

private func readLimits(
  _ section: Section, into configuration: inout ServerConfiguration
) throws(ConfigurationError) {
  typealias Limits = ServerConfiguration
  let counts = 1...Limits.connectionCountMaximumLimit
  if let count = try section.integer("connections", in: counts) {
    configuration.limits.connectionCountMaximum = count
  }
  configuration.limits.clientConnectionCountMaximum = try section.integer(
    "connections_per_client", in: counts)
  if let seconds = try section.seconds("handshake_seconds", in: 1...Limits.handshakeSecondsLimit) {
    configuration.limits.handshakeMilliseconds = seconds * 1000
  }
  if let seconds = try section.seconds("idle_seconds", in: Limits.idleSecondsRange) {
    configuration.limits.idleSeconds = seconds == 0 ? nil : seconds
  }
  if let seconds = try section.seconds("silence_seconds", in: Limits.silenceSecondsRange) {
    configuration.silenceSeconds = seconds
  }
  if let seconds = try section.seconds("drain_seconds", in: 1...Limits.drainSecondsLimit) {
    configuration.drainSeconds = seconds
  }
  if let seconds = try section.seconds("absent_seconds", in: 0...Limits.absentSecondsLimit) {
    configuration.absentSeconds = seconds
  }
  configuration.absentCount = try section.integer(
    "absent_attachments", in: 0...Limits.absentCountLimit)
  if let count = try section.byteCount("request_size", in: Limits.requestByteCountRange) {
    configuration.limits.requestByteCountMaximum = UInt32(count)
  }
  if let count = try section.byteCount("memory", in: 1...Int.max) {
    configuration.limits.memoryByteCountMaximum = UInt64(count)
  }
}

private func search(_ section: Section) throws(ConfigurationError) -> DeviceDirectory.Search {
  var search = DeviceDirectory.Search()
  if let path = try section.text("dev_search_path") {
    do { search.path = try SearchPath(path) } catch {
      throw section.wrong(
        "dev_search_path", "\(section.name).dev_search_path: " + error.report.reason,
        advice: error.report.advice)
    }
  }
  if let mode = try section.word("mode", AccessMode.self) {
    guard mode != .overlay else {
      throw section.wrong(
        "mode", "[\(section.name)] mode is \"overlay\"",
        advice: "write \"ro\", \"rw\" or \"migration\"; only an export can be an overlay")
    }
    search.access = mode
  }
  search.allow = try allowList(section)
  return search
}

private func rdma(_ section: Section) throws(ConfigurationError) -> RDMASettings {
  typealias Limits = RDMASettings
  var settings = RDMASettings()
  settings.search = try search(section)
  settings.queueDepth = try section.integer("queue_depth", in: Limits.queueDepthRange)
  settings.dataByteCountMaximum = try section.byteCount("io_size", in: Limits.dataByteCountRange)
  settings.sessionCountMaximum = try section.integer("sessions", in: Limits.sessionCountRange)
  settings.memoryByteCountMaximum = try section.byteCount("memory", in: 1...Int.max)
  settings.silenceSeconds = try section.seconds("silence_seconds", in: Limits.silenceSecondsRange)
  return settings
}

private func allowList(_ section: Section) throws(ConfigurationError) -> AllowList {
  guard let texts = try section.strings("allow") else { return .everybody }
  var networks: [ClientNetwork] = []
  for (text, place) in texts {
    do { networks.append(try ClientNetwork(ByteString(text))) } catch {
      throw ConfigurationError(
        at: place, "[\(section.name)] allow: " + error.report.reason, advice: error.report.advice)
    }
  }
  return AllowList(networks: networks)
}

private func exportDefinition(
  _ name: String, _ section: Section
) throws(ConfigurationError) -> ExportDefinition {
  let path = try section.text("path")
  var definition = ExportDefinition(name: ByteString(name), path: path ?? ByteString())
  if let node = section.node("backend") {
    guard path == nil else {
      throw section.wrong(
        "backend", "[\(section.name)] has a path and a backend", advice: "leave one of them out")
    }
    let backend = try BackendSection.parse(node, name: section.name + ".backend", depth: 1)
    if case .file(let path) = backend {
      definition.path = path
    } else {
      definition.backend = backend
      definition.path = backend.text
    }
  } else if path == nil {
    throw section.missing("path", advice: "add path = \"FILE\", or a backend")
  }
  if let mode = try section.word("mode", AccessMode.self) { definition.access = mode }
  definition.allow = try allowList(section)
  definition.layersDirectory = try section.text("layers")
  definition.isSync = try section.bool("sync") ?? false
  definition.isAsync = try section.bool("async") ?? false
  definition.isDirect = try section.bool("direct") ?? false
  definition.ioMode = try section.word("io_mode", IOMode.self)
  definition.byteCount = try section.byteCount("size", in: 1...Int.max).map { UInt64($0) }
  definition.blockByteCount = try section.byteCount("blocksize", in: 512...65_536)
    .map { UInt32($0) }
  definition.description = try section.text("description") ?? ByteString()
  return definition
}

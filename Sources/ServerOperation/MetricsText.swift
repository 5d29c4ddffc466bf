// SPDX-License-Identifier: Apache-2.0
// A server's state as metrics. Source of the format: Prometheus, "Text-based exposition format",
// version 0.0.4; of the names of the process's own: its client libraries.

import BlockServer
import CLinux

/// What the process itself takes.
public struct ProcessUsage: Equatable, Sendable {
  /// User and system time since the start.
  public var cpuSeconds = 0.0
  /// What is in memory now.
  public var residentBytes: UInt64 = 0
  /// The most that ever was, with the process's code.
  public var residentMaximumBytes: UInt64 = 0
  /// Open ones, without the one that counting takes.
  public var descriptorCount: UInt64 = 0

  public init() {}

  /// Of this process now; 0 where /proc does not tell.
  public static var own: ProcessUsage {
    var raw = clinux_usage()
    // SAFETY: a structure of ours that the call fills.
    unsafe clinux_own_usage(&raw)
    var usage = ProcessUsage()
    usage.cpuSeconds = Double(raw.cpu_microseconds) / 1e6
    usage.residentBytes = raw.resident_bytes
    usage.residentMaximumBytes = raw.resident_maximum_bytes
    usage.descriptorCount = raw.descriptor_count
    return usage
  }
}

/// One answer to a collector, as text.
public struct MetricsText {
  /// Of the HTTP answer that carries `text`.
  public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  /// All families, each with its samples.
  public private(set) var text = ""
  private var current = ""

  /// `status` and `usage` of one moment; what `status` does not know has no sample.
  public init(_ status: ServerStatus, _ usage: ProcessUsage) {
    server(status)
    let exports = status.exports
    family("rootlinkd_export_size_bytes", "gauge", "Size of the export.")
    for export in exports { sample(export, Double(export.size)) }
    family("rootlinkd_export_sessions", "gauge", "Sessions that have the export open.")
    for export in exports { sample(export, Double(export.sessions.count)) }
    family("rootlinkd_export_sessions_total", "counter", "Sessions since the start.")
    for export in exports { sample(export, Double(export.sessionsSinceStart)) }
    family(
      "rootlinkd_export_absent_attachments", "gauge",
      "Clients that have lost their connections and may come back.")
    for export in exports { sample(export, Double(export.absentAttachments)) }
    family("rootlinkd_export_writers", "gauge", "Clients that have the right to write.")
    for export in exports { export.writers.map { sample(export, Double($0)) } }
    family("rootlinkd_export_requests_total", "counter", "Requests done, by operation.")
    for export in exports {
      let counters = export.counters
      for (operation, count) in [
        ("read", counters.reads), ("write", counters.writes), ("zero", counters.zeroes),
        ("trim", counters.trims), ("flush", counters.flushes),
      ] {
        sample(export, Double(count), ("operation", operation))
      }
    }
    family("rootlinkd_export_errors_total", "counter", "Requests answered with an error.")
    for export in exports { sample(export, Double(export.counters.errors)) }
    family("rootlinkd_export_read_bytes_total", "counter", "Bytes read by clients.")
    for export in exports { sample(export, Double(export.counters.readBytes)) }
    family("rootlinkd_export_written_bytes_total", "counter", "Bytes written by clients.")
    for export in exports { sample(export, Double(export.counters.writtenBytes)) }
    media(exports)
    process(usage)
  }

  private mutating func server(_ status: ServerStatus) {
    family("rootlinkd_info", "gauge", "The version that runs.")
    sample([("version", status.version ?? "")], 1)
    single("rootlinkd_uptime_seconds", "gauge", "Since the start.", status.seconds)
    single(
      "rootlinkd_connections", "gauge", "Connections, those that negotiate included.",
      UInt64(status.connections))
    single(
      "rootlinkd_connections_accepted_total", "counter", "Connections let in.",
      status.connectionsAccepted)
    single(
      "rootlinkd_connections_refused_total", "counter",
      "Connections turned away because of a limit.", status.connectionsRefused)
    single(
      "rootlinkd_connections_idled_total", "counter", "Sessions ended because they did nothing.",
      status.connectionsIdled)
    single(
      "rootlinkd_buffer_bytes", "gauge", "What buffers of connections may come to.",
      status.bufferBytes)
    family("rootlinkd_reloads_total", "counter", "Reloads of the configuration, by result.")
    sample([("result", "done")], Double(status.reload?.done ?? 0))
    sample([("result", "refused")], Double(status.reload?.refused ?? 0))
    single(
      "rootlinkd_rdma_sessions", "gauge", "Sessions over RDMA.",
      UInt64(status.transportSessions.count))
    single(
      "rootlinkd_rdma_memory_bytes", "gauge", "Locked memory of sessions over RDMA.",
      UInt64(clamping: status.transportSessions.reduce(0) { $0 &+ $1.memoryBytes }))
  }

  private mutating func media(_ exports: [ServerStatus.ExportStatus]) {
    family("rootlinkd_export_medium", "gauge", "1 for each part of a medium, with its state.")
    for export in exports {
      for medium in export.media ?? [] {
        sample(
          export, 1, ("path", medium.path), ("role", medium.role), ("state", medium.state))
      }
    }
    family("rootlinkd_export_work_done_bytes", "gauge", "Long work: how far it is.")
    for export in exports {
      for work in export.work ?? [] { sample(export, Double(work.doneBytes), ("work", work.what)) }
    }
    family("rootlinkd_export_work_bytes", "gauge", "Long work: how much it is.")
    for export in exports {
      for work in export.work ?? [] { sample(export, Double(work.totalBytes), ("work", work.what)) }
    }
  }

  private mutating func process(_ usage: ProcessUsage) {
    family("process_cpu_seconds_total", "counter", "CPU time, user and system.")
    sample([], usage.cpuSeconds)
    single("process_resident_memory_bytes", "gauge", "Memory in use.", usage.residentBytes)
    single("process_open_fds", "gauge", "Open file descriptors.", usage.descriptorCount)
  }
}

// The format.
extension MetricsText {
  /// The family that following samples belong to.
  private mutating func family(_ name: String, _ type: String, _ help: String) {
    current = name
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
  }

  private mutating func single(_ name: String, _ type: String, _ help: String, _ value: UInt64?) {
    family(name, type, help)
    if let value { sample([], Double(value)) }
  }

  private mutating func sample(
    _ export: ServerStatus.ExportStatus, _ value: Double, _ more: (String, String)...
  ) {
    sample([("export", export.name)] + more, value)
  }

  private mutating func sample(_ labels: [(String, String)], _ value: Double) {
    let shown = labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",")
    text += current + (shown.isEmpty ? "" : "{\(shown)}") + " \(Self.number(value))\n"
  }

  /// Whole numbers without a point, as long as a double holds them.
  static func number(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 9_007_199_254_740_992
      ? String(Int64(value)) : String(value)
  }

  static func escaped(_ label: String) -> String {
    var text = ""
    for scalar in label.unicodeScalars {
      switch scalar {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.unicodeScalars.append(scalar)
      }
    }
    return text
  }
}

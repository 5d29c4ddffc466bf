// SPDX-License-Identifier: Apache-2.0

/// The answer of a running server to `rootlinkd status`; its property names are the JSON's keys.
/// Keys are added, never renamed.
public struct ServerStatus: Codable, Equatable, Sendable {
  public struct Session: Codable, Equatable, Sendable {
    public var number: UInt64
    public var client: String
    public var protocolName: String
    /// Since the connection was accepted.
    public var seconds: UInt64
    public var counters: SessionCounters
    /// What the client opened the device for, where its protocol says it: ro, rw or migration.
    public var accessMode: String?
    /// The name that it opened it by.
    public var mappingPath: String?
    /// What the client calls its session.
    public var session: String?

    enum CodingKeys: String, CodingKey {
      case number, client, seconds, counters, accessMode, mappingPath, session
      case protocolName = "protocol"
    }
  }
  /// A session over RDMA.
  public struct TransportSession: Codable, Equatable, Sendable {
    public var name: String
    /// Requests that are being executed.
    public var inFlight: Int
    /// Of its chunks.
    public var memoryBytes: Int
    public var devices: [OpenDevice]
    public var paths: [TransportPath]

    public init(
      name: String, inFlight: Int, memoryBytes: Int, devices: [OpenDevice],
      paths: [TransportPath]
    ) {
      self.name = name
      self.inFlight = inFlight
      self.memoryBytes = memoryBytes
      self.devices = devices
      self.paths = paths
    }
  }
  public struct OpenDevice: Codable, Equatable, Sendable {
    public var mappingPath: String
    public var export: String
    public var accessMode: String

    public init(mappingPath: String, export: String, accessMode: String) {
      self.mappingPath = mappingPath
      self.export = export
      self.accessMode = accessMode
    }
  }
  public struct TransportPath: Codable, Equatable, Sendable {
    /// Addresses of both ends.
    public var client: String
    public var server: String
    /// The RDMA device.
    public var device: String
    /// connecting or connected.
    public var state: String
    public var connections: Int
    /// 1 at first, one more each time that the client has brought the path up again.
    public var attempt: UInt16
    public var seconds: UInt64
    public var reads: UInt64
    public var readBytes: UInt64
    public var writes: UInt64
    public var writtenBytes: UInt64

    public init(
      client: String, server: String, device: String, state: String, connections: Int,
      attempt: UInt16, seconds: UInt64, reads: UInt64, readBytes: UInt64, writes: UInt64,
      writtenBytes: UInt64
    ) {
      self.client = client
      self.server = server
      self.device = device
      self.state = state
      self.connections = connections
      self.attempt = attempt
      self.seconds = seconds
      self.reads = reads
      self.readBytes = readBytes
      self.writes = writes
      self.writtenBytes = writtenBytes
    }
  }
  public struct ExportStatus: Codable, Equatable, Sendable {
    public var name: String
    public var path: String
    public var description: String
    public var access: String
    /// In bytes.
    public var size: UInt64
    public var sessionsSinceStart: UInt64
    /// Attachments without connections, whose clients may come back.
    public var absentAttachments: Int
    /// Of all sessions since the start, present ones included.
    public var counters: SessionCounters
    public var sessions: [Session]
  }

  public var listening: [String]
  /// Present connections, those that still negotiate included.
  public var connections: Int
  /// Turned away because there were too many.
  public var connectionsRefused: UInt64
  public var exports: [ExportStatus]
  public var transportSessions: [TransportSession]

  /// The same for people.
  public var text: String {
    var lines: [String] = []
    for address in listening { lines.append("listening on \(address)") }
    lines.append("\(connections) connections, \(connectionsRefused) refused")
    for export in exports {
      lines.append(
        "export '\(export.name)' \(export.access) \(export.size) bytes from \(export.path): "
          + "\(export.sessions.count) sessions, \(export.sessionsSinceStart) since the start; "
          + (export.absentAttachments > 0 ? "\(export.absentAttachments) absent; " : "")
          + export.counters.text)
      for session in export.sessions {
        var opened = ""
        if let mode = session.accessMode { opened += " \(mode)" }
        if let path = session.mappingPath { opened += " as '\(path)'" }
        if let name = session.session { opened += " by '\(name)'" }
        lines.append(
          "  session \(session.number) \(session.protocolName)\(opened) from \(session.client) "
            + "for \(session.seconds) s; \(session.counters.text)")
      }
    }
    for session in transportSessions {
      lines.append(
        "rdma session '\(session.name)': \(session.devices.count) devices, "
          + "\(session.inFlight) in flight, \(session.memoryBytes) bytes of memory")
      for path in session.paths {
        lines.append(
          "  path \(path.client) to \(path.server) on \(path.device): \(path.state), "
            + "\(path.connections) connections for \(path.seconds) s, attempt \(path.attempt); "
            + "\(path.reads) reads (\(path.readBytes) bytes), \(path.writes) writes "
            + "(\(path.writtenBytes) bytes)")
      }
    }
    return lines.joined(separator: "\n")
  }
}

extension SessionCounters {
  /// One line for people.
  public var text: String {
    "\(reads) reads (\(readBytes) bytes), \(writes) writes (\(writtenBytes) bytes), "
      + "\(zeroes) zeroed, \(trims) trimmed, \(flushes) flushes, \(errors) errors"
  }
}

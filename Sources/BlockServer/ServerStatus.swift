// SPDX-License-Identifier: Apache-2.0

/// The answer of a running server to `rootlinkd status`; its property names are the JSON's keys.
/// Keys are added, never renamed.
public struct ServerStatus: Codable, Equatable, Sendable {
  /// A connection that has entered an export, or a device that an RDMA session has open.
  public struct Session: Codable, Equatable, Sendable {
    /// As the log calls it; grows, and is not used again.
    public var number: UInt64
    /// As the log calls it: `tcp:192.0.2.1:4321`.
    public var client: String
    /// "protocol" in the JSON: nbd or rnbd.
    public var protocolName: String
    /// Since the connection was accepted.
    public var seconds: UInt64
    /// Of this session alone.
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
    /// What the client calls it.
    public var name: String
    /// Requests that are being executed.
    public var inFlight: Int
    /// Of its chunks.
    public var memoryBytes: Int
    /// Those that it has open now.
    public var devices: [OpenDevice]
    /// The ways to the client, those that are still being set up included.
    public var paths: [TransportPath]

    /// See each for its unit.
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
  /// A device that an RDMA session has open.
  public struct OpenDevice: Codable, Equatable, Sendable {
    /// The name that the client opened it by.
    public var mappingPath: String
    /// The name of the export.
    public var export: String
    /// What it was opened for: ro, rw or migration.
    public var accessMode: String

    /// As the client and the server name it.
    public init(mappingPath: String, export: String, accessMode: String) {
      self.mappingPath = mappingPath
      self.export = export
      self.accessMode = accessMode
    }
  }
  /// One way of a session over RDMA: a port of each side, with several connections.
  public struct TransportPath: Codable, Equatable, Sendable {
    /// Addresses of both ends.
    public var client: String
    /// Of this machine's end.
    public var server: String
    /// The RDMA device.
    public var device: String
    /// connecting or connected.
    public var state: String
    /// Those that were accepted; fewer than all while the path is set up.
    public var connections: Int
    /// 1 at first, one more each time that the client has brought the path up again.
    public var attempt: UInt16
    /// Since this attempt began.
    public var seconds: UInt64
    /// Requests that came by this path since then, and were done.
    public var reads: UInt64
    /// The data of these, in bytes.
    public var readBytes: UInt64
    /// As `reads`.
    public var writes: UInt64
    /// The data of these, in bytes.
    public var writtenBytes: UInt64

    /// See each for its unit.
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
  /// One export, offered or found; one that is offered no more is told of while sessions are left.
  public struct ExportStatus: Codable, Equatable, Sendable {
    /// What clients call it; of a found one, the path of what was found.
    public var name: String
    /// Where the bytes come from, for people.
    public var path: String
    /// What LIST tells clients of it.
    public var description: String
    /// ro, rw, migration or overlay.
    public var access: String
    /// In bytes.
    public var size: UInt64
    /// Sessions that have entered it, present ones included.
    public var sessionsSinceStart: UInt64
    /// Attachments without connections, whose clients may come back.
    public var absentAttachments: Int
    /// Of all sessions since the start, present ones included.
    public var counters: SessionCounters
    /// Those that are there now, the oldest first.
    public var sessions: [Session]
    /// Of the last 10 to 20 seconds; nil before that.
    public var rates: Rates?
    /// What goes on beside the serving.
    public var work: [WorkProgress]?
    /// The parts of a medium that is made of several, and how they are: see rootlinkd(8).
    public var media: [Medium]?
    /// The networks whose clients see it; nil: all.
    public var allow: [String]?
    /// It is not offered any more, and sessions are left.
    public var isRemoved: Bool?
    /// Clients that have the right to write now.
    public var writers: Int?
  }
  /// What has been done in one second, on average.
  public struct Rates: Codable, Equatable, Sendable {
    /// Requests.
    public var reads: Double
    /// In bytes.
    public var readBytes: Double
    /// Requests.
    public var writes: Double
    /// In bytes.
    public var writtenBytes: Double
  }
  /// A part of a medium.
  public struct Medium: Codable, Equatable, Sendable {
    /// For people: a path, or what a stack of media is made of.
    public var path: String
    /// What it is to the whole: "half of a mirror".
    public var role: String
    /// "in use", "failed" and so on.
    public var state: String

    /// All three are for people.
    public init(path: String, role: String, state: String) {
      self.path = path
      self.role = role
      self.state = state
    }
  }

  /// As they can be written again: `tcp:[::]:10809`, with the ports that the kernel chose.
  public var listening: [String]
  /// Present connections, those that still negotiate included.
  public var connections: Int
  /// Turned away because of a limit.
  public var connectionsRefused: UInt64
  /// Those that are offered, in the order of the configuration, then found ones, then those offered
  /// no more.
  public var exports: [ExportStatus]
  /// Sessions over RDMA; empty when the server has none.
  public var transportSessions: [TransportSession]
  /// Of the server that answers; nil from one that does not tell it.
  public var version: String?
  /// Since the start of the server.
  public var seconds: UInt64?
  /// Let in since the start.
  public var connectionsAccepted: UInt64?
  /// Ended because nothing was done on them for too long.
  public var connectionsIdled: UInt64?
  /// What the buffers of all connections may come to.
  public var bufferBytes: UInt64?
  /// The last reload of the configuration; nil when there was none.
  public var reload: Reload?

  /// What became of SIGHUP.
  public struct Reload: Codable, Equatable, Sendable {
    /// The last one; when false, `reason` says more and nothing has changed.
    public var succeeded: Bool
    /// How many were done, or refused, since the start.
    public var done: UInt64
    /// As `done`.
    public var refused: UInt64
    /// Why the last one was refused.
    public var reason: String?

    /// `reason` is nil after a success.
    public init(succeeded: Bool, done: UInt64, refused: UInt64, reason: String?) {
      self.succeeded = succeeded
      self.done = done
      self.refused = refused
      self.reason = reason
    }
  }

  /// The same for people.
  public var text: String {
    var lines: [String] = []
    for address in listening { lines.append("listening on \(address)") }
    lines.append("\(connections) connections, \(connectionsRefused) refused")
    if let reason = reload?.reason { lines.append("the last reload was refused: \(reason)") }
    for export in exports {
      lines.append(
        "export '\(export.name)' \(export.access) \(export.size) bytes from \(export.path): "
          + "\(export.sessions.count) sessions, \(export.sessionsSinceStart) since the start; "
          + (export.absentAttachments > 0 ? "\(export.absentAttachments) absent; " : "")
          + export.counters.text + (export.isRemoved == true ? "; not offered any more" : ""))
      if let rates = export.rates,
        rates != Rates(reads: 0, readBytes: 0, writes: 0, writtenBytes: 0)
      {
        lines.append("  " + rates.text)
      }
      for medium in export.media ?? [] {
        lines.append("  \(medium.role) \(medium.path): \(medium.state)")
      }
      for work in export.work ?? [] { lines.append("  " + work.text) }
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

extension ServerStatus.Rates {
  /// One line for people.
  public var text: String {
    "\(Int(reads)) reads/s (\(Int(readBytes)) bytes/s), \(Int(writes)) writes/s "
      + "(\(Int(writtenBytes)) bytes/s)"
  }
}

extension SessionCounters {
  /// One line for people.
  public var text: String {
    "\(reads) reads (\(readBytes) bytes), \(writes) writes (\(writtenBytes) bytes), "
      + "\(zeroes) zeroed, \(trims) trimmed, \(flushes) flushes, \(errors) errors"
  }
}

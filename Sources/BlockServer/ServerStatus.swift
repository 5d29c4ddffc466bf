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

    enum CodingKeys: String, CodingKey {
      case number, client, seconds, counters
      case protocolName = "protocol"
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
        lines.append(
          "  session \(session.number) \(session.protocolName) from \(session.client) "
            + "for \(session.seconds) s; \(session.counters.text)")
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

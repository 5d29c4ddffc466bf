// SPDX-License-Identifier: Apache-2.0
// Who is connected now and what each export has done: the source of `rootlinkd status`, the
// limit on connections, and the way to stop every session when the server stops.

import LinuxSystem
import Synchronization
import WireFormat

public final class SessionRegistry: Sendable {
  /// One connection, from its acceptance to its end.
  private struct Entry {
    var client: ByteString
    var protocolName: String
    var since: MonotonicTime
    /// Nil until an export has been entered.
    var export: ByteString?
    /// Of a client that says what it opens a device for, and by which name.
    var access: String?
    var device: ByteString?
    var session: ByteString?
    var statistics: SessionStatistics
    /// Makes the session end: `isNow` without waiting for anything.
    var stop: @Sendable (_ isNow: Bool) -> Void
  }
  private struct State {
    var nextNumber: UInt64 = 1
    var entries: [UInt64: Entry] = [:]
    var past: [ByteString: ExportTotals] = [:]
    var refusedCount: UInt64 = 0
  }
  private struct ExportTotals {
    var sessionCount: UInt64 = 0
    var counters = SessionCounters()
  }

  public let connectionCountMaximum: Int
  private let state = Mutex(State())

  public init(connectionCountMaximum: Int) {
    self.connectionCountMaximum = connectionCountMaximum
  }

  /// The number of a new connection; nil when there are too many. `stop` is called under a lock
  /// of the registry and does nothing but shut a socket down. An open device of a client with several
  /// counts as a connection, too, and says for what and by which name it was opened.
  public func add(
    client: ByteString, protocolName: String, statistics: SessionStatistics,
    access: String? = nil, device: ByteString? = nil, session: ByteString? = nil,
    stop: @escaping @Sendable (_ isNow: Bool) -> Void
  ) -> UInt64? {
    state.withLock { state in
      guard state.entries.count < connectionCountMaximum else {
        state.refusedCount &+= 1
        return nil
      }
      let number = state.nextNumber
      state.nextNumber += 1
      state.entries[number] = Entry(
        client: client, protocolName: protocolName, since: .now, export: nil, access: access,
        device: device, session: session, statistics: statistics, stop: stop)
      return number
    }
  }

  public func entered(_ number: UInt64, export: ByteString) {
    state.withLock { state in
      state.entries[number]?.export = export
      state.past[export, default: ExportTotals()].sessionCount += 1
    }
  }

  /// After this `stop` is not called any more.
  public func remove(_ number: UInt64) {
    state.withLock { state in
      guard let entry = state.entries.removeValue(forKey: number), let export = entry.export else {
        return
      }
      state.past[export, default: ExportTotals()].counters.add(entry.statistics.snapshot)
    }
  }

  public var connectionCount: Int { state.withLock { $0.entries.count } }

  public func stopAll(isNow: Bool) {
    state.withLock { state in
      for entry in state.entries.values { entry.stop(isNow) }
    }
  }

  /// What `rootlinkd status` tells. `found`: exports that the table does not have.
  public func status(
    of table: ExportTable, found: [Export] = [], attachments: Attachments,
    listeners: [ByteString], transportSessions: [ServerStatus.TransportSession] = []
  ) -> ServerStatus {
    state.withLock { state in
      let sessions = state.entries.sorted { $0.key < $1.key }
      let exports = (table.exports + found).map { export in
        let own = sessions.filter { $0.value.export == export.name }
        var totals = state.past[export.name] ?? ExportTotals()
        let shown = own.map { number, entry in
          let counters = entry.statistics.snapshot
          totals.counters.add(counters)
          return ServerStatus.Session(
            number: number, client: entry.client.text, protocolName: entry.protocolName,
            seconds: MonotonicTime.now.milliseconds(since: entry.since) / 1000,
            counters: counters, accessMode: entry.access, mappingPath: entry.device?.text,
            session: entry.session?.text)
        }
        return ServerStatus.ExportStatus(
          name: export.name.text, path: export.path.text, description: export.description.text,
          access: export.access.rawValue, size: export.geometry().byteCount,
          sessionsSinceStart: totals.sessionCount,
          absentAttachments: attachments.absentCount(of: export), counters: totals.counters,
          sessions: shown)
      }
      return ServerStatus(
        listening: listeners.map(\.text), connections: state.entries.count,
        connectionsRefused: state.refusedCount, exports: exports,
        transportSessions: transportSessions)
    }
  }
}

extension SessionCounters {
  mutating func add(_ other: SessionCounters) {
    reads &+= other.reads
    readBytes &+= other.readBytes
    writes &+= other.writes
    writtenBytes &+= other.writtenBytes
    zeroes &+= other.zeroes
    trims &+= other.trims
    flushes &+= other.flushes
    errors &+= other.errors
  }
}

extension ByteString {
  /// For JSON, which has no bytes: what is not UTF-8 is replaced.
  fileprivate var text: String { String(decoding: bytes, as: UTF8.self) }
}

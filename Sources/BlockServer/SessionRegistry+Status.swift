// SPDX-License-Identifier: Apache-2.0
// What the registry tells: to `rootlinkd status`, and to whoever collects metrics. The lock is held
// for copying what is there, never while texts are made of it.

import LinuxSystem
import Synchronization
import WireFormat

/// What every export had done at one moment.
struct CounterSample: Sendable {
  var time: MonotonicTime
  var totals: [ByteString: SessionCounters]
}

extension SessionRegistry.State {
  /// Of each export, present sessions included.
  var totals: [ByteString: SessionCounters] {
    var totals = past.mapValues(\.counters)
    for entry in entries.values {
      if let export = entry.export {
        totals[export, default: SessionCounters()].add(entry.statistics.snapshot)
      }
    }
    return totals
  }
}

extension SessionRegistry {
  private static let samplePeriodMilliseconds: UInt64 = 10_000

  /// Remembers what has been done, for the rates; call it every second or every ten.
  public func sample(at now: MonotonicTime = .now) {
    state.withLock { state in
      if let last = state.samples.last,
        now.milliseconds(since: last.time) < Self.samplePeriodMilliseconds
      {
        return
      }
      state.samples.append(CounterSample(time: now, totals: state.totals))
      if state.samples.count > 2 { state.samples.removeFirst() }
    }
  }

  /// What `rootlinkd status` tells. `found`: exports that the table does not have; `removed`: those
  /// that it had once.
  public func status(
    of table: ExportTable, found: [Export] = [], removed: [Export] = [],
    attachments: Attachments, access: WriteAccess? = nil, listeners: [ByteString],
    transportSessions: [ServerStatus.TransportSession] = [], at now: MonotonicTime = .now
  ) -> ServerStatus {
    let copy = state.withLock { $0 }
    let offered = table.exports
    let names = Set((offered + found).map(\.name))
    let gone = removed.filter { !names.contains($0.name) }
    var sessions: [ByteString: [(UInt64, Entry)]] = [:]
    for (number, entry) in copy.entries.sorted(by: { $0.key < $1.key }) {
      if let export = entry.export { sessions[export, default: []].append((number, entry)) }
    }
    let totals = copy.totals
    let exports = (offered + found + gone).map { export in
      var status = Self.status(
        of: export, sessions[export.name] ?? [], totals[export.name] ?? SessionCounters(),
        sessionCount: copy.past[export.name]?.sessionCount ?? 0, at: now)
      status.absentAttachments = attachments.absentCount(of: export)
      status.rates = Self.rates(of: export.name, totals, since: copy.samples.first, at: now)
      if !names.contains(export.name) { status.isRemoved = true }
      if export.access.writesToMedium { status.writers = access?.writerCount(of: export.media[0]) }
      return status
    }
    var status = ServerStatus(
      listening: listeners.map(\.text), connections: copy.entries.count,
      connectionsRefused: copy.refusedCount, exports: exports,
      transportSessions: transportSessions)
    status.connectionsAccepted = copy.acceptedCount
    status.connectionsIdled = copy.idledCount
    status.bufferBytes = copy.bufferByteCount
    return status
  }

  private static func status(
    of export: Export, _ sessions: [(UInt64, Entry)], _ counters: SessionCounters,
    sessionCount: UInt64, at now: MonotonicTime
  ) -> ServerStatus.ExportStatus {
    let shown = sessions.map { number, entry in
      ServerStatus.Session(
        number: number, client: entry.client.text, protocolName: entry.protocolName,
        seconds: now.milliseconds(since: entry.since) / 1000,
        counters: entry.statistics.snapshot, accessMode: entry.access,
        mappingPath: entry.device?.text, session: entry.session?.text)
    }
    let (parts, work) = (export.parts, export.work)
    return ServerStatus.ExportStatus(
      name: export.name.text, path: export.path.text, description: export.description.text,
      access: export.access.rawValue, size: export.geometry().byteCount,
      sessionsSinceStart: sessionCount, absentAttachments: 0, counters: counters,
      sessions: shown, work: work.isEmpty ? nil : work, media: parts.isEmpty ? nil : parts,
      allow: export.allow.networks?.map { $0.text.text })
  }

  private static func rates(
    of name: ByteString, _ totals: [ByteString: SessionCounters], since sample: CounterSample?,
    at now: MonotonicTime
  ) -> ServerStatus.Rates? {
    guard let sample else { return nil }
    let milliseconds = now.milliseconds(since: sample.time)
    guard milliseconds >= samplePeriodMilliseconds else { return nil }
    let seconds = Double(milliseconds) / 1000
    let (old, new) = (sample.totals[name] ?? SessionCounters(), totals[name] ?? SessionCounters())
    return ServerStatus.Rates(
      reads: Double(new.reads &- old.reads) / seconds,
      readBytes: Double(new.readBytes &- old.readBytes) / seconds,
      writes: Double(new.writes &- old.writes) / seconds,
      writtenBytes: Double(new.writtenBytes &- old.writtenBytes) / seconds)
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

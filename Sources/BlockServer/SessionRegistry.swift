// SPDX-License-Identifier: Apache-2.0
// Who is connected now and what each export has done: the source of `rootlinkd status` and of the
// metrics, the limits on connections, and the way to stop every session when the server stops.

import LinuxSystem
import Synchronization
import WireFormat

/// The connections of the server; see the head of this file. Any thread may call.
public final class SessionRegistry: Sendable {
  /// One connection, from its acceptance to its end.
  struct Entry {
    var client: ByteString
    var address: ClientAddress
    var protocolName: String
    var since: MonotonicTime
    /// Nil until an export has been entered.
    var export: ByteString?
    /// Of a client that says what it opens a device for, and by which name.
    var access: String?
    var device: ByteString?
    var session: ByteString?
    var statistics: SessionStatistics
    /// What it had done when it was last looked at, and since when that is so.
    var seen = SessionCounters()
    var idleSince: MonotonicTime
    var isEnding = false
    /// What its buffers may come to.
    var bufferByteCount: UInt64
    /// Makes the session end: `isNow` without waiting for anything.
    var stop: @Sendable (_ isNow: Bool) -> Void
  }
  struct State {
    var limits = ConnectionLimits()
    var nextNumber: UInt64 = 1
    var entries: [UInt64: Entry] = [:]
    /// Connections of each address that has one.
    var clientCounts: [ClientAddress: Int] = [:]
    var past: [ByteString: ExportTotals] = [:]
    /// Of all entries.
    var bufferByteCount: UInt64 = 0
    var acceptedCount: UInt64 = 0
    var refusedCount: UInt64 = 0
    /// Ended for having been idle.
    var idledCount: UInt64 = 0
    /// The last two, the older one first.
    var samples: [CounterSample] = []
  }
  struct ExportTotals {
    var sessionCount: UInt64 = 0
    var counters = SessionCounters()
  }

  let state: Mutex<State>

  /// `limits` may be changed later.
  public init(limits: ConnectionLimits) {
    var state = State()
    state.limits = limits
    self.state = Mutex(state)
  }

  /// With the defaults of the other limits.
  public convenience init(connectionCountMaximum: Int) {
    var limits = ConnectionLimits()
    limits.connectionCountMaximum = connectionCountMaximum
    self.init(limits: limits)
  }

  /// For connections that come from now on.
  public var limits: ConnectionLimits {
    get { state.withLock { $0.limits } }
    set { state.withLock { $0.limits = newValue } }
  }
  /// As in `limits`.
  public var connectionCountMaximum: Int { limits.connectionCountMaximum }

  /// The number of a new connection. `stop` is called under a lock of the registry and does nothing
  /// but shut a socket down. An open device of a client with several counts as a connection, too, and
  /// says for what and by which name it was opened. `bufferByteCount`: what its buffers may come to.
  public func admit(
    client: ByteString, protocolName: String, statistics: SessionStatistics,
    access: String? = nil, device: ByteString? = nil, session: ByteString? = nil,
    bufferByteCount: UInt64 = 0, stop: @escaping @Sendable (_ isNow: Bool) -> Void
  ) throws(ConnectionRefusal) -> UInt64 {
    let address = ClientAddress(client)
    return try state.withLock { state throws(ConnectionRefusal) in
      do throws(ConnectionRefusal) {
        try Self.check(address, bufferByteCount, in: state)
      } catch {
        state.refusedCount &+= 1
        throw error
      }
      let number = state.nextNumber
      state.nextNumber += 1
      state.acceptedCount &+= 1
      state.clientCounts[address, default: 0] += 1
      state.bufferByteCount += bufferByteCount
      let now = MonotonicTime.now
      state.entries[number] = Entry(
        client: client, address: address, protocolName: protocolName, since: now, export: nil,
        access: access, device: device, session: session, statistics: statistics, idleSince: now,
        bufferByteCount: bufferByteCount, stop: stop)
      return number
    }
  }

  private static func check(
    _ address: ClientAddress, _ bufferByteCount: UInt64, in state: State
  ) throws(ConnectionRefusal) {
    let maximum = state.limits.connectionCountMaximum
    guard state.entries.count < maximum else { throw .tooMany(maximum: maximum) }
    if let maximum = state.limits.clientConnectionCountMaximum, address != .unknown {
      guard state.clientCounts[address] ?? 0 < maximum else {
        throw .tooManyOfClient(maximum: maximum)
      }
    }
    if let maximum = state.limits.memoryByteCountMaximum, bufferByteCount > 0 {
      let (sum, overflow) = state.bufferByteCount.addingReportingOverflow(bufferByteCount)
      guard !overflow, sum <= maximum else { throw .noMemory(maximum: maximum) }
    }
  }

  /// As `admit`; nil when the connection is not to be served.
  public func add(
    client: ByteString, protocolName: String, statistics: SessionStatistics,
    access: String? = nil, device: ByteString? = nil, session: ByteString? = nil,
    stop: @escaping @Sendable (_ isNow: Bool) -> Void
  ) -> UInt64? {
    try? admit(
      client: client, protocolName: protocolName, statistics: statistics, access: access,
      device: device, session: session, stop: stop)
  }

  /// The connection has ended its negotiation; from here on it counts as a session of the export.
  /// Does nothing for a number that was removed.
  public func entered(_ number: UInt64, export: ByteString) {
    state.withLock { state in
      guard state.entries[number] != nil else { return }
      state.entries[number]?.export = export
      state.entries[number]?.idleSince = .now
      state.past[export, default: ExportTotals()].sessionCount += 1
    }
  }

  /// After this `stop` is not called any more.
  public func remove(_ number: UInt64) {
    state.withLock { state in
      guard let entry = state.entries.removeValue(forKey: number) else { return }
      let left = (state.clientCounts[entry.address] ?? 1) - 1
      state.clientCounts[entry.address] = left > 0 ? left : nil
      state.bufferByteCount -= entry.bufferByteCount
      guard let export = entry.export else { return }
      state.past[export, default: ExportTotals()].counters.add(entry.statistics.snapshot)
    }
  }

  /// Present ones, those that still negotiate and open devices of RDMA sessions included.
  public var connectionCount: Int { state.withLock { $0.entries.count } }

  /// Calls `stop` of every connection; `isNow`: without waiting for what clients have asked for.
  /// Connections leave the registry by `remove`, at their own time.
  public func stopAll(isNow: Bool) {
    state.withLock { state in
      for entry in state.entries.values { entry.stop(isNow) }
    }
  }

  /// Ends the sessions that have done nothing for longer than they may, and tells which; call it
  /// about once a second, or at least ten times in `idleSeconds`. A session that negotiates has a
  /// limit of its own.
  public func endIdle(at now: MonotonicTime = .now) -> [(number: UInt64, client: ByteString)] {
    state.withLock { state in
      guard let seconds = state.limits.idleSeconds else { return [] }
      var ended: [(number: UInt64, client: ByteString)] = []
      for (number, entry) in state.entries where entry.export != nil && !entry.isEnding {
        let counters = entry.statistics.snapshot
        if counters != entry.seen {
          state.entries[number]?.seen = counters
          state.entries[number]?.idleSince = now
        } else if now.milliseconds(since: entry.idleSince) / 1000 >= seconds {
          state.entries[number]?.isEnding = true
          state.idledCount &+= 1
          ended.append((number, entry.client))
          entry.stop(true)
        }
      }
      return ended.sorted { $0.number < $1.number }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Limits on connections, and what is told of them. No clock: times are given.

import BlockBackends
import BlockServer
import LinuxSystem
import Synchronization
import Testing
import WireFormat

@Suite("The registry of sessions")
struct SessionRegistryTests {
  static func limits(_ change: (inout ConnectionLimits) -> Void) -> ConnectionLimits {
    var limits = ConnectionLimits()
    change(&limits)
    return limits
  }

  /// Clients that come one after the other, and how the last one fares.
  static let cases:
    [(limits: ConnectionLimits, clients: [ByteString], refusal: ConnectionRefusal?)] =
      [
        (limits { $0.connectionCountMaximum = 2 }, ["a", "b"], nil),
        (limits { $0.connectionCountMaximum = 2 }, ["a", "b", "c"], .tooMany(maximum: 2)),
        (
          limits { $0.clientConnectionCountMaximum = 1 },
          ["tcp:192.0.2.1:1", "tcp:192.0.2.1:2"], .tooManyOfClient(maximum: 1)
        ),
        (
          limits { $0.clientConnectionCountMaximum = 1 },
          ["tcp:192.0.2.1:1", "tcp:[::ffff:192.0.2.1]:2"], .tooManyOfClient(maximum: 1)
        ),
        (
          limits { $0.clientConnectionCountMaximum = 1 }, ["tcp:192.0.2.1:1", "tcp:192.0.2.2:1"],
          nil
        ),
        (
          limits { $0.clientConnectionCountMaximum = 1 }, ["unix:/a", "unix:/b"],
          .tooManyOfClient(maximum: 1)
        ),
        (limits { $0.memoryByteCountMaximum = 2000 }, ["a", "b"], nil),
        (limits { $0.memoryByteCountMaximum = 2999 }, ["a", "b", "c"], .noMemory(maximum: 2999)),
      ]

  @Test("lets in as many as the limits say", arguments: cases.indices)
  func admits(index: Int) throws {
    let (limits, clients, refusal) = Self.cases[index]
    let registry = SessionRegistry(limits: limits)
    func admit(_ client: ByteString) throws -> UInt64 {
      try registry.admit(
        client: client, protocolName: "nbd", statistics: SessionStatistics(),
        bufferByteCount: 1000, stop: { _ in })
    }
    var numbers: [UInt64] = []
    for client in clients.dropLast() { numbers.append(try admit(client)) }
    guard let refusal else {
      _ = try admit(clients[clients.count - 1])
      return
    }
    #expect(throws: refusal) { try admit(clients[clients.count - 1]) }
    // There is room again when one has gone.
    registry.remove(numbers[0])
    _ = try admit(clients[clients.count - 1])
    let status = registry.status(of: ExportTable([]), attachments: Attachments(), listeners: [])
    #expect(status.connectionsRefused == 1)
    #expect(status.connectionsAccepted == UInt64(clients.count))
    #expect(status.bufferBytes == UInt64(clients.count - 1) * 1000)
  }

  @Test("takes limits up that change while clients are there")
  func changes() throws {
    let registry = SessionRegistry(limits: Self.limits { $0.connectionCountMaximum = 1 })
    func add() -> UInt64? {
      registry.add(
        client: "a", protocolName: "nbd", statistics: SessionStatistics(), stop: { _ in })
    }
    #expect(add() != nil && add() == nil)
    registry.limits.connectionCountMaximum = 2
    #expect(add() != nil && add() == nil)
  }

  @Test("ends sessions that do nothing for too long, and no others")
  func idle() throws {
    let registry = SessionRegistry(limits: Self.limits { $0.idleSeconds = 60 })
    let stopped = Mutex<[UInt64]>([])
    func add(_ export: ByteString?) throws -> (UInt64, SessionStatistics) {
      let statistics = SessionStatistics()
      let box = Mutex<UInt64>(0)
      let boxed = Box(box)
      let number = try registry.admit(
        client: "a", protocolName: "nbd", statistics: statistics,
        stop: { _ in stopped.withLock { $0.append(boxed.value.withLock { $0 }) } })
      boxed.value.withLock { $0 = number }
      if let export { registry.entered(number, export: export) }
      return (number, statistics)
    }
    let (lazy, _) = try add("a")
    let (busy, statistics) = try add("a")
    _ = try add(nil)  // It negotiates, and has another limit.
    let start = MonotonicTime.now
    func after(_ seconds: UInt64) -> MonotonicTime {
      start.advanced(byMilliseconds: seconds * 1000 + 500)
    }
    #expect(registry.endIdle(at: after(59)).isEmpty)
    statistics.readCount.add(1, ordering: .relaxed)
    #expect(registry.endIdle(at: after(60)).map(\.number) == [lazy])
    #expect(registry.endIdle(at: after(61)).isEmpty)
    #expect(registry.endIdle(at: after(119)).isEmpty)
    #expect(registry.endIdle(at: after(121)).map(\.number) == [busy])
    #expect(stopped.withLock { $0 } == [lazy, busy])
  }

  /// A value that closures share.
  final class Box: Sendable {
    let value: Mutex<UInt64>
    init(_ value: consuming Mutex<UInt64>) { self.value = value }
  }

  @Test("tells rates of the last seconds, and what removed exports have left")
  func status() throws {
    let registry = SessionRegistry(limits: ConnectionLimits())
    let export = Export(name: "a", base: MemoryBackend(byteCount: 4096))
    let gone = Export(name: "gone", base: MemoryBackend(byteCount: 4096))
    let table = ExportTable([export])
    let statistics = SessionStatistics()
    let number = try registry.admit(
      client: "tcp:192.0.2.1:1", protocolName: "nbd", statistics: statistics, stop: { _ in })
    registry.entered(number, export: "a")
    let start = MonotonicTime.now
    func status(after seconds: UInt64) -> ServerStatus {
      registry.status(
        of: table, removed: [gone, export], attachments: Attachments(), listeners: [],
        at: start.advanced(byMilliseconds: seconds * 1000))
    }
    #expect(status(after: 5).exports[0].rates == nil)
    registry.sample(at: start)
    statistics.readCount.add(30, ordering: .relaxed)
    statistics.readByteCount.add(3000, ordering: .relaxed)
    registry.sample(at: start.advanced(byMilliseconds: 9000))
    let rates = try #require(status(after: 10).exports[0].rates)
    #expect(rates.reads == 3 && rates.readBytes == 300 && rates.writes == 0)
    registry.sample(at: start.advanced(byMilliseconds: 10_000))
    registry.sample(at: start.advanced(byMilliseconds: 20_000))
    #expect(status(after: 25).exports[0].rates?.reads == 0)
    let exports = status(after: 25).exports
    #expect(exports.map(\.name) == ["a", "gone"])
    #expect(exports.map(\.isRemoved) == [nil, true])
    #expect(status(after: 25).text.contains("not offered any more"))
  }
}

@Suite("The table of exports")
struct ExportTableTests {
  static func export(_ name: ByteString, _ networks: [ByteString]? = nil) throws -> Export {
    Export(
      name: name, base: MemoryBackend(byteCount: 512),
      allow: AllowList(networks: try networks?.map { try ClientNetwork($0) }))
  }

  /// Exports with the networks that they are for, the default, who asks, and what the empty name is.
  static let defaults:
    [(exports: [(ByteString, [ByteString]?)], name: ByteString?, found: ByteString?)] = [
      ([("a", nil)], nil, "a"), ([("a", nil), ("b", nil)], nil, nil),
      ([("a", nil), ("b", nil)], "b", "b"), ([("a", nil), ("", nil)], nil, ""),
      ([("a", ["10.0.0.0/8"]), ("b", ["192.0.2.0/24"])], nil, "b"),
      ([("a", ["10.0.0.0/8"]), ("b", nil)], "a", nil), ([("a", [])], nil, nil),
    ]

  @Test(
    "has one export for whoever names none, among those that he may see",
    arguments: defaults.indices)
  func defaultExport(index: Int) throws {
    let row = Self.defaults[index]
    let table = ExportTable(
      try row.exports.map { try Self.export($0.0, $0.1) }, defaultName: row.name)
    let client = ClientAddress("192.0.2.7")
    #expect(table.export(named: "", for: client)?.name == row.found)
  }

  @Test("can be replaced while its exports are in use")
  func replacement() throws {
    let old = try Self.export("a")
    let table = ExportTable([old])
    let new = try Self.export("a")
    table.replace(with: [new, try Self.export("b")], defaultName: "b")
    #expect(table.export(named: "a") === new)
    #expect(table.export(named: "")?.name == "b")
  }

  @Test("keeps an open medium when only what clients are told has changed")
  func redefinition() throws {
    var definition = ExportDefinition(name: "a", path: "/dev/null")
    let export = Export(
      name: "a", base: MemoryBackend(byteCount: 512), definition: definition)
    #expect(export.redefined(as: definition) === export)
    definition.description = "new"
    definition.allow.networks = [.unix]
    let redefined = try #require(export.redefined(as: definition))
    #expect(redefined !== export && redefined.description == "new")
    #expect(redefined.media == export.media)
    #expect(redefined.allow == definition.allow)
    definition.isSync = true
    #expect(export.redefined(as: definition) == nil)
  }
}

@Suite("A report of long work")
struct WorkProgressTests {
  @Test("has a line at the start, now and then, and at the end")
  func lines() {
    var reporter = ProgressReporter()
    func lines(_ done: UInt64?, seconds: UInt64) -> [String] {
      let work = done.map {
        [(export: "a", work: WorkProgress(what: "resync", doneBytes: $0, totalBytes: 200))]
      }
      return reporter.lines(for: work ?? [], nanoseconds: seconds * 1_000_000_000)
    }
    #expect(lines(0, seconds: 1) == ["export 'a': resync: 0 % (0 of 200 bytes)"])
    #expect(lines(50, seconds: 5).isEmpty)
    #expect(lines(60, seconds: 12) == ["export 'a': resync: 30 % (60 of 200 bytes)"])
    #expect(lines(60, seconds: 30).isEmpty)
    #expect(lines(199, seconds: 31) == ["export 'a': resync: 99 % (199 of 200 bytes)"])
    #expect(lines(200, seconds: 32) == ["export 'a': resync: 100 % (200 of 200 bytes)"])
    #expect(lines(nil, seconds: 33).isEmpty)
    #expect(lines(0, seconds: 34).count == 1)
    #expect(lines(nil, seconds: 35) == ["export 'a': resync has ended"])
  }
}

// SPDX-License-Identifier: Apache-2.0
import Foundation
import LinuxSystem
import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import BlockBackends

/// What a mirror has said.
final class MirrorEvents: Sendable {
  private let list = Mutex<[MirrorEvent]>([])
  var all: [MirrorEvent] { list.withLock { $0 } }
  var report: @Sendable (MirrorEvent) -> Void {
    { event in self.list.withLock { $0.append(event) } }
  }
}

/// What the clients of a load and their test tell each other.
final class LoadState: Sendable {
  let failures = Mutex<[String]>([])
  let running = Atomic(4)
  let isOver = Atomic(false)
  let total = Atomic(0)
}

/// Two or more halves in memory, each of which can be made to fail, and a state.
struct MirrorBench {
  static let error = BackendError.system(.inputOutput)
  let byteCount: Int
  let disks: [MemoryBackend]
  let switches: [ErrorBackend]
  let state: MemoryBackend
  var options = MirrorOptions()
  let events = MirrorEvents()

  init(_ count: Int = 2, byteCount: Int = 1 << 20, regionByteCount: UInt64 = 16384) {
    self.byteCount = byteCount
    disks = (0..<count).map { _ in MemoryBackend(byteCount: byteCount + 8192) }
    switches = disks.map { ErrorBackend(over: $0) }
    options.regionByteCount = regionByteCount
    options.hasThread = false
    options.retrySeconds = 0
    state = MemoryBackend(
      byteCount: Int(MirrorBackend.stateByteCount(for: UInt64(byteCount), options: options)))
  }

  func open(_ halves: [(any BlockBackend)?]? = nil) throws(MirrorError) -> MirrorBackend {
    try MirrorBackend(
      halves: halves ?? switches, state: state, options: options, report: events.report)
  }

  /// With everything copied, and closed again.
  func prepare(_ contents: UInt8 = 7) throws {
    let mirror = try open()
    Self.settle(mirror)
    try mirror.write([UInt8](repeating: contents, count: byteCount), at: 0)
    try mirror.flush()
    Self.settle(mirror)
    while mirror.core.recorded.population > 0 { _ = mirror.advance() }
  }

  static func settle(_ mirror: MirrorBackend) {
    for _ in 0..<10_000 where !mirror.advance() && mirror.status.isWhole { return }
    Issue.record("a mirror that never becomes whole: \(mirror.status)")
  }

  func contents(_ disk: Int) -> [UInt8] { Array(disks[disk].bytes.prefix(byteCount)) }
  var isSame: Bool { disks.indices.allSatisfy { contents($0) == contents(0) } }
}

@Suite("A mirror")
struct MirrorTests {
  @Test("that is new has its first half copied to the others")
  func new() throws {
    let bench = MirrorBench(3)
    try bench.disks[0].write([UInt8](repeating: 1, count: 300_000), at: 100_000)
    try bench.disks[1].write([UInt8](repeating: 2, count: 300_000), at: 50_000)
    let mirror = try bench.open()
    #expect(mirror.byteCount == UInt64(bench.byteCount))
    #expect(mirror.status.halves.map(\.state) == [.good, .resyncing, .resyncing])
    #expect(mirror.status.halves[1].staleByteCount == UInt64(bench.byteCount))
    #expect(try mirror.bytes(3, at: 99_999) == [0, 1, 1])
    MirrorBench.settle(mirror)
    #expect(bench.isSame)
    #expect(try mirror.bytes(3, at: 99_999) == [0, 1, 1])
    #expect(bench.events.all.contains(.resyncEnds(half: 2)))
    #expect(!bench.events.all.contains { $0.isAlarm })
  }

  @Test("is read from all its halves")
  func balance() throws {
    let bench = MirrorBench(2, byteCount: 16 << 20)
    try bench.prepare()
    let mirror = try bench.open()
    for half in bench.switches { half.switchTo(.working) }
    for offset in 0..<256 { _ = try mirror.bytes(4096, at: UInt64(offset) << 16) }
    #expect(bench.switches[0].callCount == 128 && bench.switches[1].callCount == 128)
  }

  static let failures: [BackendOperations] = [.read, .write, .writeZeroes, .flush, .all]

  @Test("goes on without a half that fails, says so, and brings it up to date", arguments: failures)
  func outOfUse(operations: BackendOperations) throws {
    for failing in 0..<2 {
      let bench = MirrorBench(2, byteCount: 4 << 20)
      try bench.prepare()
      let mirror = try bench.open()
      bench.switches[failing].switchTo(.failing(operations, MirrorBench.error))
      for offset: UInt64 in [0, 1 << 20, 2 << 20, 3 << 20] {
        #expect(try mirror.bytes(2, at: offset) == [7, 7])
        try mirror.write([8], at: offset)
        try mirror.writeZeroes((offset + 1)..<(offset + 2), mayPunch: true, isDurable: false)
        #expect(try mirror.bytes(3, at: offset) == [8, 0, 7])
      }
      try mirror.flush()
      #expect(
        bench.events.all.contains(
          .outOfUse(half: failing + 1, MirrorBench.error, remaining: 1)))
      #expect(mirror.status.halves[failing].state == .outOfUse)
      #expect(mirror.status.halves[1 - failing].state == .good)
      let missed = mirror.status.halves[failing].staleByteCount
      #expect(missed > 0 && missed <= 8 * 16384)
      // What does not work is not put back.
      if operations.contains(.read) {
        #expect(throws: HalfRefusal.unreadable(MirrorBench.error)) {
          try mirror.putBack(failing + 1)
        }
      }
      bench.switches[failing].switchTo(.working)
      try mirror.putBack(failing + 1)
      #expect(throws: HalfRefusal.inUse) { try mirror.putBack(failing + 1) }
      try mirror.write([9], at: 5)
      MirrorBench.settle(mirror)
      #expect(bench.isSame)
      #expect(bench.events.all.last == .resyncEnds(half: failing + 1))
    }
  }

  @Test("keeps its last half, whose errors are the client's")
  func lastHalf() throws {
    let bench = MirrorBench()
    try bench.prepare()
    let mirror = try bench.open()
    for half in bench.switches { half.switchTo(.failing(.all, MirrorBench.error)) }
    #expect(throws: MirrorBench.error) { try mirror.write([1], at: 0) }
    #expect(throws: MirrorBench.error) { try mirror.flush() }
    #expect(throws: MirrorBench.error) { try mirror.bytes(1, at: 0) }
    #expect(mirror.status.halves.contains { $0.state == .good })
    for half in bench.switches { half.switchTo(.working) }
    try mirror.write([1], at: 0)
    for half in 1...2 where mirror.status.halves[half - 1].state == .outOfUse {
      try mirror.putBack(half)
    }
    MirrorBench.settle(mirror)
    #expect(bench.isSame)
  }

  @Test("writes nothing that it could not remember")
  func stateFails() throws {
    let bench = MirrorBench()
    try bench.prepare()
    let state = ErrorBackend(over: bench.state)
    let mirror = try MirrorBackend(
      halves: bench.switches, state: state, options: bench.options, report: bench.events.report)
    for operation: BackendOperations in [.write, .flush] {
      state.switchTo(.failing(operation, MirrorBench.error))
      #expect(throws: MirrorBench.error) { try mirror.write([1], at: 0) }
      #expect(try mirror.bytes(1, at: 0) == [7])
      #expect(bench.events.all.contains(.cannotRecord(MirrorBench.error)))
    }
    state.switchTo(.working)
    try mirror.write([1], at: 0)
    #expect(try mirror.bytes(1, at: 0) == [1])
  }

  @Test("copies only what a half has missed, over a restart, too")
  func missed() throws {
    let bench = MirrorBench()
    try bench.prepare()
    do {
      let mirror = try bench.open([bench.disks[0], nil])
      #expect(bench.events.all.last == .refused(half: 2, .notThere))
      try mirror.write([1], at: 40_000)
      try mirror.write([2], at: 500_000)
    }
    let mirror = try bench.open()
    #expect(mirror.status.halves[1].state == .resyncing)
    #expect(mirror.status.halves[1].staleByteCount == 2 * 16384)
    #expect(try mirror.bytes(1, at: 40_000) == [1])
    MirrorBench.settle(mirror)
    #expect(bench.isSame)
  }

  @Test("never takes a half for good that is not", arguments: 0..<10)
  func identity(row: Int) throws {
    let bench = MirrorBench()
    try bench.prepare(7)
    let old = bench.disks.map { MemoryBackend(contents: $0.bytes) }
    let oldState = MemoryBackend(contents: bench.state.bytes)
    let other = MirrorBench()
    try other.prepare(9)
    try bench.prepare(8)
    func mirror(
      _ halves: [(any BlockBackend)?], _ state: (any BlockBackend)? = nil
    ) throws -> MirrorBackend {
      try MirrorBackend(
        halves: halves, state: state ?? bench.state, options: bench.options,
        report: bench.events.report)
    }
    func expect(
      _ wanted: [MirrorStatus.HalfState], _ halves: [(any BlockBackend)?],
      state: (any BlockBackend)? = nil
    ) throws {
      let mirror = try mirror(halves, state)
      #expect(mirror.status.halves.map(\.state) == wanted)
      #expect(try mirror.bytes(bench.byteCount, at: 0).allSatisfy { $0 == 8 })
    }
    switch row {
    case 0:  // Named the other way round: each is known by its label.
      try expect([.good, .good], [bench.disks[1], bench.disks[0]])
    case 1:  // An old copy of a half is overwritten.
      try expect([.good, .resyncing], [bench.disks[0], old[1]])
    case 2:  // Old copies alone are not served.
      #expect(throws: MirrorError.noGoodHalf) { try mirror([old[0], old[1]]) }
    case 3:  // A half of another mirror is neither read nor overwritten.
      let before = other.disks[1].bytes
      try expect([.good, .outOfUse], [bench.disks[0], other.disks[1]])
      #expect(bench.events.all.contains(.refused(half: 2, .foreign)))
      #expect(difference(of: other.disks[1].bytes, from: before) == nil)
    case 4:  // The same half twice.
      let twin = MemoryBackend(contents: bench.disks[0].bytes)
      #expect(throws: MirrorError.half(2, .copy)) { try mirror([bench.disks[0], twin]) }
    case 5:  // A medium that was never used is adopted, one with bytes on it is not.
      try expect(
        [.good, .resyncing], [bench.disks[0], MemoryBackend(byteCount: bench.byteCount + 8192)])
      let used = MemoryBackend(contents: [UInt8](repeating: 3, count: bench.byteCount + 8192))
      try expect([.good, .outOfUse], [bench.disks[0], used])
    case 6:  // Each half was used without the other, with a state of its own.
      let state = MemoryBackend(contents: bench.state.bytes)
      do { try mirror([bench.disks[0], nil]).write([1], at: 0) }
      do { try mirror([nil, bench.disks[1]], state).write([2], at: 0) }
      let found = try mirror([bench.disks[0], bench.disks[1]])
      #expect(found.status.halves.map(\.state) == [.good, .outOfUse])
      #expect(bench.events.all.contains(.refused(half: 2, .diverged)))
      #expect(try found.bytes(1, at: 0) == [1])
      #expect(bench.disks[1].bytes[0] == 2)
    case 7:  // The state is from a backup: the halves know better, and all is copied.
      try expect([.good, .resyncing], [bench.disks[0], bench.disks[1]], state: oldState)
      #expect(bench.events.all.contains(.stateReplaced))
    case 8:  // The state is lost: the newest half counts.
      do { try mirror([bench.disks[0], nil]).write([8], at: 0) }
      let blank = MemoryBackend(byteCount: Int(bench.state.byteCount))
      try expect([.resyncing, .good], [bench.disks[1], bench.disks[0]], state: blank)
      // Where a half is missing that may be newer, nothing is served.
      let blank2 = MemoryBackend(byteCount: Int(bench.state.byteCount))
      #expect(throws: MirrorError.stateLost) { try mirror([old[0], nil], blank2) }
    default:  // Too small, or for reading only.
      let small = MemoryBackend(byteCount: bench.byteCount)
      try expect([.good, .outOfUse], [bench.disks[0], small])
      #expect(
        bench.events.all.contains(
          .refused(
            half: 2,
            .tooSmall(
              needed: UInt64(bench.byteCount) + 8192, actual: UInt64(bench.byteCount)))))
    }
  }

  @Test("is refused with what is wrong and what to do about it")
  func refusals() throws {
    let bench = MirrorBench()
    #expect(throws: MirrorError.halfCount(1)) { try bench.open([bench.disks[0]]) }
    #expect(throws: MirrorError.noGoodHalf) { try bench.open([nil, nil]) }
    #expect(throws: MirrorError.firstMissing) { try bench.open([nil, bench.disks[1]]) }
    let needed = bench.state.byteCount
    #expect(throws: MirrorError.stateTooSmall(needed: needed, actual: 8192)) {
      try MirrorBackend(
        halves: bench.disks, state: MemoryBackend(byteCount: 8192), options: bench.options
      ) { _ in }
    }
    #expect(MirrorError.halfCount(1).report.advice == "name 2 to 8")
    let disk = MemoryBackend(byteCount: 1 << 20)
    let coarse = try BlockSizeBackend(over: disk, minimum: 8192)
    #expect(throws: MirrorError.half(2, .coarse(minimum: 8192))) {
      try bench.open([bench.disks[0], coarse])
    }
    let small = MemoryBackend(byteCount: 8192)
    #expect(throws: MirrorError.half(2, .tooSmall(needed: 12288, actual: 8192))) {
      try bench.open([bench.disks[0], small])
    }
    // The state is lost, and the other medium is one that has never been a half of it.
    try bench.prepare()
    let other = MemoryBackend(byteCount: 1 << 20)
    let needs = HalfRefusal.tooSmall(needed: (1 << 20) + 8192, actual: 1 << 20)
    #expect(throws: MirrorError.half(1, needs)) {
      try MirrorBackend(
        halves: [other, bench.disks[1]], state: MemoryBackend(byteCount: Int(needed)),
        options: bench.options
      ) { _ in }
    }
    // The state cannot be written when a half comes back: that is no fault of the half.
    let state = ErrorBackend(over: bench.state)
    let mirror = try MirrorBackend(
      halves: bench.switches, state: state, options: bench.options
    ) { _ in }
    bench.switches[1].switchTo(.failing(.all, MirrorBench.error))
    try mirror.write([1], at: 0)
    bench.switches[1].switchTo(.working)
    state.switchTo(.failing(.write, MirrorBench.error))
    #expect(throws: HalfRefusal.notRecorded(MirrorBench.error)) { try mirror.putBack(2) }
    state.switchTo(.working)
    try mirror.putBack(2)
  }

  @Test("keeps a half whose old medium fails after another was put in its place")
  func replacedMeanwhile() throws {
    let bench = MirrorBench()
    try bench.prepare()
    let old = bench.switches[1]
    let mirror = try bench.open()
    let other = MemoryBackend(byteCount: bench.byteCount + 8192)
    let isLate: @Sendable () -> Void = {
      // The medium fails somebody else meanwhile, and an administrator replaces it.
      old.switchTo(.failing(.all, MirrorBench.error))
      do {
        try mirror.flush()
        #expect(mirror.status.halves[1].state == .outOfUse)
        try mirror.putBack(2, with: other)
      } catch { Issue.record(error) }
    }
    old.switchTo(.failingAfter(isLate, MirrorBench.error))
    try mirror.write([9, 9], at: 100)
    #expect(mirror.status.halves.map(\.state) == [.good, .resyncing])
    MirrorBench.settle(mirror)
    let copy = Array(other.bytes.prefix(bench.byteCount))
    #expect(difference(of: copy, from: bench.contents(0)) == nil)
    #expect(other.bytes[99..<103] == [7, 9, 9, 7])
    #expect(bench.events.all.filter { $0.isAlarm }.count == 1)
  }

  @Test("takes marks away when nobody writes any more, and has them back after a crash")
  func marks() throws {
    let bench = MirrorBench()
    try bench.prepare()
    let mirror = try bench.open()
    try mirror.write([1], at: 0)
    #expect(mirror.core.recorded.population == 1)
    // The end of the process, now: the other one finds the mark and makes the halves the same.
    let state = MemoryBackend(contents: bench.state.bytes)
    let disks = bench.disks.map { MemoryBackend(contents: $0.bytes) }
    try disks[1].write([3], at: 1)
    let next = try MirrorBackend(
      halves: disks, state: state, options: bench.options, report: bench.events.report)
    #expect(next.status.unsettledByteCount == 16384)
    #expect(try next.bytes(2, at: 0) == [1, 7])
    MirrorBench.settle(next)
    let halves = disks.map { Array($0.bytes.prefix(bench.byteCount)) }
    #expect(difference(of: halves[1], from: halves[0]) == nil)
    #expect(bench.events.all.last == .settled)
    for _ in 0..<3 { _ = mirror.advance() }
    #expect(mirror.core.recorded.population == 0 && mirror.core.intent.population == 0)
  }

  @Test("copies no faster than it may, while it serves")
  func rate() throws {
    var bench = MirrorBench(2, byteCount: 4 << 20, regionByteCount: 1 << 20)
    bench.options.hasThread = true
    bench.options.resyncBytesPerSecond = 20 << 20
    try bench.disks[0].write([UInt8](repeating: 5, count: 4 << 20), at: 0)
    let start = MonotonicTime.now
    let mirror = try bench.open()
    while !mirror.status.isWhole {
      #expect(try mirror.bytes(1, at: 0) == [5])
      pause(milliseconds: 1)
    }
    // 4 MiB at 20 MiB a second are 200 ms, the first piece of which is not waited for.
    #expect(MonotonicTime.now.milliseconds(since: start) >= 140)
    mirror.close()
    #expect(bench.isSame)
  }

  @Test("shows its clients nothing of halves that die and come back under load")
  func load() throws {
    var bench = MirrorBench(2, byteCount: 32 << 20, regionByteCount: 256 << 10)
    bench.options.hasThread = true
    bench.options.upkeepMilliseconds = 5
    bench.options.resyncBytesPerSecond = 0
    let mirror = try bench.open()
    let load = LoadState()
    defer { load.isOver.store(true, ordering: .releasing) }
    let seed = SeededGenerator(printingAs: "a mirror under load").seed
    for client in 0..<4 {
      let bench = bench
      let thread = Thread {
        var random = SeededGenerator(seed: seed &+ UInt64(client))
        // Each client has every fourth 64 KiB, so regions are shared and bytes are not.
        let chunk = 65536
        var model = [UInt8](repeating: 0, count: bench.byteCount / 4 / 512)
        var count = 0
        do {
          while !load.isOver.load(ordering: .acquiring) {
            let slot = Int.random(in: 0..<(bench.byteCount / 4 / chunk), using: &random)
            let inside = Int.random(in: 0..<(chunk / 512), using: &random)
            let length = Int.random(in: 1...(chunk / 512 - inside), using: &random)
            let offset = UInt64((slot * 4 + client) * chunk + inside * 512)
            let first = slot * (chunk / 512) + inside
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<3:
              let value = UInt8.random(in: 1...255, using: &random)
              try mirror.write([UInt8](repeating: value, count: length * 512), at: offset)
              for index in first..<(first + length) { model[index] = value }
            case 3:
              try mirror.writeZeroes(
                offset..<(offset + UInt64(length * 512)), mayPunch: true, isDurable: false)
              for index in first..<(first + length) { model[index] = 0 }
            case 4 where count % 50 == 0: try mirror.flush()
            default:
              let found = try mirror.bytes(length * 512, at: offset)
              for index in 0..<length
              where !found[(index * 512)..<((index + 1) * 512)].allSatisfy({
                $0 == model[first + index]
              }) {
                load.failures.withLock { $0.append("client \(client) at \(offset), \(index)") }
                break
              }
            }
            count += 1
            load.total.add(1, ordering: .relaxed)
          }
        } catch {
          load.failures.withLock { $0.append("client \(client): \(error)") }
        }
        load.running.subtract(1, ordering: .acquiringAndReleasing)
      }
      thread.start()
    }
    func runOperations(_ count: Int) {
      let target = load.total.load(ordering: .relaxed) + count
      while load.total.load(ordering: .relaxed) < target,
        load.running.load(ordering: .acquiring) == 4
      {
        pause(milliseconds: 1)
      }
    }
    // What a client began while a half failed may be told after it was put back, and takes it out
    // once more: so it is put back until it stays.
    func waitUntilWhole() throws {
      try wait("a whole mirror") {
        let halves = mirror.status.halves
        for half in halves where half.state == .outOfUse { try? mirror.putBack(half.number) }
        return mirror.status.isWhole
      }
    }
    for round in 0..<6 {
      try waitUntilWhole()
      runOperations(200)
      let half = round % 2
      let kind = MirrorTests.failures[round % MirrorTests.failures.count]
      bench.switches[half].switchTo(.failing(kind, MirrorBench.error))
      while mirror.status.halves[half].state == .good, load.running.load(ordering: .acquiring) == 4
      {
        if kind == .flush { try mirror.flush() }
        pause(milliseconds: 1)
      }
      runOperations(300)
      bench.switches[half].switchTo(.working)
    }
    try waitUntilWhole()
    runOperations(200)
    load.isOver.store(true, ordering: .releasing)
    while load.running.load(ordering: .acquiring) > 0 { pause(milliseconds: 1) }
    #expect(load.failures.withLock { $0 } == [], "seed \(seed)")
    mirror.close()
    #expect(bench.isSame, "seed \(seed)")
    #expect(
      bench.events.all.filter { if case .resyncEnds = $0 { true } else { false } }.count >= 7)
  }
}

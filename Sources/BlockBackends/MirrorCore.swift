// SPDX-License-Identifier: Apache-2.0
// What a mirror knows, and how it changes: who is good, who is written to, what each has missed.
//
//             fails                    putBack, label fits            all copied
//   good ───────────────► out of use ─────────────────────► resyncing ──────────► good
//    (read and written)     ▲  (neither)                      │ (written)
//                           └────────────── fails ────────────┘
//
//   1  A region is marked durably before it is written to, in the map of what is being written,
//      and in that of each half that is out of use.
//   2  A half goes out of use durably, with all regions that are marked at that time among those
//      that it has missed, before the write that failed is acknowledged.
//   3  A mark is taken away when a flush of all halves came after the last write to the region.
//   4  A half becomes good when it has been copied whatever it has missed, and has been flushed.
//   5  Locks: whoever is inside the gate may take `records`, never the other way round.

import LinuxSystem
import Synchronization
import WireFormat

/// One half and what it has missed.
final class MirrorHalf: Sendable {
  let backend: Mutex<(any BlockBackend)?>
  let stale: AtomicBits
  let readsInFlight = Atomic(0)

  init(_ backend: (any BlockBackend)?, regionCount: UInt64) throws(SystemError) {
    stale = try AtomicBits(count: regionCount)
    self.backend = Mutex(backend)
  }
}

/// The halves of which an operation failed, with the media that it was asked of: one that has been
/// replaced meanwhile says nothing of its successor, which has missed what was being written.
struct HalfFailures {
  /// What the first one said.
  private(set) var error = BackendError.system(.inputOutput)
  private var media: [(index: Int, backend: any BlockBackend)] = []

  var isEmpty: Bool { media.isEmpty }

  mutating func add(_ index: Int, _ backend: any BlockBackend, _ error: BackendError) {
    if media.isEmpty { self.error = error }
    media.append((index, backend))
  }

  /// A bit for each half that still has the medium that failed, of those that `current` names.
  func halves(_ current: (Int) -> (any BlockBackend)?) -> UInt64 {
    media.reduce(0) { bits, medium in
      current(medium.index) === medium.backend ? bits | 1 << UInt64(medium.index) : bits
    }
  }
}

final class MirrorCore: Sendable {
  /// Changes under the lock only.
  struct Records {
    var header: MirrorHeader
    /// How often a half has left: what was copied before counts for nothing after.
    var epochs: [Int]
    var failures: [Int]
    var retryAt: [MonotonicTime]
    /// What stopped the copying to a half.
    var cannotRecord = false
  }

  let byteCount: UInt64
  let regionByteCount: UInt64
  let regionCount: UInt64
  let halves: [MirrorHalf]
  /// The number under which a half is known to people: its place in the configuration from 1 on;
  /// 0 when it is no longer named there.
  let places: [Int]
  let minimum: UInt32
  let options: MirrorOptions
  let report: @Sendable (MirrorEvent) -> Void

  /// A bit a half: read and written; and all that are written.
  let good = Atomic<UInt64>(0)
  let active = Atomic<UInt64>(0)

  /// Regions that are marked durably: `recorded` says so on the disk, `intent` to writers.
  let intent: AtomicBits
  let recorded: AtomicBits
  /// Regions that were written to since the last look.
  let touched: AtomicBits
  /// Regions in which good halves may differ: the first good one is right.
  let unsettled: AtomicBits
  let isUnsettled = Atomic(false)

  let gate = MirrorGate()
  let file: MirrorStateFile
  let records: Mutex<Records>
  /// A half is out of use, and it could not be recorded: no write is acknowledged meanwhile.
  let isUnrecorded = Atomic(false)

  init(
    _ assembly: MirrorAssembly, backends: [(any BlockBackend)?], state: any BlockBackend,
    minimum: UInt32, options: MirrorOptions, report: @escaping @Sendable (MirrorEvent) -> Void
  ) throws(SystemError) {
    let header = assembly.header
    byteCount = header.byteCount
    regionByteCount = header.regionByteCount
    regionCount = header.regionCount
    self.minimum = minimum
    self.options = options
    self.report = report
    intent = try AtomicBits(count: regionCount)
    recorded = try AtomicBits(count: regionCount)
    touched = try AtomicBits(count: regionCount)
    unsettled = try AtomicBits(count: regionCount)
    var halves: [MirrorHalf] = []
    var places: [Int] = []
    for half in assembly.halves {
      let isUsed = half.start != .absent
      let backend = half.place.flatMap { backends[$0] }
      halves.append(try MirrorHalf(isUsed ? backend : nil, regionCount: regionCount))
      places.append((half.place ?? -1) + 1)
    }
    self.halves = halves
    self.places = places
    file = MirrorStateFile(state, regionCount: regionCount)
    let count = header.halves.count
    records = Mutex(
      Records(
        header: header, epochs: [Int](repeating: 0, count: count),
        failures: [Int](repeating: 0, count: count),
        retryAt: [MonotonicTime](repeating: .now, count: count)))
  }

  /// Takes over what the state says, and makes it say what is so now.
  func start(_ assembly: MirrorAssembly) throws(BackendError) {
    let all = 0...(regionCount - 1)
    if !assembly.hasNewMaps {
      try file.read(map: 0, into: recorded, regionCount: regionCount)
    }
    var goodBits: UInt64 = 0
    var activeBits: UInt64 = 0
    for (index, half) in assembly.halves.enumerated() {
      let wasGood = assembly.header.halves[index].isGood
      switch half.start {
      case .good:
        goodBits |= 1 << UInt64(index)
        activeBits |= 1 << UInt64(index)
      case .behind(let isMapValid):
        activeBits |= 1 << UInt64(index)
        if isMapValid, !assembly.hasNewMaps {
          try file.read(map: 1 + index, into: halves[index].stale, regionCount: regionCount)
        } else {
          halves[index].stale.insert(all)
        }
        add(recorded, to: halves[index].stale)
      case .absent:
        if assembly.hasNewMaps {
          halves[index].stale.insert(all)
        } else if !wasGood {
          try file.read(map: 1 + index, into: halves[index].stale, regionCount: regionCount)
        }
        add(recorded, to: halves[index].stale)
      }
    }
    // Good halves differ at most where the last server was writing.
    if goodBits.nonzeroBitCount > 1, recorded.first(from: 0) != nil {
      add(recorded, to: unsettled)
      isUnsettled.store(true, ordering: .releasing)
      report(.settling(byteCount: unsettled.population * regionByteCount))
    }
    add(recorded, to: intent)
    try records.withLock { records throws(BackendError) in
      for (index, half) in assembly.halves.enumerated() {
        records.header.halves[index].isGood = half.start == .good
        try file.write(map: 1 + index, from: halves[index].stale)
      }
      if assembly.hasNewMaps { try file.write(map: 0, from: recorded) }
      records.header.generation = records.header.generation.next()
      try file.write(&records.header)
      good.store(goodBits, ordering: .releasing)
      active.store(activeBits, ordering: .releasing)
      var failed: UInt64 = 0
      var failure = BackendError.system(.inputOutput)
      for (index, half) in assembly.halves.enumerated()
      where half.start == .behind(isMapValid: false)
        && records.header.halves[index].label == .none
      {
        do throws(BackendError) {
          if let backend = backend(index) {
            try firstLabel(index, records).write(to: backend)
          }
        } catch {
          failed |= 1 << UInt64(index)
          failure = error
        }
      }
      try takeOut(failed, failure, &records)
      try relabel(&records)
    }
    for event in assembly.events { report(event) }
    var rest = activeBits & ~goodBits
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest - 1
      report(
        .resyncBegins(
          half: places[index], byteCount: halves[index].stale.population * regionByteCount))
    }
  }

  private func add(_ from: borrowing AtomicBits, to other: borrowing AtomicBits) {
    for index in 0..<from.wordCount where from.word(index) != 0 {
      other.formUnion(from.word(index), inWord: index)
    }
  }

  func regions(of range: Range<UInt64>) -> ClosedRange<UInt64> {
    (range.lowerBound / regionByteCount)...((range.upperBound - 1) / regionByteCount)
  }

  func backend(_ index: Int) -> (any BlockBackend)? { halves[index].backend.withLock { $0 } }
}

// Records.
extension MirrorCore {
  /// Invariant 1. Regions that follow are marked along where writes go on from region to region.
  func mark(_ wanted: ClosedRange<UInt64>) throws(BackendError) {
    if intent.all(wanted, are: true) { return }
    try records.withLock { records throws(BackendError) in
      if intent.all(wanted, are: true) { return }
      var regions = wanted
      if wanted.lowerBound > 0, intent.contains(wanted.lowerBound - 1) {
        regions = wanted.lowerBound...min(wanted.upperBound + 7, regionCount - 1)
      }
      let words = Int(regions.lowerBound / 64)...Int(regions.upperBound / 64)
      do throws(BackendError) {
        recorded.insert(regions)
        try file.write(map: 0, from: recorded, words: words)
        let active = active.load(ordering: .acquiring)
        for (index, half) in halves.enumerated() where active >> UInt64(index) & 1 == 0 {
          half.stale.insert(regions)
          try file.write(map: 1 + index, from: half.stale, words: words)
        }
        try file.flush()
      } catch {
        cannotRecord(error, &records)
        throw error
      }
      records.cannotRecord = false
      intent.insert(regions)
    }
  }

  private func cannotRecord(_ error: BackendError, _ records: inout Records) {
    if !records.cannotRecord { report(.cannotRecord(error)) }
    records.cannotRecord = true
  }

  /// Some halves did not do what others did. `took`: those that did. Throws when that is no good
  /// half: then the operation has failed, and halves may differ in `regions`.
  func settle(
    _ failures: HalfFailures, took: UInt64, regions: ClosedRange<UInt64>?
  ) throws(BackendError) {
    try records.withLock { records throws(BackendError) in
      let failed = failures.halves { backend($0) }
      let error = failures.error
      let goodNow = good.load(ordering: .acquiring)
      let remains = goodNow & took & ~failed != 0
      let leaving = remains ? failed : failed & ~goodNow
      if !remains, let regions, goodNow.nonzeroBitCount > 1 {
        unsettled.insert(regions)
        isUnsettled.store(true, ordering: .releasing)
      }
      try takeOut(leaving, error, &records)
      if !remains { throw error }
    }
  }

  /// Invariant 2. At least one good half is not among them.
  private func takeOut(
    _ mask: UInt64, _ error: BackendError, _ records: inout Records
  ) throws(BackendError) {
    let activeNow = active.load(ordering: .acquiring)
    let leaving = mask & activeNow
    if leaving == 0 { return }
    let goodNow = good.load(ordering: .acquiring)
    active.store(activeNow & ~leaving, ordering: .sequentiallyConsistent)
    good.store(goodNow & ~leaving, ordering: .sequentiallyConsistent)
    let wasGood = leaving & goodNow != 0
    if wasGood { records.header.generation = records.header.generation.next() }
    isUnrecorded.store(true, ordering: .sequentiallyConsistent)
    for (index, half) in halves.enumerated() where leaving >> UInt64(index) & 1 == 1 {
      records.epochs[index] += 1
      records.failures[index] += 1
      records.retryAt[index] = MonotonicTime.now.advanced(
        byMilliseconds: retryMilliseconds(records.failures[index]))
      records.header.halves[index].isGood = false
      add(recorded, to: half.stale)
      report(
        .outOfUse(
          half: places[index], error, remaining: (goodNow & ~leaving).nonzeroBitCount))
    }
    try recordAll(&records)
    if wasGood { try relabel(&records) }
  }

  /// What halves have missed, then who is good.
  private func recordAll(_ records: inout Records) throws(BackendError) {
    let activeNow = active.load(ordering: .acquiring)
    do throws(BackendError) {
      for (index, half) in halves.enumerated() where activeNow >> UInt64(index) & 1 == 0 {
        try file.write(map: 1 + index, from: half.stale)
      }
      try file.write(&records.header)
    } catch {
      cannotRecord(error, &records)
      throw error
    }
    records.cannotRecord = false
    isUnrecorded.store(false, ordering: .sequentiallyConsistent)
  }

  /// Before a write is acknowledged: nothing is left that had to be recorded.
  @inline(__always)
  func checkRecorded() throws(BackendError) {
    if isUnrecorded.load(ordering: .acquiring) { try recordWhatIsLeft() }
  }

  private func recordWhatIsLeft() throws(BackendError) {
    try records.withLock { records throws(BackendError) in
      if isUnrecorded.load(ordering: .acquiring) { try recordAll(&records) }
    }
  }

  private func retryMilliseconds(_ failures: Int) -> UInt64 {
    options.retrySeconds &* 1000 << UInt64(min(max(failures, 1) - 1, 6))
  }

  /// Writes the generation on the good halves, and then that it is there.
  private func relabel(_ records: inout Records) throws(BackendError) {
    let goodNow = good.load(ordering: .acquiring)
    var failed: UInt64 = 0
    var failure: BackendError?
    for index in halves.indices where goodNow >> UInt64(index) & 1 == 1 {
      guard let backend = backend(index) else { continue }
      do throws(BackendError) {
        try label(index, records).write(to: backend)
        records.header.halves[index].label = records.header.generation
      } catch {
        failed |= 1 << UInt64(index)
        failure = error
      }
    }
    if let failure, goodNow & ~failed != 0 {
      return try takeOut(failed, failure, &records)  // Which labels the rest anew.
    }
    do throws(BackendError) { try file.write(&records.header) } catch {
      cannotRecord(error, &records)
      throw error
    }
  }

  private func label(_ index: Int, _ records: Records) -> HalfLabel {
    HalfLabel(
      mirror: records.header.mirror, half: records.header.halves[index].number,
      byteCount: byteCount, generation: records.header.generation,
      sequence: records.header.generation.count)
  }

  /// Of a half that was never a good one: it may be overwritten.
  private func firstLabel(_ index: Int, _ records: Records) -> HalfLabel {
    HalfLabel(
      mirror: records.header.mirror, half: records.header.halves[index].number,
      byteCount: byteCount, generation: .none, sequence: 0)
  }

  /// Why a medium cannot be a half; nil: it can, as far as its label is not concerned.
  static func refusal(
    of backend: any BlockBackend, byteCount: UInt64, minimum: UInt32
  ) -> HalfRefusal? {
    guard backend.capabilities.contains(.write) else { return .readOnly }
    guard backend.blockSizes.minimum <= minimum else {
      return .coarse(minimum: backend.blockSizes.minimum)
    }
    guard let end = HalfLabel.offset(on: backend), end >= byteCount else {
      let needed = byteCount + HalfLabel.areaByteCount
      return .tooSmall(needed: needed, actual: backend.byteCount)
    }
    return nil
  }

  /// Lets a half that is out of use be written to, and has copied what it has missed.
  func putBack(_ index: Int, with other: (any BlockBackend)?) throws(HalfRefusal) {
    guard let backend = other ?? backend(index) else { throw .notThere }
    if let refusal = Self.refusal(of: backend, byteCount: byteCount, minimum: minimum) {
      throw refusal
    }
    let found: HalfLabel.Found
    do { found = try HalfLabel.find(on: backend) } catch { throw .unreadable(error) }
    let all = 0...(regionCount - 1)
    try records.withLock { records throws(HalfRefusal) in
      let activeNow = active.load(ordering: .acquiring)
      guard activeNow >> UInt64(index) & 1 == 0 else { throw .inUse }
      let known = records.header.halves[index]
      switch found {
      case .label(let label):
        guard label.mirror == records.header.mirror, label.half == known.number else {
          throw .foreign
        }
        if label.generation != known.label {
          guard label.generation.count < known.label.count else { throw .diverged }
          halves[index].stale.insert(all)
        }
      case .blank:
        records.header.halves[index] = MirrorHeader.Half(
          number: .random(in: 1 ... .max), isGood: false, label: .none)
        halves[index].stale.insert(all)
      case .other: throw .foreign
      }
      do throws(BackendError) {
        try file.write(map: 1 + index, from: halves[index].stale)
        try file.write(&records.header)
      } catch { throw .notRecorded(error) }
      do throws(BackendError) {
        if found == .blank { try firstLabel(index, records).write(to: backend) }
      } catch { throw .unreadable(error) }
      records.epochs[index] += 1
      halves[index].backend.withLock { $0 = backend }
      active.store(activeNow | 1 << UInt64(index), ordering: .sequentiallyConsistent)
      report(
        .resyncBegins(
          half: places[index], byteCount: halves[index].stale.population * regionByteCount))
    }
  }

  /// What was copied to a half since `epoch` began, and flushed there.
  func copied(_ regions: [UInt64], to index: Int, epoch: Int) {
    records.withLock { records in
      guard records.epochs[index] == epoch else { return }
      for region in regions { halves[index].stale.remove(region) }
      // If this is lost they are copied once more.
      try? file.write(map: 1 + index, from: halves[index].stale)
    }
  }

  func epoch(of index: Int) -> Int { records.withLock { $0.epochs[index] } }

  /// Invariant 4. False when it has to wait.
  func promote(_ index: Int, epoch: Int) -> Bool {
    records.withLock { records in
      let bit: UInt64 = 1 << UInt64(index)
      guard records.epochs[index] == epoch, active.load(ordering: .acquiring) & bit != 0,
        halves[index].stale.first(from: 0) == nil, unsettled.first(from: 0) == nil
      else { return false }
      let before = records.header
      records.header.halves[index].isGood = true
      records.header.generation = records.header.generation.next()
      do throws(BackendError) {
        try file.write(map: 1 + index, from: halves[index].stale)
        try file.write(&records.header)
      } catch {
        let sequence = records.header.sequence
        records.header = before
        records.header.sequence = sequence
        cannotRecord(error, &records)
        return false
      }
      good.store(good.load(ordering: .acquiring) | bit, ordering: .sequentiallyConsistent)
      try? relabel(&records)
      records.failures[index] = 0
      report(.resyncEnds(half: places[index]))
      return true
    }
  }

  /// Takes marks away; invariant 3 was looked after by the caller, with the writers kept out.
  func unmark(_ regions: [UInt64]) {
    records.withLock { records in
      for region in regions where !intent.contains(region) { recorded.remove(region) }
      guard let first = regions.first, let last = regions.last else { return }
      // If this is lost they are compared once more.
      try? file.write(map: 0, from: recorded, words: Int(first / 64)...Int(last / 64))
    }
  }

  /// The end of a session: what is on the halves from here on is nobody's unfinished work.
  func sealGeneration() {
    records.withLock { records in
      records.header.generation = records.header.generation.next()
      do throws(BackendError) {
        try file.write(&records.header)
        try relabel(&records)
      } catch {}
    }
  }
}

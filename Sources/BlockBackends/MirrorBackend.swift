// SPDX-License-Identifier: Apache-2.0
// The same bytes on several media: reads from one of them, writes to all.
//
// A half that fails goes out of use, loudly, and the others go on; what it misses is remembered on
// the state medium, and copied in the background when it is back (`MirrorCore`, `MirrorUpkeep`).
// The last half that is left is not taken out of use: what it cannot do is the client's error.
// Each half ends with a label of 8 KiB, by which it is known; the mirror is that much smaller.

import LinuxSystem
import Synchronization
import WireFormat

/// Several media with the same bytes; see the head of this file.
public final class MirrorBackend: BlockBackend {
  public let byteCount: UInt64
  public let blockSizes: BackendBlockSizes
  public let capabilities: BackendCapabilities
  public let summary: ByteString
  let core: MirrorCore
  private let upkeep: MirrorUpkeep

  /// `halves`: 2 to 8, in an order that stays; nil for one that cannot be opened now. Of a new
  /// mirror the first is copied to the others. `state`: where it is remembered what differs; as
  /// long as `stateByteCount` says, zeroes at first, and on a medium that is not one of the
  /// halves. `report`: told what happens, from any thread; it must not call the mirror.
  public init(
    halves: [(any BlockBackend)?], state: any BlockBackend,
    options: MirrorOptions = MirrorOptions(),
    report: @escaping @Sendable (MirrorEvent) -> Void
  ) throws(MirrorError) {
    guard halves.count >= 2, halves.count <= MirrorHeader.halfCountMaximum else {
      throw .halfCount(halves.count)
    }
    let present = halves.compactMap { $0 }
    guard !present.isEmpty else { throw .noGoodHalf }
    let common = CommonProperties(present)
    let header: MirrorHeader?
    do { header = try MirrorStateFile.readHeader(state) } catch { throw .state(error) }
    let byteCount = header?.byteCount ?? Self.byteCount(of: present)
    try Self.checkBlocks(halves, isNew: header == nil)
    let found = Self.find(halves, byteCount: byteCount, minimum: common.blockSizes.minimum)
    let assembly = try MirrorAssembly.decide(
      header, found, byteCount: byteCount, smallest: Self.smallest(of: halves),
      regionByteCount: Self.regionByteCount(options, byteCount))
    let needed = MirrorStateFile.byteCount(
      for: assembly.header.byteCount, regionByteCount: assembly.header.regionByteCount)
    guard state.byteCount >= needed else {
      throw .stateTooSmall(needed: needed, actual: state.byteCount)
    }
    do {
      core = try MirrorCore(
        assembly, backends: halves, state: state, minimum: common.blockSizes.minimum,
        options: options, report: report)
    } catch { throw .memory(error) }
    self.byteCount = assembly.header.byteCount
    blockSizes = common.blockSizes
    var capabilities = common.capabilities
    // What a trimmed block reads as differs from medium to medium, so trimming is zeroing.
    if !capabilities.contains(.fastZeroes) { capabilities.remove(.trim) }
    self.capabilities = capabilities
    summary = summaryOf("mirror", present)
    upkeep = MirrorUpkeep(core)
    do { try core.start(assembly) } catch { throw .state(error) }
    if options.hasThread { upkeep.start() }
  }

  deinit { upkeep.stop() }

  /// How long the state of a mirror must be that has `byteCount` bytes.
  public static func stateByteCount(
    for byteCount: UInt64, options: MirrorOptions = MirrorOptions()
  ) -> UInt64 {
    let wanted = options.regionByteCount ?? MirrorStateFile.regionByteCount(for: byteCount)
    return MirrorStateFile.byteCount(for: byteCount, regionByteCount: max(wanted, 4096))
  }

  /// How large a mirror of these halves is: as the smallest, without its label. 0: too small.
  public static func byteCount(of halves: [any BlockBackend]) -> UInt64 {
    var least = UInt64.max
    for half in halves { least = min(least, HalfLabel.offset(on: half) ?? 0) }
    return halves.isEmpty ? 0 : least
  }

  /// The place of the half with the least room.
  private static func smallest(of halves: [(any BlockBackend)?]) -> Int {
    func room(_ place: Int) -> UInt64 {
      halves[place].map { HalfLabel.offset(on: $0) ?? 0 } ?? .max
    }
    return halves.indices.min { room($0) < room($1) } ?? 0
  }

  /// Whether labels and marks can be kept. A half that is too small for a mirror that exists is
  /// dealt with as others that do not belong to it.
  private static func checkBlocks(
    _ halves: [(any BlockBackend)?], isNew: Bool
  ) throws(MirrorError) {
    for (place, half) in halves.enumerated() {
      guard let half else { continue }
      guard half.blockSizes.minimum <= HalfLabel.pageByteCount else {
        throw .half(place + 1, .coarse(minimum: half.blockSizes.minimum))
      }
      if isNew, HalfLabel.offset(on: half) == nil {
        let needed = HalfLabel.areaByteCount + HalfLabel.pageByteCount
        throw .half(place + 1, .tooSmall(needed: needed, actual: half.byteCount))
      }
    }
  }

  private static func regionByteCount(_ options: MirrorOptions, _ byteCount: UInt64) -> UInt64 {
    let wanted = options.regionByteCount ?? MirrorStateFile.regionByteCount(for: byteCount)
    guard wanted >= 4096, wanted & (wanted - 1) == 0 else { return 4096 }
    return wanted
  }

  private static func find(
    _ halves: [(any BlockBackend)?], byteCount: UInt64, minimum: UInt32
  ) -> [MirrorAssembly.Found] {
    halves.map { half in
      guard let half else { return .refused(.notThere) }
      if let refusal = MirrorCore.refusal(of: half, byteCount: byteCount, minimum: minimum) {
        return .refused(refusal)
      }
      do throws(BackendError) { return .medium(try HalfLabel.find(on: half)) } catch {
        return .refused(.unreadable(error))
      }
    }
  }

  /// Brings a half back that is out of use, numbered from 1 on as it was named, perhaps with
  /// another medium in its place. Copying goes on in the background.
  public func putBack(_ half: Int, with backend: (any BlockBackend)? = nil) throws(HalfRefusal) {
    guard let index = core.places.firstIndex(of: half) else { throw .notThere }
    try core.putBack(index, with: backend)
    upkeep.wake()
  }

  /// As it is at this moment; each number is read for itself.
  public var status: MirrorStatus {
    let good = core.good.load(ordering: .acquiring)
    let active = core.active.load(ordering: .acquiring)
    var status = MirrorStatus(halves: [], byteCount: byteCount, unsettledByteCount: 0)
    for (index, half) in core.halves.enumerated() {
      let state: MirrorStatus.HalfState =
        good >> UInt64(index) & 1 == 1
        ? .good : active >> UInt64(index) & 1 == 1 ? .resyncing : .outOfUse
      status.halves.append(
        MirrorStatus.Half(
          number: core.places[index], summary: core.backend(index)?.summary ?? "missing",
          state: state,
          staleByteCount: min(half.stale.population * core.regionByteCount, byteCount)))
    }
    status.unsettledByteCount = min(core.unsettled.population * core.regionByteCount, byteCount)
    return status
  }

  /// Ends the background work, makes everything durable and says so on the halves. Called at the
  /// end of the last reference if not before; nothing may be written afterwards.
  public func close() { upkeep.stop() }

  /// For tests without a thread: one look at what is to be done in the background. True: there
  /// was something.
  func advance() -> Bool { upkeep.advance() }
}

extension MirrorBackend {
  /// The good half to read from: each has its own stretches of the medium, so that each reads
  /// ahead, unless it is busier than another one.
  private func choose(_ candidates: UInt64, _ range: Range<UInt64>) -> Int {
    let first = candidates.trailingZeroBitCount
    if candidates & (candidates &- 1) == 0 { return first }
    if core.isUnsettled.load(ordering: .acquiring),
      !core.unsettled.all(core.regions(of: range), are: false)
    {
      return first
    }
    let turn = Int((range.lowerBound >> 20) % UInt64(candidates.nonzeroBitCount))
    var chosen = first
    var idlest = first
    var rest = candidates
    var position = 0
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest - 1
      if position == turn { chosen = index }
      position += 1
      if busyness(index) < busyness(idlest) { idlest = index }
    }
    return busyness(chosen) > busyness(idlest) + 2 ? idlest : chosen
  }

  private func busyness(_ index: Int) -> Int {
    core.halves[index].readsInFlight.load(ordering: .relaxed)
  }

  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try check(offset, buffer.count)
    if buffer.count == 0 { return }
    let range = offset..<(offset + UInt64(buffer.count))
    var tried: UInt64 = 0
    var failure = BackendError.system(.inputOutput)
    while true {
      let candidates = core.good.load(ordering: .acquiring) & ~tried
      if candidates == 0 { throw failure }
      let index = choose(candidates, range)
      tried |= 1 << UInt64(index)
      guard let backend = core.backend(index) else { continue }
      core.halves[index].readsInFlight.add(1, ordering: .relaxed)
      defer { core.halves[index].readsInFlight.subtract(1, ordering: .relaxed) }
      var failures = HalfFailures()
      do throws(BackendError) {
        return try unsafe backend.read(into: buffer, at: offset)
      } catch {
        failure = error
        failures.add(index, backend, error)
      }
      // It goes out of use if another one is left; what that says is found out by asking it.
      do throws(BackendError) {
        try core.settle(failures, took: ~tried, regions: nil)
      } catch {
        failure = error
      }
    }
  }

  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    try check(offset, buffer.count)
    if buffer.count == 0 { return true }
    let candidates = core.good.load(ordering: .acquiring)
    let index = choose(candidates, offset..<(offset + UInt64(buffer.count)))
    guard candidates != 0, let backend = core.backend(index) else { return false }
    // What fails here fails in `read`, too, which deals with it.
    do throws(BackendError) {
      return try unsafe backend.readWithoutWaiting(into: buffer, at: offset)
    } catch {
      return false
    }
  }

  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, bytes.count)
    try change(offset..<(offset + UInt64(bytes.count))) { half throws(BackendError) in
      try unsafe half.write(bytes, at: offset, isDurable: isDurable)
    }
  }

  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range)
    var isFirst = true
    try change(range) { half throws(BackendError) in
      defer { isFirst = false }
      do throws(BackendError) {
        try half.writeZeroes(
          range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
      } catch .notFast where !isFirst {
        // One half has done it, so all do.
        try half.writeZeroes(range, mayPunch: mayPunch, isDurable: isDurable)
      }
    }
  }

  /// Zeroes the range on all halves if the first can do it without writing; else does nothing.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    guard capabilities.contains(.trim) else { return try check(range) }
    do throws(BackendError) {
      try writeZeroes(range, mayPunch: true, isDurable: isDurable, mustBeFast: true)
    } catch .notFast {}  // Nobody is owed it.
  }

  /// Marks the regions, and has every half do it.
  @inline(__always)
  private func change(
    _ range: Range<UInt64>, _ operation: (any BlockBackend) throws(BackendError) -> Void
  ) throws(BackendError) {
    if range.isEmpty { return }
    let regions = core.regions(of: range)
    let stripes = MirrorGate.stripes(of: regions)
    core.gate.enter(stripes)
    defer { core.gate.leave(stripes) }
    try core.mark(regions)
    if !core.touched.all(regions, are: true) { core.touched.insert(regions) }
    let active = core.active.load(ordering: .sequentiallyConsistent)
    var failures = HalfFailures()
    var took: UInt64 = 0
    var rest = active
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest - 1
      guard let backend = core.backend(index) else { continue }
      do throws(BackendError) {
        try operation(backend)
        took |= 1 << UInt64(index)
      } catch {
        if error == .notFast || error == .range { throw error }
        failures.add(index, backend, error)
      }
    }
    if !failures.isEmpty || took == 0 {
      try core.settle(failures, took: took, regions: regions)
    }
    try core.checkRecorded()
    // Also at the end: a flush while it was going on did not cover it.
    if !core.touched.all(regions, are: true) { core.touched.insert(regions) }
  }

  public func flush() throws(BackendError) { try core.flush() }

  /// What the first good half says; all of it is data when that fails.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try check(range)
    let candidates = core.good.load(ordering: .acquiring)
    if range.isEmpty { return [] }
    if candidates != 0, let backend = core.backend(candidates.trailingZeroBitCount),
      let found = try? backend.extents(in: range, maximum: maximum), !found.isEmpty
    {
      return found
    }
    return [
      BackendExtent(
        byteCount: range.upperBound - range.lowerBound, isHole: false, readsAsZeroes: false)
    ]
  }

  public func prefetch(_ range: Range<UInt64>) {
    let candidates = core.good.load(ordering: .acquiring)
    guard candidates != 0, !range.isEmpty, range.upperBound <= byteCount else { return }
    core.backend(choose(candidates, range))?.prefetch(range)
  }
}

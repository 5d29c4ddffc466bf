// SPDX-License-Identifier: Apache-2.0
// What a mirror does in the background: copy what halves have missed, make the same what a crash
// has left different, try halves again that have failed, take marks away.

import Foundation
import LinuxSystem
import Synchronization
import WireFormat

@safe final class MirrorUpkeep: @unchecked Sendable {
  // Unchecked: what is not locked belongs to the thread, or to the caller of `advance`.
  private static let pieceByteCount: UInt64 = 1 << 20
  /// So many regions are copied before a half is flushed and they count.
  private static let batchCount = 64

  /// Copying to one half.
  private struct Copying {
    var epoch: Int
    var next: UInt64 = 0
    var copied: [UInt64] = []
  }

  private let core: MirrorCore
  private let condition = NSCondition()
  private var isStopping = false
  private var isStarted = false
  private var isStopped = false
  private var isWoken = false

  private var copying: [Int: Copying] = [:]
  private var resumeAt: [Int: MonotonicTime] = [:]
  private var nextLook = MonotonicTime.now
  /// When the next piece may be copied.
  private var budgetAt = MonotonicTime.now
  private let buffer: UnsafeMutableRawBufferPointer

  init(_ core: MirrorCore) {
    self.core = core
    unsafe buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(Self.pieceByteCount), alignment: 65536)
  }

  deinit { unsafe buffer.deallocate() }  // SAFETY: allocated above; the thread has ended.

  func start() {
    isStarted = true
    let thread = Thread { self.run() }
    thread.name = "mirror"
    thread.start()
  }

  func wake() {
    condition.lock()
    isWoken = true
    condition.signal()
    condition.unlock()
  }

  /// Ends the thread, then the session of the halves. The second call does nothing.
  func stop() {
    condition.lock()
    let isFirst = !isStopping
    isStopping = true
    condition.broadcast()
    while isStarted && !isStopped { condition.wait() }
    condition.unlock()
    guard isFirst, isStarted else { return }
    _ = takeMarksAway(all: true)
    core.sealGeneration()
  }

  private var mustStop: Bool {
    condition.lock()
    defer { condition.unlock() }
    return isStopping
  }

  private func run() {
    while !mustStop {
      if !advance() { wait(until: nextLook) }
    }
    condition.lock()
    isStopped = true
    condition.broadcast()
    condition.unlock()
  }

  /// Until then, or until it is woken or stopped.
  private func wait(until time: MonotonicTime) {
    let milliseconds = time.milliseconds(since: .now)
    if milliseconds == 0 { return }
    condition.lock()
    if !isStopping, !isWoken {
      _ = condition.wait(until: Date(timeIntervalSinceNow: Double(milliseconds) / 1000))
    }
    isWoken = false
    condition.unlock()
  }

  /// One step; true when there may be another one at once.
  func advance() -> Bool {
    if MonotonicTime.now >= nextLook || !core.options.hasThread {
      nextLook = MonotonicTime.now.advanced(byMilliseconds: core.options.upkeepMilliseconds)
      if takeMarksAway(all: false) { return true }
      retry()
    }
    if settleOne() { return true }
    let good = core.good.load(ordering: .acquiring)
    let active = core.active.load(ordering: .acquiring)
    for index in core.halves.indices {
      let bit: UInt64 = 1 << UInt64(index)
      guard active & bit != 0, good & bit == 0 else {
        copying[index] = nil
        resumeAt[index] = nil
        continue
      }
      if let time = resumeAt[index], MonotonicTime.now < time { continue }
      if copyOne(to: index) { return true }
    }
    return false
  }
}

// Copying.
extension MirrorUpkeep {
  private enum Outcome { case done, sourceFailed, targetFailed, stopped }

  /// Makes one region the same on all halves in which they may differ.
  private func settleOne() -> Bool {
    guard core.isUnsettled.load(ordering: .acquiring) else { return false }
    guard let region = core.unsettled.first(from: 0) else {
      core.isUnsettled.store(false, ordering: .releasing)
      core.report(.settled)
      return true
    }
    let good = core.good.load(ordering: .acquiring)
    let source = good & (~good &+ 1)
    let targets = core.active.load(ordering: .acquiring) & ~source
    let outcome = targets == 0 ? .done : copy(region, from: source, to: targets)
    if outcome == .stopped { return false }
    // Where the only good half cannot be read nothing can be made the same.
    if outcome == .done || outcome == .sourceFailed && good == source {
      core.touched.insert(region)
      core.unsettled.remove(region)
    }
    return true
  }

  /// Copies the next region that a half has missed, or lets it become good.
  private func copyOne(to index: Int) -> Bool {
    let epoch = core.epoch(of: index)
    var state = copying[index] ?? Copying(epoch: epoch)
    if state.epoch != epoch { state = Copying(epoch: epoch) }
    defer { copying[index] = state }
    guard let region = core.halves[index].stale.first(from: state.next) else {
      return finish(index, &state)
    }
    let good = core.good.load(ordering: .acquiring)
    switch copy(region, from: good & (~good &+ 1), to: 1 << UInt64(index)) {
    case .done:
      state.copied.append(region)
      state.next = region + 1
      if state.copied.count >= Self.batchCount { return flush(index, &state) }
      return true
    case .sourceFailed, .targetFailed:
      // Later regions may do; this one is tried again in the next round.
      state.next = region + 1
      return true
    case .stopped: return false
    }
  }

  /// True when what was copied counts.
  private func flush(_ index: Int, _ state: inout Copying) -> Bool {
    guard let backend = core.backend(index) else { return false }
    do throws(BackendError) { try backend.flush() } catch {
      var failures = HalfFailures()
      failures.add(index, backend, error)
      try? core.settle(failures, took: .max, regions: nil)
      return false
    }
    core.copied(state.copied, to: index, epoch: state.epoch)
    state.copied = []
    return true
  }

  private func finish(_ index: Int, _ state: inout Copying) -> Bool {
    guard flush(index, &state) else { return false }
    if core.halves[index].stale.first(from: 0) != nil {
      // Regions that could not be copied, or were missed meanwhile.
      let isEarly = resumeAt[index] == nil
      state.next = 0
      resumeAt[index] = MonotonicTime.now.advanced(
        byMilliseconds: isEarly ? 0 : max(1000, core.options.retrySeconds &* 1000))
      return isEarly
    }
    resumeAt[index] = nil
    return core.promote(index, epoch: state.epoch)
  }

  /// Piece by piece, with writers to the region kept out for the time of a piece.
  private func copy(_ region: UInt64, from source: UInt64, to targets: UInt64) -> Outcome {
    guard source != 0, let from = core.backend(source.trailingZeroBitCount) else {
      return .sourceFailed
    }
    var at = region * core.regionByteCount
    let end = min(at + core.regionByteCount, core.byteCount)
    while at < end {
      let piece = at..<min(at + Self.pieceByteCount, end)
      var outcome = Outcome.done
      var failures = HalfFailures()
      core.gate.close(MirrorGate.stripes(of: region...region)) {
        (outcome, failures) = copy(piece, from: (source.trailingZeroBitCount, from), to: targets)
      }
      switch outcome {
      case .done, .stopped: break
      case .sourceFailed:
        let others = core.good.load(ordering: .acquiring) & ~source
        if others == 0 {
          core.report(
            .unreadable(
              half: core.places[source.trailingZeroBitCount], offset: piece.lowerBound,
              failures.error))
        } else {
          try? core.settle(failures, took: others, regions: nil)
        }
        return .sourceFailed
      case .targetFailed:
        try? core.settle(failures, took: .max, regions: nil)
        return .targetFailed
      }
      at = piece.upperBound
      if !spend(piece.upperBound - piece.lowerBound) { return .stopped }
    }
    return .done
  }

  private func copy(
    _ piece: Range<UInt64>, from source: (index: Int, backend: any BlockBackend),
    to targets: UInt64
  ) -> (Outcome, HalfFailures) {
    let count = Int(piece.upperBound - piece.lowerBound)
    // SAFETY: a piece is at most as long as the buffer.
    let memory = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
    var failures = HalfFailures()
    var isZero = false
    do throws(BackendError) {
      let extents = try source.backend.extents(in: piece, maximum: 2)
      isZero =
        extents.count == 1 && extents[0].readsAsZeroes && extents[0].byteCount == UInt64(count)
      if !isZero { try unsafe source.backend.read(into: memory, at: piece.lowerBound) }
    } catch {
      failures.add(source.index, source.backend, error)
      return (.sourceFailed, failures)
    }
    var rest = targets & core.active.load(ordering: .acquiring)
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest - 1
      guard let backend = core.backend(index) else { continue }
      do throws(BackendError) {
        if isZero {
          try backend.writeZeroes(piece, mayPunch: true, isDurable: false)
        } else {
          try unsafe backend.write(
            UnsafeRawBufferPointer(memory), at: piece.lowerBound, isDurable: false)
        }
      } catch {
        failures.add(index, backend, error)
      }
    }
    return (failures.isEmpty ? .done : .targetFailed, failures)
  }

  /// Waits until so many more bytes may be copied; false when the end has come meanwhile.
  private func spend(_ byteCount: UInt64) -> Bool {
    let rate = core.options.resyncBytesPerSecond
    guard rate > 0, core.options.hasThread else { return !mustStop }
    let now = MonotonicTime.now
    if budgetAt < now { budgetAt = now }
    budgetAt = MonotonicTime(
      nanoseconds: budgetAt.nanoseconds &+ byteCount &* 1000 / rate &* 1_000_000)
    while MonotonicTime.now < budgetAt, !mustStop { wait(until: budgetAt) }
    return !mustStop
  }
}

// Marks and second tries.
extension MirrorUpkeep {
  /// Invariant 3. Regions that nobody has written to since the last look are flushed, and if still
  /// nobody has, their marks go. `all`: at the end, when nobody writes any more.
  private func takeMarksAway(all: Bool) -> Bool {
    var idle: [UInt64] = []
    var region = core.intent.first(from: 0)
    while let found = region {
      if core.unsettled.contains(found) {
      } else if all || !core.touched.contains(found) {
        core.touched.remove(found)
        idle.append(found)
      } else {
        core.touched.remove(found)
      }
      region = core.intent.first(from: found + 1)
    }
    guard !idle.isEmpty else { return false }
    let before = core.active.load(ordering: .acquiring)
    do throws(BackendError) { try core.flush() } catch { return false }
    // A half that failed meanwhile has missed what is marked.
    guard core.active.load(ordering: .acquiring) & before == before else { return false }
    for stripe: UInt64 in 0..<64 where idle.contains(where: { $0 % 64 == stripe }) {
      core.gate.close(1 << stripe) {
        for region in idle where region % 64 == stripe && !core.touched.contains(region) {
          core.intent.remove(region)
        }
      }
    }
    core.unmark(idle)
    return false
  }

  private func retry() {
    guard core.options.retrySeconds > 0 else { return }
    let active = core.active.load(ordering: .acquiring)
    for index in core.halves.indices where active >> UInt64(index) & 1 == 0 {
      let isTime = core.records.withLock { MonotonicTime.now >= $0.retryAt[index] }
      guard isTime, core.backend(index) != nil else { continue }
      do throws(HalfRefusal) { try core.putBack(index, with: nil) } catch {
        core.records.withLock {
          $0.retryAt[index] = MonotonicTime.now.advanced(
            byMilliseconds: core.options.retrySeconds &* 1000)
        }
      }
    }
  }
}

extension MirrorCore {
  /// Of all halves that are written to. A half that cannot be flushed may have lost what is marked.
  func flush() throws(BackendError) {
    var failures = HalfFailures()
    var took: UInt64 = 0
    var rest = active.load(ordering: .acquiring)
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest - 1
      guard let backend = backend(index) else { continue }
      do throws(BackendError) {
        try backend.flush()
        took |= 1 << UInt64(index)
      } catch {
        failures.add(index, backend, error)
      }
    }
    if !failures.isEmpty { try settle(failures, took: took, regions: nil) }
    try checkRecorded()
  }
}

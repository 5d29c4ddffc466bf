// SPDX-License-Identifier: Apache-2.0
// Disks that lose power, all at the same moment: what was not flushed is there in part, sector by
// sector, in any order. What happened is recorded, and played back up to each point.

import BlockBackends
import LinuxSystem
import Synchronization
import TestSupport

/// What happened to several disks and to whoever used them, in one order.
final class CrashLog: Sendable {
  enum Entry: Sendable {
    case write(disk: Int, sector: Int, bytes: [UInt8], isDurable: Bool)
    case flush(disk: Int)
    /// An operation of the test, by its number.
    case begun(Int)
    case acknowledged(Int)
  }
  private let list = Mutex<[Entry]>([])
  var entries: [Entry] { list.withLock { $0 } }
  func append(_ entry: Entry) { list.withLock { $0.append(entry) } }
}

/// Records what it is told, and keeps it in memory.
final class CrashDisk: BlockBackend {
  static let sectorByteCount = 512
  private let memory: MemoryBackend
  private let log: CrashLog?
  private let number: Int

  /// `log`: nil for a disk of which nothing need be known.
  init(contents: [UInt8], number: Int, log: CrashLog?) {
    memory = MemoryBackend(contents: contents)
    self.number = number
    self.log = log
  }

  var bytes: [UInt8] { memory.bytes }
  var byteCount: UInt64 { memory.byteCount }
  var blockSizes: BackendBlockSizes { memory.blockSizes }
  var capabilities: BackendCapabilities { memory.capabilities }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) { try unsafe memory.read(into: buffer, at: offset) }

  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try unsafe memory.write(bytes, at: offset, isDurable: isDurable)
    try record(offset..<(offset + UInt64(bytes.count)), isDurable: isDurable)
  }

  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try memory.writeZeroes(range, mayPunch: mayPunch, isDurable: isDurable)
    try record(range, isDurable: isDurable)
  }

  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try writeZeroes(range, mayPunch: true, isDurable: isDurable)
  }

  func flush() throws(BackendError) { log?.append(.flush(disk: number)) }

  func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] { try memory.extents(in: range, maximum: maximum) }

  /// Whole sectors, as they are now.
  private func record(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    guard let log, !range.isEmpty else { return }
    let size = UInt64(Self.sectorByteCount)
    let start = range.lowerBound / size * size
    let end = min((range.upperBound + size - 1) / size * size, byteCount)
    log.append(
      .write(
        disk: number, sector: Int(start / size),
        bytes: try memory.bytes(Int(end - start), at: start), isDurable: isDurable))
  }
}

/// What is on a disk for certain, and what may be there instead.
struct CrashImage {
  private(set) var durable: [UInt8]
  /// Versions of a sector since it was durable, oldest first.
  private var pending: [Int: [[UInt8]]] = [:]

  init(_ contents: [UInt8]) { durable = contents }

  mutating func apply(sector: Int, bytes: [UInt8], isDurable: Bool) {
    var at = 0
    var sector = sector
    while at < bytes.count {
      let version = Array(bytes[at..<min(at + CrashDisk.sectorByteCount, bytes.count)])
      if isDurable {
        pending[sector] = nil
        put(version, at: sector)
      } else {
        pending[sector, default: []].append(version)
      }
      at += CrashDisk.sectorByteCount
      sector += 1
    }
  }

  mutating func flush() {
    for (sector, versions) in pending { if let last = versions.last { put(last, at: sector) } }
    pending = [:]
  }

  private mutating func put(_ version: [UInt8], at sector: Int) {
    let start = sector * CrashDisk.sectorByteCount
    durable.replaceSubrange(start..<(start + version.count), with: version)
  }

  enum Loss: CaseIterable { case everything, nothing, some }

  /// What is found after the crash. `some`: each sector one of its versions.
  func crashed(_ loss: Loss, using generator: inout SeededGenerator) -> [UInt8] {
    var image = self
    switch loss {
    case .everything: break
    case .nothing: image.flush()
    case .some:
      for sector in pending.keys.sorted() {
        guard let versions = pending[sector] else { continue }
        let choice = Int.random(in: -1..<versions.count, using: &generator)
        if choice >= 0 { image.put(versions[choice], at: sector) }
      }
    }
    return image.durable
  }
}

/// What each sector of a medium may hold after a crash, by the numbers of the operations that
/// wrote it: 0 is what was there at first.
struct SectorHistory {
  struct Operation {
    enum Kind { case write, zero, flush }
    var kind: Kind
    var sectors: Range<Int>
    var isDurable: Bool
  }

  private(set) var operations: [Operation] = []
  private var begun: Set<Int> = []
  /// Of each sector the operations that may have written it, the first of them durable for certain.
  private var candidates: [[Int]]
  private var acknowledged: Set<Int> = []

  init(sectorCount: Int) { candidates = [[Int]](repeating: [0], count: sectorCount) }

  /// Its number, from 1 on.
  mutating func add(_ operation: Operation) -> Int {
    operations.append(operation)
    return operations.count
  }

  mutating func begin(_ number: Int) {
    begun.insert(number)
    guard operations[number - 1].kind != .flush else { return }
    for sector in operations[number - 1].sectors { candidates[sector].append(number) }
  }

  mutating func acknowledge(_ number: Int) {
    acknowledged.insert(number)
    let operation = operations[number - 1]
    let sectors = operation.kind == .flush ? 0..<candidates.count : operation.sectors
    guard operation.kind == .flush || operation.isDurable else { return }
    // One client: all before it has been acknowledged.
    for sector in sectors {
      if let last = candidates[sector].last { candidates[sector] = [last] }
    }
  }

  /// What an operation leaves in a sector.
  static func contents(_ number: Int, isZero: Bool) -> [UInt8] {
    if isZero { return [UInt8](repeating: 0, count: CrashDisk.sectorByteCount) }
    var bytes: [UInt8] = []
    for _ in 0..<(CrashDisk.sectorByteCount / 4) {
      for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
    }
    return bytes
  }

  /// The first sector that holds what it must not; nil: all is well.
  func wrongSector(_ bytes: [UInt8]) -> (sector: Int, found: [UInt8], allowed: [Int])? {
    for (sector, allowed) in candidates.enumerated() {
      let start = sector * CrashDisk.sectorByteCount
      let found = bytes[start..<(start + CrashDisk.sectorByteCount)]
      let isAllowed = allowed.contains { number in
        let isZero = number == 0 || operations[number - 1].kind == .zero
        return found.elementsEqual(Self.contents(number, isZero: isZero))
      }
      if !isAllowed { return (sector, Array(found.prefix(4)), allowed) }
    }
    return nil
  }
}

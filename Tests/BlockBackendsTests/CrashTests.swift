// SPDX-License-Identifier: Apache-2.0
// Power is lost at every point of a sequence of operations: what was acknowledged as durable is
// there, and every sector holds something that was written to it.

import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@testable import BlockBackends

/// A stack over disks that crash.
struct CrashStack: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let byteCount: Int
  /// How long each disk is.
  let disks: [Int]
  /// Puts the stack together over the disks. `boot`: how often the machine was started.
  let open:
    @Sendable (_ disks: [any BlockBackend], _ isNew: Bool, _ boot: Int) throws -> any BlockBackend

  static let block = 65536

  static func options() -> MirrorOptions {
    var options = MirrorOptions()
    options.regionByteCount = 8192
    options.hasThread = false
    options.retrySeconds = 0
    return options
  }

  static let mirrorByteCount = 16 * 8192
  static let stateByteCount = Int(
    MirrorBackend.stateByteCount(for: UInt64(mirrorByteCount), options: options()))

  static func mirror(_ halves: [(any BlockBackend)?], _ state: any BlockBackend) throws
    -> MirrorBackend
  {
    try MirrorBackend(halves: halves, state: state, options: options()) { _ in }
  }

  static let identity = LayerIdentity(
    tokenHigh: 1, tokenLow: 2, export: "x", imageByteCount: UInt64(4 * block),
    imageModifiedSeconds: 0)

  static func overlay(
    over base: any BlockBackend, on disk: any BlockBackend, isNew: Bool, boot: Int
  ) throws -> OverlayBackend {
    try OverlayBackend(
      over: base, layerOn: disk, identity, isNew: isNew,
      boot: [UInt8](repeating: UInt8(boot % 251), count: 36))
  }

  static let layerByteCount: Int = {
    do { return try Int(LayerFile.byteCount(UInt64(4 * block))) } catch { return 0 }
  }()

  static let all: [CrashStack] = [
    CrashStack(testDescription: "a disk", byteCount: 65536, disks: [65536]) { disks, _, _ in
      disks[0]
    },
    CrashStack(
      testDescription: "an overlay with a name", byteCount: 4 * block, disks: [layerByteCount]
    ) { disks, isNew, boot in
      try overlay(
        over: MemoryBackend(byteCount: 4 * block), on: disks[0], isNew: isNew, boot: boot)
    },
    CrashStack(testDescription: "a stripe", byteCount: 65536, disks: [32768, 32768]) {
      disks, _, _ in try StripeBackend(disks, chunkByteCount: 4096)
    },
    CrashStack(testDescription: "a linear", byteCount: 65536, disks: [20480, 45056]) {
      disks, _, _ in try LinearBackend(disks)
    },
    CrashStack(
      testDescription: "a mirror", byteCount: mirrorByteCount,
      disks: [mirrorByteCount + 8192, mirrorByteCount + 8192, stateByteCount]
    ) { disks, _, _ in try mirror([disks[0], disks[1]], disks[2]) },
    CrashStack(
      testDescription: "a mirror of three", byteCount: mirrorByteCount,
      disks: [
        mirrorByteCount + 8192, mirrorByteCount + 8192, mirrorByteCount + 8192, stateByteCount,
      ]
    ) { disks, _, _ in try mirror([disks[0], disks[1], disks[2]], disks[3]) },
    CrashStack(
      testDescription: "a stripe of mirrors", byteCount: 2 * mirrorByteCount,
      disks: [
        mirrorByteCount + 8192, mirrorByteCount + 8192, stateByteCount, mirrorByteCount + 8192,
        mirrorByteCount + 8192, stateByteCount,
      ]
    ) { disks, _, _ in
      try StripeBackend(
        [
          mirror([disks[0], disks[1]], disks[2]), mirror([disks[3], disks[4]], disks[5]),
        ], chunkByteCount: 4096)
    },
    CrashStack(
      testDescription: "a mirror of a stripe and a disk", byteCount: mirrorByteCount,
      disks: [
        mirrorByteCount / 2 + 4096, mirrorByteCount / 2 + 4096, mirrorByteCount + 8192,
        stateByteCount,
      ]
    ) { disks, _, _ in
      try mirror(
        [StripeBackend([disks[0], disks[1]], chunkByteCount: 4096), disks[2]], disks[3])
    },
  ]
}

@Suite("After a loss of power")
struct CrashTests {
  /// Background work of all mirrors in a stack, until there is none.
  private static func settle(_ backend: any BlockBackend) {
    guard let mirror = backend as? MirrorBackend else { return }
    for _ in 0..<10_000 where !mirror.advance() && mirror.status.isWhole { return }
    Issue.record("a mirror that never becomes whole: \(mirror.status)")
  }

  /// Does something at random to the backend and says so in the log.
  private static func perform(
    _ count: Int, on backend: any BlockBackend, sectorCount: Int, _ history: inout SectorHistory,
    _ log: CrashLog, using random: inout SeededGenerator, between: (Int) throws -> Void
  ) throws {
    for step in 0..<count {
      let longest = [1, 8, 40, 200].randomElement(using: &random) ?? 1
      let start = Int.random(in: 0..<sectorCount, using: &random)
      let end = min(sectorCount, start + Int.random(in: 1...longest, using: &random))
      let kind: SectorHistory.Operation.Kind =
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<6: .write
        case 6: .zero
        default: .flush
        }
      let isDurable = kind != .flush && Int.random(in: 0..<4, using: &random) == 0
      let number = history.add(
        .init(kind: kind, sectors: start..<end, isDurable: isDurable))
      log.append(.begun(number))
      let offset = UInt64(start * CrashDisk.sectorByteCount)
      switch kind {
      case .write:
        var bytes: [UInt8] = []
        for _ in start..<end { bytes += SectorHistory.contents(number, isZero: false) }
        try backend.write(bytes, at: offset, isDurable: isDurable)
      case .zero:
        try backend.writeZeroes(
          offset..<UInt64(end * CrashDisk.sectorByteCount), mayPunch: true, isDurable: isDurable)
      case .flush: try backend.flush()
      }
      log.append(.acknowledged(number))
      try between(step)
    }
  }

  /// Plays the log back, and calls `check` with what the disks may hold at each point.
  private static func forEachCrash(
    _ log: CrashLog, _ disks: [[UInt8]], _ history: SectorHistory, sectorCount: Int,
    using random: inout SeededGenerator,
    _ check: (_ point: Int, _ disks: [[UInt8]], _ history: SectorHistory) throws -> Void
  ) rethrows {
    var images = disks.map { CrashImage($0) }
    var now = SectorHistory(sectorCount: sectorCount)
    for operation in history.operations { _ = now.add(operation) }
    for (point, entry) in log.entries.enumerated() {
      switch entry {
      case .write(let disk, let sector, let bytes, let isDurable):
        images[disk].apply(sector: sector, bytes: bytes, isDurable: isDurable)
      case .flush(let disk): images[disk].flush()
      case .begun(let number): now.begin(number)
      case .acknowledged(let number): now.acknowledge(number)
      }
      for loss in CrashImage.Loss.allCases {
        try check(point, images.map { $0.crashed(loss, using: &random) }, now)
      }
    }
  }

  @Test("nothing is lost that was durable, at whichever point it comes", arguments: CrashStack.all)
  func losesNothing(stack: CrashStack) throws {
    var random = SeededGenerator(printingAs: "crashes of \(stack.testDescription)")
    let seed = random.seed
    let sectorCount = stack.byteCount / CrashDisk.sectorByteCount
    let log = CrashLog()
    let blank = stack.disks.map { [UInt8](repeating: 0, count: $0) }
    // What is set up is whole: the log begins after it.
    var boot = 1
    let first = blank.enumerated().map { CrashDisk(contents: $1, number: $0, log: nil) }
    do {
      let backend = try stack.open(first, true, boot)
      #expect(backend.byteCount == UInt64(stack.byteCount))
      Self.settle(backend)
      try backend.flush()
    }
    let start = first.map(\.bytes)
    boot += 1
    let disks = start.enumerated().map { CrashDisk(contents: $1, number: $0, log: log) }
    let backend = try stack.open(disks, false, boot)
    var history = SectorHistory(sectorCount: sectorCount)
    try Self.perform(
      60, on: backend, sectorCount: sectorCount, &history, log, using: &random
    ) { step in
      if step % 5 == 0, let mirror = backend as? MirrorBackend { _ = mirror.advance() }
    }
    try Self.forEachCrash(log, start, history, sectorCount: sectorCount, using: &random) {
      point, images, history in
      boot += 1
      let disks = images.enumerated().map { CrashDisk(contents: $1, number: $0, log: nil) }
      let found = try stack.open(disks, false, boot)
      let before = try found.bytes(stack.byteCount, at: 0)
      if let wrong = history.wrongSector(before) {
        Issue.record("point \(point), seed \(seed): \(wrong)")
        throw CancellationError()
      }
      Self.settle(found)
      try #require(try found.bytes(stack.byteCount, at: 0) == before, "seed \(seed)")
    }
  }

  @Test("halves of a mirror are the same, and one that was behind is never taken for good")
  func mirrorHalves() throws {
    var random = SeededGenerator(printingAs: "crashes of a mirror with a half that fails")
    let seed = random.seed
    let log = CrashLog()
    let count = CrashStack.mirrorByteCount
    let sectorCount = count / CrashDisk.sectorByteCount
    let sizes = [count + 8192, count + 8192, CrashStack.stateByteCount]
    let first = sizes.enumerated().map {
      CrashDisk(contents: [UInt8](repeating: 0, count: $1), number: $0, log: nil)
    }
    do { Self.settle(try CrashStack.mirror([first[0], first[1]], first[2])) }
    let start = first.map(\.bytes)
    let disks = start.enumerated().map { CrashDisk(contents: $1, number: $0, log: log) }
    let failing = [ErrorBackend(over: disks[0]), ErrorBackend(over: disks[1])]
    let mirror = try CrashStack.mirror([failing[0], failing[1]], disks[2])
    var history = SectorHistory(sectorCount: sectorCount)
    let error = BackendError.system(.inputOutput)
    try Self.perform(
      70, on: mirror, sectorCount: sectorCount, &history, log, using: &random
    ) { step in
      switch step {
      case 8: failing[1].switchTo(.failing(.all, error))
      case 30:
        failing[1].switchTo(.working)
        #expect(mirror.status.halves[1].state == .outOfUse)
        try mirror.putBack(2)
      case 31..<36, 45..<50: _ = mirror.advance()
      case 37: failing[1].switchTo(.failing([.write, .flush], error))
      case 42:
        failing[1].switchTo(.working)
        try mirror.putBack(2)
      case 55:
        Self.settle(mirror)
        failing[0].switchTo(.failing(.write, error))
      default: break
      }
    }
    #expect(mirror.status.halves.map(\.state) == [.outOfUse, .good])
    var refusalCount = 0
    var lonelyCount = 0
    try Self.forEachCrash(log, start, history, sectorCount: sectorCount, using: &random) {
      point, images, history in
      func disk(_ index: Int) -> CrashDisk {
        CrashDisk(contents: images[index], number: index, log: nil)
      }
      func check(_ mirror: MirrorBackend, _ what: String) throws {
        if let wrong = history.wrongSector(try mirror.bytes(count, at: 0)) {
          Issue.record("\(what), point \(point), seed \(seed): \(wrong)")
          throw CancellationError()
        }
      }
      let halves = [disk(0), disk(1)]
      let found = try CrashStack.mirror([halves[0], halves[1]], disk(2))
      try check(found, "both")
      Self.settle(found)
      try check(found, "both, settled")
      try #require(
        halves[0].bytes.prefix(count) == halves[1].bytes.prefix(count), "seed \(seed)")
      // One half alone: good, or refused.
      for index in 0..<2 {
        var alone: [(any BlockBackend)?] = [nil, nil]
        alone[index] = disk(index)
        do {
          try check(try CrashStack.mirror(alone, disk(2)), "half \(index) alone")
          lonelyCount += 1
        } catch MirrorError.noGoodHalf {
          refusalCount += 1
        }
      }
    }
    #expect(refusalCount > 100 && lonelyCount > 100)
  }
}

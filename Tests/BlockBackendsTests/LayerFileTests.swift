// SPDX-License-Identifier: Apache-2.0
// A layer with a name: what the next process finds of it after this one was killed, and after the
// machine lost power.

import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@testable import BlockBackends

@Suite("A layer that has a name")
struct LayerFileTests {
  let directory: TemporaryDirectory
  /// Three blocks and a bit.
  static let byteCount = 3 * 65536 + 1000
  let base = MemoryBackend(contents: [UInt8](repeating: 1, count: byteCount))
  static let identity = LayerIdentity(
    tokenHigh: 1, tokenLow: 2, export: "disk", imageByteCount: UInt64(byteCount),
    imageModifiedSeconds: 1_700_000_000)
  static let thisBoot = [UInt8](repeating: 0x61, count: 36)
  static let nextBoot = [UInt8](repeating: 0x62, count: 36)

  init() throws { directory = try TemporaryDirectory() }

  private var path: ByteString { ByteString(directory.path("x.layer")) }

  private func open(
    _ identity: LayerIdentity = identity, mustExist: Bool = true, boot: [UInt8] = thisBoot
  ) throws(LayerError) -> OverlayBackend {
    try OverlayBackend(
      over: base, layerAt: path, identity, mustExist: mustExist, boot: boot)
  }

  private func all(_ overlay: OverlayBackend) throws -> [UInt8] {
    try overlay.bytes(Self.byteCount, at: 0)
  }

  @Test("holds all that was written when the process has gone, flushed or not")
  func killed() throws {
    do {
      let overlay = try open(mustExist: false)
      try overlay.write([2, 2, 2], at: 65535)
      try overlay.flush()
      try overlay.write([3], at: UInt64(Self.byteCount) - 1)
      try overlay.trim(0..<65536, isDurable: false)
    }
    let overlay = try open()
    var wanted = [UInt8](repeating: 1, count: Self.byteCount)
    wanted.replaceSubrange(0..<65536, with: [UInt8](repeating: 0, count: 65536))
    wanted[65536] = 2
    wanted[65537] = 2
    wanted[Self.byteCount - 1] = 3
    #expect(try all(overlay) == wanted)
    #expect(overlay.layerByteCount == 3 * 65536)
    #expect(base.bytes.allSatisfy { $0 == 1 })
  }

  @Test("holds what was flushed or written through when the machine has started anew, whole blocks")
  func powerLoss() throws {
    do {
      let overlay = try open(mustExist: false)
      try overlay.write([2], at: 0)
      try overlay.flush()
      try overlay.write([3], at: 65536, isDurable: true)
      try overlay.write([4], at: 2 * 65536)
    }
    // The map of what was written may be on the disk without the block: the block is the base's.
    let overlay = try open(boot: Self.nextBoot)
    #expect(try overlay.bytes(1, at: 0) == [2])
    #expect(try overlay.bytes(2, at: 65536) == [3, 1])
    #expect(try overlay.bytes(2, at: 2 * 65536) == [1, 1])
    // And so it stays for the processes of that boot.
    try overlay.write([5], at: 3 * 65536)
    let next = try all(overlay)
    #expect(throws: LayerError.inUse(path)) { try open(boot: Self.nextBoot) }
    _ = consume overlay
    #expect(try all(open(boot: Self.nextBoot)) == next)
    #expect(try open(boot: Self.thisBoot).bytes(1, at: 3 * 65536) == [1])
  }

  @Test("makes durable in one process what another one had written")
  func flushedLater() throws {
    do { try open(mustExist: false).write([2], at: 0) }
    do { try open().flush() }
    #expect(try open(boot: Self.nextBoot).bytes(1, at: 0) == [2])
  }

  @Test("does what it is asked for at random, over kills and losses of power")
  func random() throws {
    var random = SeededGenerator(printingAs: "layers")
    var boot: UInt8 = 0
    func bootName() -> [UInt8] { [UInt8](repeating: boot, count: 36) }
    var overlay: OverlayBackend? = try open(mustExist: false, boot: bootName())
    // What must be there, byte by byte, and what may be there instead.
    var current = [UInt8](repeating: 1, count: Self.byteCount)
    var durable = current
    for _ in 0..<600 {
      switch Int.random(in: 0..<12, using: &random) {
      case 0..<7:
        let start = Int.random(in: 0..<Self.byteCount, using: &random)
        let count = Int.random(in: 1...min(70_000, Self.byteCount - start), using: &random)
        let value = UInt8.random(in: 0...255, using: &random)
        let isDurable = Int.random(in: 0..<4, using: &random) == 0
        try overlay?.write(
          [UInt8](repeating: value, count: count), at: UInt64(start), isDurable: isDurable)
        current.replaceSubrange(
          start..<(start + count), with: [UInt8](repeating: value, count: count))
        if isDurable { durable = current }
      case 7, 8:
        try overlay?.flush()
        durable = current
      case 9, 10:
        overlay = nil
        overlay = try open(boot: bootName())
        #expect(try overlay.map(all) == current, "seed \(random.seed)")
      default:
        // A test cannot lose the page cache: blocks that were durable once keep what was written
        // to them later; others are the base's, whole.
        overlay = nil
        boot &+= 1
        overlay = try open(boot: bootName())
        let found = try overlay.map(all) ?? []
        for block in 0..<4 {
          let range = (block * 65536)..<min((block + 1) * 65536, Self.byteCount)
          #expect(
            found[range] == durable[range] || found[range] == current[range],
            "block \(block), seed \(random.seed)")
        }
        current = found
        durable = found
      }
    }
  }

  static let foreign: [(String, @Sendable (inout LayerIdentity) -> Void, StaticFieldName)] = [
    ("token", { $0.tokenLow = 3 }, "it is of another attachment or export"),
    ("export", { $0.export = "disc" }, "it is of another attachment or export"),
    ("time", { $0.imageModifiedSeconds += 1 }, "the image has been written to since"),
  ]

  @Test("is refused for another attachment, export or image", arguments: foreign.indices)
  func refusesForeign(row: Int) throws {
    let (_, change, what) = Self.foreign[row]
    do { try open(mustExist: false).write([2], at: 0) }
    let before = try Data(contentsOf: URL(fileURLWithPath: directory.path("x.layer")))
    var other = Self.identity
    change(&other)
    #expect(throws: LayerError.foreign(path, what)) { try open(other) }
    #expect(throws: LayerError.foreign(path, what)) { try open(other, mustExist: false) }
    #expect(try Data(contentsOf: URL(fileURLWithPath: directory.path("x.layer"))) == before)
    #expect(OverlayBackend.isLayer(path, of: other) == (row == 2))
  }

  @Test("is refused for an image of another size")
  func refusesSize() throws {
    do { _ = try open(mustExist: false) }
    let larger = MemoryBackend(byteCount: Self.byteCount + 1)
    var identity = Self.identity
    identity.imageByteCount += 1
    #expect(throws: LayerError.foreign(path, "the image has another size now")) {
      try OverlayBackend(
        over: larger, layerAt: path, identity, mustExist: true, boot: Self.thisBoot)
    }
  }

  @Test("is refused when its header was changed anywhere", arguments: 0..<512)
  func refusesTornHeader(offset: Int) throws {
    do { _ = try open(mustExist: false) }
    let url = URL(fileURLWithPath: directory.path("x.layer"))
    let file = try FileHandle(forUpdating: url)
    try file.seek(toOffset: UInt64(offset))
    let byte = try #require(try file.read(upToCount: 1)?.first)
    try file.seek(toOffset: UInt64(offset))
    try file.write(contentsOf: Data([byte ^ 0x10]))
    try file.close()
    let error = try #require(throws: LayerError.self) { _ = try open() }
    switch error {
    case .torn: #expect(offset >= 16)
    case .foreign: #expect(offset < 16)
    default: Issue.record("\(error)")
    }
    #expect(!OverlayBackend.isLayer(path, of: Self.identity))
  }

  @Test("is refused when it is shorter or longer than it was made, or empty, or something else")
  func refusesTorn() throws {
    do { try open(mustExist: false).write([2], at: 0) }
    let url = URL(fileURLWithPath: directory.path("x.layer"))
    let whole = try Data(contentsOf: url)
    for count in [511, 512, 4096, 12288, 65536, whole.count - 1] {
      try whole.prefix(count).write(to: url)
      #expect(throws: LayerError.self) { try open() }
    }
    for other in [Data(), Data("hello".utf8), whole + Data([0])] {
      try other.write(to: url)
      #expect(throws: LayerError.self) { try open(mustExist: false) }
      #expect(try Data(contentsOf: url) == other)
    }
    try whole.write(to: url)
    #expect(try open().bytes(1, at: 0) == [2])
  }

  @Test("is made anew or not at all when it is not there, whatever a killed process has left")
  func missing() throws {
    #expect(throws: LayerError.gone(path)) { try open() }
    try directory.file("x.layer.new", [1, 2, 3])
    let overlay = try open(mustExist: false)
    try overlay.write([2], at: 0)
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["x.layer"])
    try OverlayBackend.discardLayer(at: path)
    try OverlayBackend.discardLayer(at: path)
    // Whoever still uses it is not disturbed.
    #expect(try overlay.bytes(1, at: 0) == [2])
    #expect(throws: LayerError.gone(path)) { try open() }
  }

  @Test("that cannot be made says where, and what to set")
  func noPlace() throws {
    do {
      _ = try OverlayBackend(
        over: base, layerAt: "/nosuch/x.layer", Self.identity, mustExist: false)
      Issue.record("a layer was made in a directory that is not there")
    } catch {
      #expect(error == .cannotKeep(directory: "/nosuch", .noSuchFile))
      #expect(error.report.advice.contains("layers="))
    }
  }

  @Test("makes every write durable when it is told to")
  func sync() throws {
    do {
      let overlay = try OverlayBackend(
        over: base, layerAt: path, Self.identity, mustExist: false, isSync: true,
        boot: Self.thisBoot)
      try overlay.write([2], at: 0)
      try overlay.writeZeroes(65536..<65540, mayPunch: true, isDurable: false)
    }
    let overlay = try open(boot: Self.nextBoot)
    #expect(try overlay.bytes(1, at: 0) == [2])
    #expect(try overlay.bytes(5, at: 65536) == [0, 0, 0, 0, 1])
  }
}

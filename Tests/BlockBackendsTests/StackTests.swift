// SPDX-License-Identifier: Apache-2.0
// Media put together, and what is known of bytes without reading them.

import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@testable import BlockBackends

/// Bytes that say where they are.
private func pattern(_ count: Int, from start: Int = 0) -> [UInt8] {
  (start..<(start + count)).map { UInt8(truncatingIfNeeded: $0 / 256 ^ $0) }
}

@Suite("Media put together")
struct StackTests {
  @Test("one after the other have the bytes of each in their order")
  func linear() throws {
    let parts = [3, 5, 1].map { MemoryBackend(byteCount: $0) }
    let linear = try LinearBackend(parts)
    #expect(linear.byteCount == 9)
    try linear.write([1, 2, 3, 4, 5, 6, 7, 8, 9], at: 0)
    #expect(parts.map(\.bytes) == [[1, 2, 3], [4, 5, 6, 7, 8], [9]])
    try linear.writeZeroes(2..<9, mayPunch: true, isDurable: false)
    #expect(try linear.bytes(9, at: 0) == [1, 2, 0, 0, 0, 0, 0, 0, 0])
    #expect(throws: BackendError.range) { try linear.bytes(2, at: 8) }
    #expect(linear.summary == "linear(memory, memory, memory)")
  }

  @Test("side by side have the chunks in turn")
  func stripe() throws {
    let parts = (0..<3).map { _ in MemoryBackend(byteCount: 8192 + 100) }
    let stripe = try StripeBackend(parts, chunkByteCount: 4096)
    #expect(stripe.byteCount == 6 * 4096)
    for chunk in 0..<6 {
      try stripe.write([UInt8](repeating: UInt8(chunk + 1), count: 4096), at: UInt64(chunk) * 4096)
    }
    for (index, part) in parts.enumerated() {
      #expect(part.bytes[0] == UInt8(index + 1) && part.bytes[4096] == UInt8(index + 4))
      #expect(part.bytes[8192] == 0)
    }
    // A range of several rows is one piece on each medium, its ends included.
    try stripe.writeZeroes(4000..<20_000, mayPunch: true, isDurable: false)
    var wanted = (0..<(6 * 4096)).map { UInt8($0 / 4096 + 1) }
    wanted.replaceSubrange(4000..<20_000, with: [UInt8](repeating: 0, count: 16_000))
    #expect(try difference(of: stripe.bytes(6 * 4096, at: 0), from: wanted) == nil)
  }

  @Test("that cannot be put together say why and what to do")
  func refusals() throws {
    let memory = MemoryBackend(byteCount: 8192)
    #expect(throws: StackError.tooFew(kind: "linear", wanted: 1, actual: 0)) {
      try LinearBackend([])
    }
    #expect(throws: StackError.tooFew(kind: "stripe", wanted: 2, actual: 1)) {
      try StripeBackend([memory])
    }
    for chunk: UInt64 in [0, 2048, 5000, 128 << 20] {
      #expect(throws: StackError.chunk(chunk, minimum: 4096, maximum: 64 << 20)) {
        try StripeBackend([memory, memory], chunkByteCount: chunk)
      }
    }
    #expect(throws: StackError.self) { try StripeBackend([memory, memory]) }
    #expect(throws: StackError.blockSize(3)) { try BlockSizeBackend(over: memory, minimum: 3) }
    #expect(throws: StackError.blockSize(1 << 17)) {
      try BlockSizeBackend(over: memory, minimum: 1 << 17)
    }
    let coarse = try BlockSizeBackend(over: memory, minimum: 4096)
    #expect(
      throws: StackError.partTooSmall(kind: "linear", part: 1, byteCount: 5, needed: 4096)
    ) { try LinearBackend([coarse, MemoryBackend(byteCount: 5)]) }
    #expect(StackError.blockSize(3).report.reason == "blocks of 3 bytes")
  }

  @Test("pass on what the least able of them can do, and every failure")
  func properties() throws {
    let directory = try TemporaryDirectory()
    let path = ByteString(try directory.file("image", pattern(8192)))
    let readOnly = try FileBackend(path, options: .readOnly)
    let memory = MemoryBackend(byteCount: 8192)
    #expect(!(try LinearBackend([memory, readOnly])).capabilities.contains(.write))
    #expect(try LinearBackend([memory, memory]).capabilities == memory.capabilities)
    let failing = ErrorBackend(over: MemoryBackend(byteCount: 8192))
    for stack: any BlockBackend in [
      try LinearBackend([memory, failing]),
      try StripeBackend([memory, failing], chunkByteCount: 4096),
      AsyncBackend(over: failing),
      try BlockSizeBackend(over: BlockSizeBackend(over: failing, minimum: 4096), minimum: 1),
    ] {
      failing.switchTo(.failing(.all, .truncated))
      let count = Int(stack.byteCount)
      #expect(throws: BackendError.truncated) { try stack.bytes(count, at: 0) }
      #expect(throws: BackendError.truncated) { try stack.write(pattern(count), at: 0) }
      #expect(throws: BackendError.truncated) {
        try stack.writeZeroes(0..<stack.byteCount, mayPunch: true, isDurable: false)
      }
      if !(stack is AsyncBackend) {
        #expect(throws: BackendError.truncated) { try stack.flush() }
      }
      failing.switchTo(.working)
      try stack.write(pattern(count), at: 0)
      #expect(try difference(of: stack.bytes(count, at: 0), from: pattern(count)) == nil)
    }
  }

  @Test("that acknowledge before it is durable ask nothing of what is below")
  func async() throws {
    let base = ErrorBackend(over: MemoryBackend(byteCount: 4096))
    let backend = AsyncBackend(over: base)
    base.switchTo(.failing(.flush, .truncated))
    try backend.write([1], at: 0, isDurable: true)
    try backend.flush()
    #expect(throws: BackendError.truncated) { try backend.base.flush() }
    #expect(AsyncBackend.remark.count > 20)
  }

  @Test("of smaller blocks than the medium's lose nothing to writers of the same block")
  func smallBlocks() throws {
    let memory = MemoryBackend(byteCount: 4096)
    let backend = try BlockSizeBackend(
      over: BlockSizeBackend(over: memory, minimum: 4096), minimum: 512)
    let done = DispatchGroup()
    for writer in 0..<8 {
      DispatchQueue.global().async(group: done) {
        for round in 0..<200 {
          try? backend.write(
            [UInt8](repeating: UInt8(round), count: 512), at: UInt64(writer) * 512)
        }
      }
    }
    done.wait()
    #expect(memory.bytes == [UInt8](repeating: 199, count: 4096))
  }
}

@Suite("What is known without reading")
struct ExtentTests {
  private static let data = BackendExtent(byteCount: 65536, isHole: false, readsAsZeroes: false)
  private static let hole = BackendExtent(byteCount: 65536, isHole: true, readsAsZeroes: true)

  private func sized(_ extent: BackendExtent, _ count: UInt64) -> BackendExtent {
    BackendExtent(
      byteCount: count, isHole: extent.isHole, readsAsZeroes: extent.readsAsZeroes)
  }

  @Test("of a file are its holes, of a part of it, and no more than was asked for")
  func file() throws {
    let directory = try TemporaryDirectory(inMemory: true)
    let file = try FileBackend(.init(directory.file("image")), byteCount: 1 << 20)
    try file.write(pattern(65536), at: 131_072)
    let all = try file.extents(in: 0..<(1 << 20), maximum: 9)
    #expect(all == [sized(Self.hole, 131_072), Self.data, sized(Self.hole, 851_968)])
    #expect(try file.extents(in: 0..<(1 << 20), maximum: 2) == Array(all.prefix(2)))
    #expect(
      try file.extents(in: 131_000..<131_100, maximum: 9)
        == [sized(Self.hole, 72), sized(Self.data, 28)])
    #expect(try file.extents(in: 7..<7, maximum: 9).isEmpty)
    #expect(throws: BackendError.range) {
      try file.extents(in: 0..<((1 << 20) + 1), maximum: 1)
    }
    #expect(
      file.fileRange(of: 5..<9) == BackendFileRange(descriptor: file.file.rawValue, offset: 5))
    file.prefetch(0..<(1 << 20))
  }

  @Test("of an overlay are those of its base, and its own, with what was discarded")
  func overlay() throws {
    let directory = try TemporaryDirectory(inMemory: true)
    let base = try FileBackend(.init(directory.file("image")), byteCount: 6 * 65536)
    try base.write(pattern(2 * 65536), at: 0)
    let overlay = try OverlayBackend(over: base, layerIn: .init(directory.path))
    try overlay.trim(0..<65536, isDurable: false)
    try overlay.write([1], at: 3 * 65536)
    let found = try overlay.extents(in: 0..<(6 * 65536), maximum: 9)
    #expect(found.map(\.readsAsZeroes) == [true, false, true, false, true])
    #expect(found.map(\.byteCount).reduce(0, +) == 6 * 65536)
    #expect(found[0] == Self.hole && found[1] == Self.data && found[2] == Self.hole)
    // Where bytes lie: in the base, in the layer, and in no one piece where it changes.
    #expect(overlay.fileRange(of: 65536..<131_072) == base.fileRange(of: 65536..<131_072))
    let own = try #require(overlay.fileRange(of: (3 * 65536)..<(3 * 65536 + 100)))
    #expect(own.descriptor != base.file.rawValue)
    #expect(overlay.fileRange(of: 0..<131_072) == nil)
    #expect(try base.bytes(10, at: 0) == pattern(10))
  }

  @Test("is what is in memory: such reads do not wait, others say so")
  func withoutWaiting() throws {
    let directory = try TemporaryDirectory()
    let file = try FileBackend(.init(directory.file("image", pattern(8192))))
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 8)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above.
    _ = try file.bytes(8192, at: 0)
    if try unsafe file.readWithoutWaiting(into: memory, at: 0) {
      #expect(unsafe [UInt8](memory) == pattern(8192))
    }
    let shared = try TemporaryDirectory(inMemory: true)
    let inMemory = try FileBackend(.init(shared.file("image", pattern(8192))))
    #expect(try unsafe inMemory.readWithoutWaiting(into: memory, at: 0))
    #expect(unsafe [UInt8](memory) == pattern(8192))
    #expect(throws: BackendError.range) {
      try unsafe inMemory.readWithoutWaiting(into: memory, at: 1)
    }
    guard let direct = try? FileBackend(.init(directory.path("image")), options: .direct) else {
      return
    }
    #expect(try unsafe !direct.readWithoutWaiting(into: memory, at: 0))
    #expect(direct.fileRange(of: 0..<4096) == nil)
  }
}

@Suite("Memory")
struct MemoryTests {
  /// Of this process, in bytes. Source: proc_pid_status(5), RssAnon.
  static func anonymousByteCount() throws -> Int {
    let text = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") })
    return try #require(Int(line.filter(\.isNumber))) * 1024
  }

  @Test("for a medium of 1 TiB is taken where it is written to, and given back")
  func sparse() throws {
    let before = try Self.anonymousByteCount()
    let memory = try MemoryBackend(sparse: 1 << 40)
    try memory.write([UInt8](repeating: 1, count: 4096), at: 1 << 39)
    #expect(try memory.bytes(4097, at: (1 << 39) - 1).count { $0 == 1 } == 4096)
    for offset in stride(from: UInt64(0), to: 1 << 40, by: 1 << 30) {
      #expect(try memory.bytes(1, at: offset + 5000) == [0])
    }
    #expect(
      try memory.extents(in: 0..<(1 << 40), maximum: 9).map(\.byteCount)
        == [1 << 39, 4096, (1 << 39) - 4096])
    try memory.trim(0..<(1 << 40), isDurable: false)
    #expect(try memory.extents(in: 0..<(1 << 40), maximum: 9).count == 1)
    #expect(try Self.anonymousByteCount() - before < 32 << 20)
    #expect(throws: SystemError.self) { try MemoryBackend(sparse: 1 << 50) }
  }

  /// 200 clients may take 64 MiB of a server together, besides what they write. Other tests of this
  /// process take memory at the same time; not every time.
  @Test("for the tables of overlays is a few pages each")
  func overlays() throws {
    var each = Int.max
    for _ in 0..<5 where each >= 48 << 10 { each = try Self.overlayByteCount() }
    print("an overlay over 64 GiB takes \(each) bytes of memory")
    #expect(each < 48 << 10)
  }

  private static func overlayByteCount() throws -> Int {
    let directory = try TemporaryDirectory(inMemory: true)
    let base = try FileBackend(.init(directory.file("image")), byteCount: 64 << 30)
    var overlays: [OverlayBackend] = []
    let before = try anonymousByteCount()
    for index in 0..<400 {
      let overlay = try OverlayBackend(over: base, layerIn: .init(directory.path))
      // A boot writes here and there.
      for block in 0..<8 {
        try overlay.write([1], at: UInt64(block) << 32 | UInt64(index) << 20)
      }
      overlays.append(overlay)
    }
    let each = (try anonymousByteCount() - before) / overlays.count
    #expect(overlays.allSatisfy { $0.layerByteCount == 8 * 65536 })
    return each
  }
}

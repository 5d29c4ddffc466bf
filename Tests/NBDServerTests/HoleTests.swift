// SPDX-License-Identifier: Apache-2.0
// How often a backend is asked for its holes: never at the cost of those who read plain data.

import BlockBackends
import LinuxSystem
import NBDProtocol
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Counts how often it is asked what lies where.
private final class CountingBackend: BlockBackend {
  let byteCount: UInt64 = 256 << 20
  let blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  let capabilities: BackendCapabilities = [.isShared]
  /// Pieces of data of this length, each of which ends where another begins.
  private let pieceByteCount: UInt64
  private let milliseconds: UInt64
  private let count = Atomic(0)
  var askedCount: Int { count.load(ordering: .relaxed) }

  init(pieceByteCount: UInt64, milliseconds: UInt64 = 0) {
    self.pieceByteCount = pieceByteCount
    self.milliseconds = milliseconds
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError) {}
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) { throw .readOnly }
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) { throw .readOnly }
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) { throw .readOnly }
  func flush() throws(BackendError) {}

  func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    count.add(1, ordering: .relaxed)
    if milliseconds > 0 { pause(milliseconds: milliseconds) }
    let end = min(range.upperBound, (range.lowerBound / pieceByteCount + 1) * pieceByteCount)
    return [
      BackendExtent(byteCount: end - range.lowerBound, isHole: false, readsAsZeroes: false)
    ]
  }
}

@Suite("Looking for holes")
struct HoleTests {
  private func read(_ count: Int, from backend: CountingBackend, length: UInt64) throws {
    let client = try StyledClient(ServerUnderTest(backend), style: .structured)
    var generator = SeededGenerator(printingAs: "reads of data")
    for _ in 0..<count {
      let offset = UInt64.random(in: 0...(backend.byteCount - length), using: &generator)
      let answer = try client.ask(.read, at: offset, count: length)
      #expect(answer.pieces.count == 1)
    }
  }

  @Test("asks next to nothing of a file that is one piece of data")
  func onePiece() throws {
    let backend = CountingBackend(pieceByteCount: 256 << 20)
    try read(500, from: backend, length: 65536)
    // Only what lies before everything that is known is asked about: a new lowest offset.
    #expect(backend.askedCount >= 1 && backend.askedCount < 40, "\(backend.askedCount)")
  }

  @Test("stops asking a backend that takes long to say that there are none")
  func slowAnswers() throws {
    let backend = CountingBackend(pieceByteCount: 1 << 20, milliseconds: 2)
    try read(300, from: backend, length: 65536)
    #expect(backend.askedCount >= 1 && backend.askedCount < 10, "\(backend.askedCount)")
  }

  @Test("asks nothing about short reads")
  func shortReads() throws {
    let backend = CountingBackend(pieceByteCount: 4096)
    try read(300, from: backend, length: 16384)
    #expect(backend.askedCount == 0)
  }
}

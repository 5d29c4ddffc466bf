// SPDX-License-Identifier: Apache-2.0
// No memory is allocated for a request: 100,000 of them, and what the threads that served them have
// asked malloc(3) for meanwhile.

import AllocationCounter
import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

/// Passes everything on to a file, and has the thread counted that it is called on.
private final class CountedBackend: BlockBackend {
  private let base: FileBackend
  private let allocates: Bool
  var byteCount: UInt64 { base.byteCount }
  var blockSizes: BackendBlockSizes { base.blockSizes }
  var capabilities: BackendCapabilities { base.capabilities }

  init(_ base: FileBackend, allocates: Bool) {
    self.base = base
    self.allocates = allocates
  }

  private func count() {
    allocation_counter_begin_thread()
    // SAFETY: freed at once, and used by nobody.
    if allocates {
      unsafe UnsafeMutableRawPointer.allocate(byteCount: 100, alignment: 8).deallocate()
    }
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    count()
    try unsafe base.read(into: buffer, at: offset)
  }
  func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool {
    count()
    return try unsafe base.readWithoutWaiting(into: buffer, at: offset)
  }
  func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    count()
    return base.fileRange(of: range)
  }
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    count()
    try unsafe base.write(bytes, at: offset, isDurable: isDurable)
  }
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {}
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {}
  func flush() throws(BackendError) {}
}

/// One after the other: they share a counter.
@Suite("The memory of requests", .serialized)
struct AllocationTests {
  /// Allocations while so many requests were served, in batches of 100.
  private func allocationCount(
    during requestCount: Int, length: Int, allocates: Bool
  ) throws -> UInt64 {
    let directory = try TemporaryDirectory()
    let path = try directory.file("image", [UInt8](repeating: 1, count: 1 << 20))
    let backend = CountedBackend(try FileBackend(ByteString(path)), allocates: allocates)
    let client = try ServerUnderTest(backend).enter()
    var batch: [UInt8] = []
    var answerByteCount = 0
    for cookie in 0..<UInt64(100) {
      let isWrite = cookie % 4 == 3 && length < 4096
      batch.append(
        encoding: Request(
          command: isWrite ? .write : .read, cookie: cookie, offset: cookie * 4096,
          length: UInt32(length)))
      if isWrite { batch += [UInt8](repeating: 1, count: length) }
      answerByteCount += SimpleReply.byteCount + (isWrite ? 0 : length)
    }
    // Until the session has found its place.
    for _ in 0..<20 {
      try client.send(batch)
      _ = try client.receive(answerByteCount)
    }
    let before = allocation_counter_total()
    for _ in 0..<(requestCount / 100) {
      try client.send(batch)
      _ = try client.receive(answerByteCount)
    }
    return allocation_counter_total() - before
  }

  /// A machine that stops for a while makes the session give its thread up and get another, which
  /// costs a few; one for each batch would be 1,000.
  private static let tolerated: UInt64 = 100

  @Test("is there before they come: small ones, and those that are sent from the file")
  func nothing() throws {
    #expect(try allocationCount(during: 100_000, length: 512, allocates: false) < Self.tolerated)
    #expect(try allocationCount(during: 10_000, length: 36864, allocates: false) < Self.tolerated)
  }

  @Test("would be seen if there were any")
  func counter() throws {
    #expect(try allocationCount(during: 1000, length: 512, allocates: true) >= 1000)
  }
}

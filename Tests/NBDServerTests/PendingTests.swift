// SPDX-License-Identifier: Apache-2.0
// Requests of an attachment that a disk is at work on. The disk is a pipe: it is done with a transfer
// when the test says so, and the ring of the session waits for it as it waits for a disk.

import BlockBackends
import BlockServer
import Foundation
import NBDProtocol
import NBDServer
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Short transfers end when the test wants it; others are executed in place, at once.
private final class PipeDisk: BlockBackend {
  let byteCount: UInt64 = 64 << 20
  let blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  let capabilities: BackendCapabilities = [.write, .isShared]
  private let reads = Pipe()
  /// For what lies beyond the first mebibyte.
  private let farReads = Pipe()
  private let writes = Pipe()
  private let holdsWrites: Bool
  private let left = Atomic(-1)
  private let counts = Mutex((begun: 0, inPlace: 0))
  /// What is done in place waits for it when the test has it.
  let holdsInPlace = Mutex(false)

  init(holdsWrites: Bool = false) {
    self.holdsWrites = holdsWrites
    // Source: F_SETPIPE_SZ in Linux `include/uapi/linux/fcntl.h`.
    #expect(fcntl(writes.fileHandleForWriting.fileDescriptor, 1031, 4096) == 4096)
    writes.fileHandleForWriting.write(Data(count: 4096))
  }

  /// Transfers that have been given to the ring.
  var begunCount: Int { counts.withLock { $0.begun } }
  /// Reads that the session's thread has done itself.
  var inPlaceCount: Int { counts.withLock { $0.inPlace } }

  /// At the last flush: bytes that no read had taken.
  var leftByteCount: Int { left.load(ordering: .relaxed) }

  /// Lets one transfer of four bytes end.
  func finishOne(with byte: UInt8 = 0) {
    if holdsWrites {
      // A pipe takes more when a page of it is free.
      _ = writes.fileHandleForReading.readData(ofLength: 4096)
    } else {
      reads.fileHandleForWriting.write(Data(repeating: byte, count: 4))
    }
  }

  func finishFarOne(with byte: UInt8) {
    farReads.fileHandleForWriting.write(Data(repeating: byte, count: 4))
  }

  func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    guard range.count == 4, !holdsWrites else { return nil }
    counts.withLock { $0.begun += 1 }
    let pipe = range.lowerBound < 1 << 20 ? reads : farReads
    return BackendFileRange(descriptor: pipe.fileHandleForReading.fileDescriptor, offset: 0)
  }
  func directRange(of range: Range<UInt64>) -> BackendDirectRange? {
    guard range.count == 4, holdsWrites else { return nil }
    counts.withLock { $0.begun += 1 }
    return BackendDirectRange(
      descriptor: writes.fileHandleForWriting.fileDescriptor, offset: 0, isSync: false)
  }
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError) {
    counts.withLock { $0.inPlace += 1 }
    // A test that has failed lets go of nothing: the session must end all the same.
    try? wait("the test") { !holdsInPlace.withLock { $0 } }
  }
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {}
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {}
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {}
  func flush() throws(BackendError) {
    var count: CInt = 0
    // SAFETY: an integer of ours, which the call fills.
    _ = unsafe ioctl(reads.fileHandleForReading.fileDescriptor, UInt(FIONREAD), &count)
    left.store(Int(count), ordering: .relaxed)
  }
}

private func cookie(tag: UInt32, _ counter: UInt32) -> UInt64 {
  UInt64(counter) << 32 | UInt64(tag)
}

private func read(
  tag: UInt32, _ counter: UInt32, at offset: UInt64 = 0, length: UInt32 = 4
) -> [UInt8] {
  Request(command: .read, cookie: cookie(tag: tag, counter), offset: offset, length: length)
    .encoded
}

private func flush(tag: UInt32, _ counter: UInt32) -> Request {
  Request(command: .flush, cookie: cookie(tag: tag, counter))
}

@Suite("A request of an attachment that the disk is at work on")
struct PendingTests {
  private let disk = PipeDisk()

  private func enter(_ server: ServerUnderTest, slot: UInt16 = 0) throws -> TestClient {
    try server.enter(as: identity(1, slot: slot, .countedCookies))
  }

  @Test("holds up none of the others of its connection")
  func others() throws {
    let server = try ServerUnderTest(disk)
    let client = try enter(server)
    try client.send(read(tag: 1, 1) + read(tag: 2, 1))
    try wait("both reads") { disk.begunCount == 2 }
    #expect(try client.ask(flush(tag: 3, 1)) == .none)
    for byte: UInt8 in [7, 8] {
      disk.finishOne(with: byte)
      #expect(try client.reply().error == .none)
      #expect(try client.receive(4) == [byte, byte, byte, byte])
    }
    // The thread waits in its socket again.
    #expect(try client.ask(flush(tag: 3, 2)) == .none)
  }

  @Test("is done before a newer connection has the slot", arguments: [false, true])
  func takeover(ofWrite: Bool) throws {
    let disk = PipeDisk(holdsWrites: ofWrite)
    let server = try ServerUnderTest(disk)
    let old = try enter(server)
    let request = Request(
      command: ofWrite ? .write : .read, cookie: cookie(tag: 1, 1), length: 4)
    try old.send(request.encoded + (ofWrite ? [1, 1, 1, 1] : []))
    try wait("the request") { disk.begunCount == 1 }
    let new = try server.ask(as: identity(2, .countedCookies))
    try wait("the takeover") { server.attachments.waiters == 1 }
    #expect(try !new.hasInput(within: 30), "it was let in too early")
    disk.finishOne()
    _ = try new.receive(OptionReplyHeader.byteCount + 12 + OptionReplyHeader.byteCount)
    #expect(try new.ask(flush(tag: 1, 2)) == .none)
    #expect(try old.receiveToEnd().isEmpty)
    try wait("the older one's end") { server.registry.connectionCount == 1 }
    #expect(server.closings.map(\.reason) == ["a newer connection of this client took its place"])
  }

  /// A connection whose request with tag 5 the disk is at work on, and a sibling.
  private func enterTwo(_ server: ServerUnderTest) throws -> (old: TestClient, sibling: TestClient)
  {
    let old = try enter(server)
    let sibling = try enter(server, slot: 1)
    try old.send(read(tag: 5, 1))
    try wait("the older copy") { disk.begunCount == 1 }
    return (old, sibling)
  }

  @Test("is waited for by its newer copy on another connection, which alone is answered")
  func repeated() throws {
    let server = try ServerUnderTest(disk)
    let (old, sibling) = try enterTwo(server)
    // What the sibling has on the disk itself is not kept waiting, either.
    try sibling.send(read(tag: 6, 1, at: 1 << 20) + read(tag: 5, 2))
    try wait("the sibling's own") { disk.begunCount == 2 }
    disk.finishFarOne(with: 1)
    #expect(try sibling.reply().cookie == cookie(tag: 6, 1))
    #expect(try sibling.receive(4) == [1, 1, 1, 1])
    try wait("the repeat") { server.attachments.waiters == 1 }
    disk.finishOne(with: 2)
    try wait("the newer copy") { disk.begunCount == 3 }
    disk.finishOne(with: 3)
    #expect(try sibling.reply().cookie == cookie(tag: 5, 2))
    #expect(try sibling.receive(4) == [3, 3, 3, 3])
    #expect(try old.ask(flush(tag: 7, 1)) == .none)
  }

  /// The client has given the connection up and reads nothing from it any more.
  @Test("ends though its connection's client takes no answers")
  func unreadAnswers() throws {
    let server = try ServerUnderTest(disk)
    let (old, sibling) = try enterTwo(server)
    // More than a socket takes, and more than a session keeps.
    for counter: UInt32 in 1...3 { try old.send(read(tag: 9, counter, length: 16 << 20)) }
    try wait("the long reads") { disk.inPlaceCount >= 1 }
    try sibling.send(read(tag: 5, 2))
    try wait("the repeat") { server.attachments.waiters == 1 }
    disk.finishOne(with: 1)
    try wait("the newer copy") { disk.begunCount == 2 }
    disk.finishOne(with: 2)
    #expect(try sibling.reply() == SimpleReply(error: .none, cookie: cookie(tag: 5, 2)))
    #expect(try sibling.receive(4) == [2, 2, 2, 2])
  }

  @Test("is done before a connection that comes back is let in, and so is what came behind it")
  func siblings() throws {
    let server = try ServerUnderTest(disk, overTCP: true)
    let dead = try enter(server, slot: 1)
    try dead.send(read(tag: 1, 1))
    try wait("the first read") { disk.begunCount == 1 }
    let new = try server.ask(as: identity(2, slot: 0, [.resume, .countedCookies]))
    try wait("the return") { server.attachments.waiters == 1 }
    // What comes from now on is not waited for, and does not keep the other waiting.
    for tag: UInt32 in 2...9 { try dead.send(read(tag: tag, 1)) }
    #expect(try !new.hasInput(within: 30), "it was let in too early")
    disk.finishOne()
    _ = try new.receive(OptionReplyHeader.byteCount + 12 + OptionReplyHeader.byteCount)
    #expect(try new.ask(flush(tag: 1, 2)) == .none)
    for _ in 2...9 { disk.finishOne() }
    for _ in 1...9 {
      #expect(try dead.reply().error == .none)
      _ = try dead.receive(4)
    }
  }

  /// Replies are made, and fill a call, when the socket is found to be shut down.
  @Test("leaves nothing behind when the connection is replaced while many are answered at once")
  func replacedWhileAnswering() throws {
    let directory = try TemporaryDirectory()
    let file = try FileBackend(
      ByteString(directory.file("disk")), options: .direct, byteCount: 8 << 20)
    #expect(file.directRange(of: 0..<4096) != nil)
    let server = try ServerUnderTest(file)
    var clients: [TestClient] = []
    for generation: UInt64 in 1...40 {
      let client = try server.enter(as: identity(generation, .countedCookies))
      clients.append(client)
      var requests: [UInt8] = []
      for tag: UInt32 in 0..<24 {
        requests += read(tag: tag, UInt32(generation), length: 131_072)
      }
      try client.send(requests)
      // The last of them are still being read, or answered, when the next one comes.
      _ = try client.receive(SimpleReply.byteCount + 131_072)
    }
    try wait("the end of those that were replaced") { server.registry.connectionCount == 1 }
    withExtendedLifetime(clients) {}
  }

  @Test("has been given to the disk when what came behind it is executed")
  func begunFirst() throws {
    let server = try ServerUnderTest(disk)
    let client = try enter(server)
    disk.finishOne(with: 5)
    try client.send(read(tag: 1, 1) + flush(tag: 2, 1).encoded)
    for _ in 0..<2 {
      if try client.reply().cookie == cookie(tag: 1, 1) { _ = try client.receive(4) }
    }
    #expect(disk.leftByteCount == 0, "the flush came before the read was begun")
  }

  @Test("is done in place only as long as its client has no other one")
  func inPlace() throws {
    let server = try ServerUnderTest(disk)
    let client = try enter(server)
    disk.holdsInPlace.withLock { $0 = true }
    defer { disk.holdsInPlace.withLock { $0 = false } }
    // One comes after the other until one is taken to be alone: that one is held, and leaves in the
    // pipe what it would have taken from there.
    var counter: UInt32 = 0
    while true {
      counter += 1
      try #require(counter < 1000, "none was done in place")
      disk.finishOne()
      try client.send(read(tag: 1, counter))
      var isAnswered = false
      try wait("request \(counter)") {
        isAnswered = (try? client.hasInput(within: 0)) == true  // Takes a byte.
        return isAnswered || disk.inPlaceCount == 1
      }
      if !isAnswered { break }
      _ = try client.receive(SimpleReply.byteCount - 1 + 4)
    }
    try client.send(read(tag: 2, 1))
    disk.holdsInPlace.withLock { $0 = false }
    for expected in [cookie(tag: 1, counter), cookie(tag: 2, 1)] {
      #expect(try client.reply().cookie == expected)
      _ = try client.receive(4)
    }
    #expect(disk.inPlaceCount == 1, "the last would have kept others waiting")
  }

  @Test("brings the right bytes, whether one comes after the other or all at once")
  func depths() throws {
    let directory = try TemporaryDirectory()
    let blockCount = 64
    let bytes = (0..<blockCount * 4096).map { UInt8(truncatingIfNeeded: $0 / 4096) }
    let file = try FileBackend(
      ByteString(try directory.file("disk", bytes)), options: .direct)
    #expect(file.directRange(of: 0..<4096) != nil)
    let client = try enter(try ServerUnderTest(file))
    var counter: UInt32 = 0
    // Long enough for the session to see how its client works, each time.
    for depth in [1, 8, 1, 2, 1] {
      for round in 0..<16 {
        counter += 1
        var requests: [UInt8] = []
        for tag in 0..<depth {
          requests +=
            Request(
              command: .read, cookie: cookie(tag: UInt32(tag), counter),
              offset: UInt64((round * 3 + tag) % blockCount * 4096), length: 4096
            ).encoded
        }
        try client.send(requests)
        for _ in 0..<depth {
          let tag = Int(UInt32(truncatingIfNeeded: try client.reply().cookie))
          let wanted = UInt8((round * 3 + tag) % blockCount)
          #expect(try client.receive(4096).allSatisfy { $0 == wanted })
        }
      }
    }
  }
}

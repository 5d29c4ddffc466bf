// SPDX-License-Identifier: Apache-2.0
// No late write of a dead connection lands after a newer one. The backend holds an operation until
// it is told to let it go, so every order of events is made and not waited for.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

/// As a client makes it that counts.
private func cookie(tag: UInt32, _ counter: UInt32) -> UInt64 {
  UInt64(counter) << 32 | UInt64(tag)
}

/// A WRITE of one byte, `count` times.
private func write(
  _ byte: UInt8, cookie: UInt64, offset: UInt64 = 0, count: Int = 4
) -> [UInt8] {
  Request(command: .write, cookie: cookie, offset: offset, length: UInt32(count)).encoded
    + [UInt8](repeating: byte, count: count)
}

@Suite("A connection that takes another one's place")
struct TakeoverTests {
  let memory: MemoryBackend
  let backend: DelayBackend
  let server: ServerUnderTest

  init() throws {
    memory = MemoryBackend(byteCount: 4096)
    backend = DelayBackend(over: memory)
    server = try ServerUnderTest(backend)
  }

  @Test("is let in only when the write in which the older one hangs has landed")
  func hangingWrite() throws {
    let old = try server.enter(as: identity(1))
    backend.switchTo(.held)
    // Behind the write that hangs there is another, already in the older one's input.
    try old.send(write(1, cookie: 1) + write(2, cookie: 2))
    try wait("the write") { backend.waitingCount == 1 }
    let new = try server.ask(as: identity(2))
    try wait("the takeover") { server.attachments.waiters == 1 }
    #expect(try !new.hasInput(within: 30), "it was let in too early")
    backend.switchTo(.none)
    _ = try new.receive(OptionReplyHeader.byteCount + 12 + OptionReplyHeader.byteCount)
    #expect(memory.bytes[0] == 1)
    #expect(try new.ask(Request(command: .write, cookie: 3, length: 4), [3, 3, 3, 3]) == .none)
    _ = try old.receiveToEnd()
    try wait("the older one's end") { server.registry.connectionCount == 1 }
    #expect(memory.bytes[0] == 3)
    #expect(server.closings.map(\.reason) == ["a newer connection of this client took its place"])
    #expect(server.closings.map(\.counters.writes) == [1])
  }

  @Test("ends an older one that waits for requests or in the middle of one", arguments: 0...40)
  func idlePredecessor(sent: Int) throws {
    let old = try server.enter(as: identity(1))
    let bytes = Request(command: .write, cookie: 1, length: 64).encoded + [1, 1, 1, 1]
    try old.send(Array(bytes.prefix(sent)))
    let new = try server.enter(as: identity(2))
    #expect(try new.ask(Request(command: .write, cookie: 3, length: 4), [3, 3, 3, 3]) == .none)
    #expect(try old.receiveToEnd().isEmpty)
    try wait("the older one's end") { server.registry.connectionCount == 1 }
    #expect(Array(memory.bytes.prefix(4)) == [3, 3, 3, 3])
    #expect(server.closings.map(\.counters.writes) == [0])
  }

  @Test("ends an older one that hangs in an answer nobody reads")
  func hangingAnswer() throws {
    let large = try ServerUnderTest(MemoryBackend(byteCount: 32 << 20))
    let old = try large.enter(as: identity(1))
    try old.send(Request(command: .read, cookie: 1, length: 32 << 20).encoded)
    _ = try old.receive(SimpleReply.byteCount)
    let new = try large.enter(as: identity(2))
    #expect(try new.ask(Request(command: .flush, cookie: 1)) == .none)
    while large.registry.connectionCount > 1 { pause(milliseconds: 1) }
  }

  @Test("is refused when it is not the newer one, before and after the other has gone")
  func stale() throws {
    var newer: TestClient? = try server.enter(as: identity(5))
    for generation: UInt64 in [0, 4, 5] {
      let refusal = try server.refusal(as: identity(generation))
      #expect(refusal.type == .errInvalid)
      #expect(refusal.text == "a newer connection of this attachment has slot 0")
    }
    // Another slot and another attachment have generations of their own.
    _ = try server.enter(as: identity(1, slot: 1))
    _ = try server.enter(as: identity(1, token: 2))
    #expect(try newer?.ask(Request(command: .flush, cookie: 1)) == ErrorNumber.none)
    newer = nil
    try server.waitForEnd()
    #expect(try server.refusal(as: identity(5)).type == .errInvalid)
    _ = try server.enter(as: identity(6))
  }

  @Test("is refused when a newer one yet comes while it waits, which then waits for the oldest")
  func threeGenerations() throws {
    let oldest = try server.enter(as: identity(1))
    backend.switchTo(.held)
    try oldest.send(write(1, cookie: 1))
    try wait("the write") { backend.waitingCount == 1 }
    let middle = try server.ask(as: identity(2))
    try wait("the first takeover") { server.attachments.waiters == 1 }
    let newest = try server.ask(as: identity(3))
    let answer = try middle.receiveToEnd()
    #expect(answer.isEmpty, "the socket of the middle one is shut down")
    try wait("the second takeover") { server.attachments.waiters == 1 }
    #expect(try !newest.hasInput(within: 30))
    backend.switchTo(.none)
    _ = try newest.receive(OptionReplyHeader.byteCount + 12 + OptionReplyHeader.byteCount)
    #expect(memory.bytes[0] == 1)
  }

  @Test("is told to come again when what the older one does takes longer than the handshake may")
  func busyPredecessor() throws {
    let old = try server.enter(as: identity(1))
    backend.switchTo(.held)
    try old.send(write(1, cookie: 1))
    try wait("the write") { backend.waitingCount == 1 }
    let claim = AttachmentClaim(
      token: AttachmentToken(high: 0, low: 1), generation: 2, slot: 0, isResuming: true)
    #expect(throws: AttachmentRefusal.predecessorBusy(slot: 0)) {
      _ = try server.attachments.enter(
        Export(name: "disk", base: backend), claim, until: .milliseconds(0),
        control: ConnectionControl(interrupt: {}, arrivedByteCount: { nil }))
    }
    backend.switchTo(.none)
    // The older one is out all the same, and what it had begun is done.
    _ = try old.receiveToEnd()
    try server.waitForEnd()
    let later = try server.enter(as: identity(3))
    #expect(try later.ask(Request(command: .flush, cookie: 1)) == .none)
  }

  /// The kernel gives up a connection whose request was not answered, repeats the request on
  /// another, and may have written newer data there when the old one is looked at again.
  @Test("that comes back is let in when what its siblings had received is done, and no later")
  func siblings() throws {
    let server = try ServerUnderTest(backend, overTCP: true)
    let lost = try server.enter(as: identity(1, slot: 0))
    let dead = try server.enter(as: identity(1, slot: 1))
    backend.switchTo(.held)
    // One write hangs, one was taken with it, others lie in the socket.
    let bulk = Request(command: .write, cookie: 3, offset: 0, length: 4096).encoded
    try dead.send(write(1, cookie: 1) + write(2, cookie: 2))
    try wait("the write") { backend.waitingCount == 1 }
    for _ in 0..<10 { try dead.send(bulk + [UInt8](repeating: 4, count: 4096)) }
    // Half a request: nobody waits for the rest of it.
    try dead.send(Array(write(5, cookie: 5).prefix(17)))
    try dead.waitForArrival()
    let new = try server.ask(as: identity(2, slot: 0, .resume))
    try wait("the return") { server.attachments.waiters == 1 }
    #expect(try !new.hasInput(within: 30), "it was let in too early")
    backend.switchTo(.none)
    _ = try new.receive(OptionReplyHeader.byteCount + 12 + OptionReplyHeader.byteCount)
    #expect(memory.bytes[0] == 4)
    #expect(try new.ask(Request(command: .write, cookie: 3, length: 4), [7, 7, 7, 7]) == .none)
    #expect(memory.bytes[0] == 7)
    _ = (lost, dead)
  }

  @Test("that is new, not back, does not wait for its siblings")
  func newSibling() throws {
    let busy = try server.enter(as: identity(1, slot: 0))
    backend.switchTo(.held)
    try busy.send(write(1, cookie: 1))
    try wait("the write") { backend.waitingCount == 1 }
    _ = try server.enter(as: identity(1, slot: 1))
    backend.switchTo(.none)
    #expect(try busy.reply().error == .none)
  }

  @Test("leaves connections without an attachment, and those of others, alone")
  func others() throws {
    let nameless = try server.enter()
    let other = try server.enter(as: identity(1, token: 2))
    let sibling = try server.enter(as: identity(1, slot: 1))
    _ = try server.enter(as: identity(1))
    let new = try server.enter(as: identity(2))
    for client in [nameless, other, sibling, new] {
      #expect(try client.ask(Request(command: .flush, cookie: 1)) == .none)
    }
    #expect(new.flags.contains(.canMultiConn))
  }
}

@Suite("A request that is sent again on another connection")
struct RepeatedRequestTests {
  let memory: MemoryBackend
  let backend: DelayBackend
  let server: ServerUnderTest

  init() throws {
    memory = MemoryBackend(byteCount: 4 << 20)
    backend = DelayBackend(over: memory)
    server = try ServerUnderTest(backend)
  }

  @Test("waits while the older copy is being executed, and is answered alone")
  func executing() throws {
    let old = try server.enter(as: identity(1, slot: 0, .countedCookies))
    let sibling = try server.enter(as: identity(1, slot: 1, .countedCookies))
    backend.switchTo(.held, for: .write)
    try old.send(write(1, cookie: cookie(tag: 5, 1)))
    try wait("the write") { backend.waitingCount == 1 }
    // What came before it on the same connection is answered without it.
    try sibling.send(
      Request(command: .flush, cookie: cookie(tag: 6, 1)).encoded
        + write(2, cookie: cookie(tag: 5, 2)))
    #expect(try sibling.reply().cookie == cookie(tag: 6, 1))
    try wait("the repeat") { server.attachments.waiters == 1 }
    #expect(backend.waitingCount == 1, "the repeat runs beside the older copy")
    backend.switchTo(.none)
    #expect(try sibling.reply() == SimpleReply(error: .none, cookie: cookie(tag: 5, 2)))
    #expect(memory.bytes[0] == 2)
    // The older copy has no answer; what comes after it has.
    #expect(try old.ask(Request(command: .flush, cookie: cookie(tag: 7, 1))) == .none)
    #expect(memory.bytes[0] == 2)
  }

  @Test("that was answered is not undone by the older copy, unread in its socket until then")
  func unread() throws {
    let old = try server.enter(as: identity(1, slot: 0, .countedCookies))
    let sibling = try server.enter(as: identity(1, slot: 1, .countedCookies))
    // The older connection's thread hangs in a read, and the write stays in the socket.
    backend.switchTo(.held, for: .read)
    try old.send(Request(command: .read, cookie: cookie(tag: 9, 1), length: 4).encoded)
    try wait("the read") { backend.waitingCount == 1 }
    try old.send(write(1, cookie: cookie(tag: 5, 1)))
    try sibling.send(write(2, cookie: cookie(tag: 5, 2)))
    #expect(try sibling.reply() == SimpleReply(error: .none, cookie: cookie(tag: 5, 2)))
    backend.switchTo(.none)
    #expect(try old.reply().cookie == cookie(tag: 9, 1))
    _ = try old.receive(4)
    #expect(try old.ask(Request(command: .flush, cookie: cookie(tag: 9, 2))) == .none)
    #expect(memory.bytes[0] == 2)
  }

  @Test("is not mixed with an older copy whose payload has come in part")
  func halfReceived() throws {
    let old = try server.enter(as: identity(1, slot: 0, .countedCookies))
    let sibling = try server.enter(as: identity(1, slot: 1, .countedCookies))
    let length = UInt32(3 << 20)
    let request = Request(command: .write, cookie: cookie(tag: 5, 1), length: length)
    // More than one piece is written before the rest comes.
    try old.send(request.encoded + [UInt8](repeating: 1, count: 2 << 20))
    try wait("the first piece") { memory.bytes[(1 << 20) - 1] == 1 }
    var newer = request
    newer.cookie = cookie(tag: 5, 2)
    #expect(
      try sibling.ask(newer, [UInt8](repeating: 2, count: Int(length))) == .none)
    try old.send([UInt8](repeating: 1, count: 1 << 20))
    #expect(try old.ask(Request(command: .flush, cookie: cookie(tag: 6, 1))) == .none)
    #expect(memory.bytes[..<Int(length)].allSatisfy { $0 == 2 })
  }

  @Test("does not keep a connection that waits for it from being replaced")
  func replacedWhileWaiting() throws {
    let old = try server.enter(as: identity(1, slot: 0, .countedCookies))
    let sibling = try server.enter(as: identity(1, slot: 1, .countedCookies))
    backend.switchTo(.held, for: .write)
    try old.send(write(1, cookie: cookie(tag: 5, 1)))
    try wait("the write") { backend.waitingCount == 1 }
    try sibling.send(write(2, cookie: cookie(tag: 5, 2)))
    try wait("the repeat") { server.attachments.waiters == 1 }
    let newer = try server.enter(as: identity(2, slot: 1, .countedCookies))
    #expect(try sibling.receiveToEnd().isEmpty)
    try newer.send(write(3, cookie: cookie(tag: 5, 3)))
    try wait("the second repeat") { server.attachments.waiters == 1 }
    backend.switchTo(.none)
    #expect(try newer.reply() == SimpleReply(error: .none, cookie: cookie(tag: 5, 3)))
    #expect(memory.bytes[0] == 3)
  }

  @Test("is executed whatever its counter is when its tag is of no queue: nothing hangs")
  func unordered() throws {
    let client = try server.enter(as: identity(1, .countedCookies))
    for counter in [3, 2, 1] as [UInt32] {
      for tag in [0x0000_1000, 0x0200_0000] as [UInt32] {
        let request = Request(command: .flush, cookie: cookie(tag: tag, counter))
        #expect(try client.ask(request) == .none)
      }
    }
  }

  /// A client that repeats whatever it has no answer to, on connections that it replaces at
  /// random, finds in the end what it wrote last.
  @Test("ends with what was written last, whatever happens to connections on the way")
  func randomFaults() throws {
    try endWithWhatWasWrittenLast(on: server, blockByteCount: 4) { isSlow in
      backend.switchTo(isSlow ? .milliseconds(1) : .none, for: .write)
    } read: { offset in
      memory.bytes[offset]
    }
  }

  @Test("ends with what was written last on a disk that is at work on many at once")
  func randomFaultsPastThePageCache() throws {
    let directory = try TemporaryDirectory()
    let file = try FileBackend(
      ByteString(directory.file("disk")), options: .direct, byteCount: 16 * 4096)
    #expect(file.directRange(of: 0..<4096) != nil)
    try endWithWhatWasWrittenLast(on: ServerUnderTest(file), blockByteCount: 4096) { _ in
    } read: { offset in
      // SAFETY: freed below; as large and aligned as the file wants it.
      let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
      defer { unsafe block.deallocate() }
      try unsafe file.read(into: block, at: UInt64(offset))
      return unsafe block[0]
    }
  }

  private func endWithWhatWasWrittenLast(
    on server: ServerUnderTest, blockByteCount: Int, delay: (Bool) -> Void,
    read: (Int) throws -> UInt8
  ) throws {
    var random = SeededGenerator(printingAs: "takeovers")
    let blockCount = 16
    var model = [UInt8](repeating: 0, count: blockCount)
    var counters = [UInt32](repeating: 0, count: blockCount)
    var generation: UInt64 = 1
    var clients: [TestClient] = []
    for slot in 0..<3 {
      clients.append(
        try server.enter(as: identity(generation, slot: UInt16(slot), .countedCookies)))
    }
    for _ in 0..<400 {
      // Each block has a tag of its own; a request is sent on several connections in turn, and
      // only the last copy's answer is waited for.
      let block = Int.random(in: 0..<blockCount, using: &random)
      let value = UInt8.random(in: 1...255, using: &random)
      let copies = Int.random(in: 1...3, using: &random)
      delay(Bool.random(using: &random))
      var last = 0
      for copy in 0..<copies {
        counters[block] += 1
        last = Int.random(in: 0..<clients.count, using: &random)
        if Int.random(in: 0..<4, using: &random) == 0 {
          generation += 1
          clients[last] = try server.enter(
            as: identity(generation, slot: UInt16(last), .countedCookies))
        }
        let isLast = copy == copies - 1
        let id = cookie(tag: UInt32(block), counters[block])
        // Older copies carry an older value, which must never be seen again.
        try clients[last].send(
          write(
            isLast ? value : value &+ 1, cookie: id, offset: UInt64(block * blockByteCount),
            count: blockByteCount))
      }
      let wanted = cookie(tag: UInt32(block), counters[block])
      while try clients[last].reply().cookie != wanted {}
      model[block] = value
    }
    delay(false)
    for client in clients {
      try client.send(Request(command: .disconnect, cookie: 0).encoded)
      _ = try client.receiveToEnd()
    }
    try server.waitForEnd()
    let found = try (0..<blockCount).map { try read($0 * blockByteCount) }
    #expect(found == model, "seed \(random.seed)")
  }
}

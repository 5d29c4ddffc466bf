// SPDX-License-Identifier: Apache-2.0
// Requests kept until they are answered, and replies taken out of a stream in any pieces.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("The ledger of requests")
struct RequestLedgerTests {
  static func ledger(_ tags: [UInt16], slots: Int = 2) -> RequestLedger {
    var ledger = RequestLedger(depth: 8, slotCount: slots)
    for tag in tags {
      ledger.accept(tag, .read, flags: [], offset: UInt64(tag) * 4096, length: 4096)
    }
    return ledger
  }

  @Test("sends in the order of arrival, and counts what is out on each connection")
  func order() {
    var ledger = Self.ledger([3, 1, 2])
    #expect(ledger.send(on: 0, at: 1)?.offset == 3 * 4096)
    #expect(ledger.send(on: 1, at: 2)?.offset == 4096)
    #expect(ledger.firstWaiting == 2)
    #expect(ledger.sentCount(on: 0) == 1)
    #expect(ledger.sentCount(on: 1) == 1)
    #expect(ledger.waitingCount == 1)
    #expect(ledger.outstandingCount == 3)
    #expect(ledger.send(on: 0, at: 3)?.offset == 2 * 4096)
    #expect(ledger.send(on: 0, at: 4) == nil)
    #expect(ledger.firstWaiting == nil)
  }

  @Test("makes cookies of the tag and of a counter that grows each time the tag is sent")
  func cookies() {
    var ledger = Self.ledger([5])
    #expect(ledger.send(on: 0, at: 1)?.cookie == 0x1_0000_0005)
    #expect(ledger.lose(slot: 0) == 1)
    #expect(ledger.send(on: 1, at: 2)?.cookie == 0x2_0000_0005)
    ledger.isSent(5)
    ledger.finish(5)
    ledger.accept(5, .flush, flags: [], offset: 0, length: 0)
    #expect(ledger.send(on: 0, at: 3)?.cookie == 0x3_0000_0005)

    var next = RequestLedger(depth: 8, slotCount: 1)
    next.resume(tag: 5, counter: ledger.counter(of: 5))
    next.accept(5, .flush, flags: [], offset: 0, length: 0)
    #expect(next.send(on: 0, at: 1)?.cookie == 0x4_0000_0005)
  }

  @Test("lets what was out on a lost connection wait again, before the rest, the oldest first")
  func loss() {
    var ledger = Self.ledger([0, 1, 2, 3, 4])
    for slot in [0, 1, 0] { _ = ledger.send(on: slot, at: UInt64(ledger.waitingCount * -1 + 9)) }
    #expect(ledger.lose(slot: 0) == 2)
    #expect(ledger.sentCount(on: 0) == 0)
    #expect(ledger.sentCount(on: 1) == 1)
    var order: [UInt16] = []
    while let tag = ledger.firstWaiting {
      order.append(tag)
      _ = ledger.send(on: 0, at: 100)
    }
    #expect(order == [0, 2, 3, 4])
    #expect(ledger.lose(slot: 1) == 1)
    #expect(ledger.outstandingCount == 5)
  }

  @Test("takes only the cookie that is out on this connection, and only after its last byte")
  func matching() throws {
    var ledger = Self.ledger([1, 2])
    let cookie = try #require(ledger.send(on: 0, at: 1)?.cookie)
    #expect(throws: ReplyViolation.answeredTooSoon(cookie)) {
      try ledger.tag(of: cookie, on: 0)
    }
    ledger.isSent(1)
    #expect(try ledger.tag(of: cookie, on: 0) == 1)
    for wrong in [cookie + 1 << 32, cookie - 1 << 32, cookie + 1, 8, 0xffff_ffff, .max] {
      #expect(throws: ReplyViolation.unknownCookie(wrong)) { try ledger.tag(of: wrong, on: 0) }
    }
    #expect(throws: ReplyViolation.unknownCookie(cookie)) { try ledger.tag(of: cookie, on: 1) }
    ledger.finish(1)
    #expect(throws: ReplyViolation.unknownCookie(cookie)) { try ledger.tag(of: cookie, on: 0) }
  }

  @Test("knows how long a connection owes an answer")
  func oldest() {
    var ledger = Self.ledger([0, 1])
    #expect(ledger.oldestNanoseconds(on: 0) == nil)
    _ = ledger.send(on: 0, at: 7)
    _ = ledger.send(on: 0, at: 9)
    #expect(ledger.oldestNanoseconds(on: 0) == 7)
    ledger.finish(0)
    #expect(ledger.oldestNanoseconds(on: 0) == 9)
  }

  @Test("gives up requests that wait, wherever they stand")
  func givingUp() {
    for tag: UInt16 in [0, 1, 2] {
      var ledger = Self.ledger([0, 1, 2])
      ledger.finish(tag)
      ledger.finish(tag)  // Once more changes nothing.
      #expect(ledger.waitingCount == 2)
      #expect(ledger.outstandingCount == 2)
      ledger.accept(tag, .read, flags: [], offset: 0, length: 1)
      var order: [UInt16] = []
      while let next = ledger.firstWaiting {
        order.append(next)
        ledger.finish(next)
      }
      #expect(order == [0, 1, 2].filter { $0 != tag } + [tag])
    }
  }

  /// A model with an array of what waits and a dictionary of what is out.
  @Test("agrees with a simple model over random steps")
  func random() {
    var generator = SeededGenerator(printingAs: "request ledger")
    var ledger = RequestLedger(depth: 8, slotCount: 3)
    var waiting: [UInt16] = []
    var out: [(tag: UInt16, slot: Int)] = []
    for step in 0..<20_000 {
      switch Int.random(in: 0..<10, using: &generator) {
      case 0..<4:
        let free = (0..<8).map(UInt16.init).filter { tag in
          !waiting.contains(tag) && !out.contains { $0.tag == tag }
        }
        guard let tag = free.randomElement(using: &generator) else { continue }
        ledger.accept(tag, .write, flags: [], offset: 0, length: 1)
        waiting.append(tag)
      case 4..<7:
        let slot = Int.random(in: 0..<3, using: &generator)
        guard let request = ledger.send(on: slot, at: UInt64(step)) else { continue }
        let tag = UInt16(truncatingIfNeeded: request.cookie)
        #expect(waiting.removeFirst() == tag)
        out.append((tag, slot))
      case 7..<9:
        guard let index = out.indices.randomElement(using: &generator) else { continue }
        ledger.finish(out.remove(at: index).tag)
      default:
        let slot = Int.random(in: 0..<3, using: &generator)
        let lost = out.filter { $0.slot == slot }.map(\.tag)
        out.removeAll { $0.slot == slot }
        waiting = lost + waiting
        #expect(ledger.lose(slot: slot) == lost.count)
      }
      #expect(ledger.firstWaiting == waiting.first)
      #expect(ledger.waitingCount == waiting.count)
      #expect(ledger.outstandingCount == waiting.count + out.count)
      for slot in 0..<3 {
        #expect(ledger.sentCount(on: slot) == out.filter { $0.slot == slot }.count)
      }
    }
  }
}

@Suite("The reader of replies")
struct ReplyReaderTests {
  /// Tags 0 to 3 out on connection 0: a read of 5, a write, a read of 3, a flush.
  static func ledger() -> RequestLedger {
    var ledger = RequestLedger(depth: 4, slotCount: 2)
    ledger.accept(0, .read, flags: [], offset: 0, length: 5)
    ledger.accept(1, .write, flags: [], offset: 0, length: 512)
    ledger.accept(2, .read, flags: [], offset: 0, length: 3)
    ledger.accept(3, .flush, flags: [], offset: 0, length: 0)
    for tag: UInt16 in 0..<4 {
      _ = ledger.send(on: 0, at: 1)
      ledger.isSent(tag)
    }
    return ledger
  }

  static func header(_ tag: UInt64, error: UInt32 = 0) -> [UInt8] {
    SimpleReply(error: ErrorNumber(rawValue: error), cookie: 1 << 32 | tag).encoded
  }

  static let stream =
    header(2) + [7, 8, 9] + header(1) + header(0, error: 5) + header(3, error: 28)

  /// What a stream given in these pieces says: the data of each read, and how each request ended.
  static func read(_ pieces: [[UInt8]]) throws(ReplyViolation) -> [String] {
    var ledger = Self.ledger()
    var reader = ReplyReader()
    var data: [UInt16: [UInt8]] = [:]
    var ends: [String] = []
    for piece in pieces {
      var position = 0
      while let event = try reader.next(piece.span, at: &position, in: ledger, slot: 0) {
        switch event {
        case .data(let tag, let offset, let range):
          #expect(Int(offset) == data[tag, default: []].count)
          data[tag, default: []] += piece[range]
        case .finished(let tag, let error):
          ledger.finish(tag)
          ends.append("\(tag) \(error.rawValue) \(data[tag] ?? [])")
        }
      }
      #expect(position == piece.count)
    }
    #expect(reader.isBetweenReplies)
    return ends
  }

  @Test("has data received so that they begin on a page, wherever the stream was cut")
  func place() throws {
    let ledger = Self.ledger()
    let reply = Self.header(0) + [1, 2, 3, 4, 5]
    for cut in 0...(reply.count - 1) {
      var reader = ReplyReader()
      var position = 0
      let start = Array(reply.prefix(cut))
      while try reader.next(start.span, at: &position, in: ledger, slot: 0) != nil {}
      let place = reader.placeInPage(of: 4096)
      #expect(place == (cut < 16 ? 4080 + cut : cut - 16), "\(cut)")
    }
  }

  @Test("says the same however the stream is cut")
  func cuts() throws {
    let whole = ["2 0 [7, 8, 9]", "1 0 []", "0 5 []", "3 28 []"]
    #expect(try Self.read([Self.stream]) == whole)
    #expect(try Self.read(Self.stream.map { [$0] }) == whole)
    for first in 0...Self.stream.count {
      let pieces = [Array(Self.stream[..<first]), Array(Self.stream[first...])]
      #expect(try Self.read(pieces) == whole)
    }
  }

  @Test("refuses a wrong magic, a cookie that is not out, and an answer that comes twice")
  func violations() {
    var bad = Self.stream
    bad[0] ^= 1
    #expect(throws: ReplyViolation.magic(0x6644_6698)) { try Self.read([bad]) }
    #expect(throws: ReplyViolation.unknownCookie(1 << 32 | 9)) { try Self.read([Self.header(9)]) }
    #expect(throws: ReplyViolation.unknownCookie(1 << 32 | 1)) {
      try Self.read([Self.header(1) + Self.header(1)])
    }
  }

  @Test("meets any bytes without a trap")
  func random() {
    var generator = SeededGenerator(printingAs: "reply reader")
    for _ in 0..<2000 {
      var bytes = Self.stream
      for _ in 0..<3 {
        bytes[Int.random(in: bytes.indices, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      var ledger = Self.ledger()
      var reader = ReplyReader()
      var position = 0
      do {
        while let event = try reader.next(bytes.span, at: &position, in: ledger, slot: 0) {
          if case .finished(let tag, _) = event { ledger.finish(tag) }
        }
      } catch {}
      #expect(position <= bytes.count)
    }
  }
}

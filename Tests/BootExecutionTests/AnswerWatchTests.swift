// SPDX-License-Identifier: Apache-2.0
// Whether a server owes an answer, from what passed on its connection.

import LinuxSystem
import TestSupport
import Testing

@testable import BootExecution

@Suite("A watch over a server's answers")
struct AnswerWatchTests {
  /// Bytes on the wire of one request and of its reply.
  enum Command: CaseIterable {
    case read, write, flush, discard
    func request(_ blocks: UInt64) -> UInt64 { 28 + (self == .write ? blocks * 512 : 0) }
    func reply(_ blocks: UInt64) -> UInt64 { 16 + (self == .read ? blocks * 512 : 0) }
  }

  @Test("knows from the bytes how many requests were not answered, modulo 32")
  func bytes() {
    var generator = SeededGenerator(printingAs: "answer watch")
    for _ in 0..<2000 {
      var sent: UInt64 = 0
      var received: UInt64 = 0
      let outCount = Int.random(in: 0..<130, using: &generator)
      for number in 0..<(outCount + Int.random(in: 0..<200, using: &generator)) {
        let command = Command.allCases.randomElement(using: &generator)!
        let blocks = UInt64.random(in: 1...2048, using: &generator)
        sent += command.request(blocks)
        if number >= outCount { received += command.reply(blocks) }
      }
      #expect(
        AnswerWatch.isEven(sent: sent, received: received) == (outCount % 32 == 0),
        "\(outCount) out, \(sent) sent, \(received) received")
    }
  }

  @Test("takes a request or a reply that is cut for one that is out", arguments: [1, 15, 17, 27])
  func cut(byteCount: UInt64) {
    #expect(!AnswerWatch.isEven(sent: 28 + byteCount, received: 16))
    #expect(!AnswerWatch.isEven(sent: 28, received: byteCount))
  }

  static func counts(
    sent: UInt64?, received: UInt64?, out: UInt64 = 0, done: UInt64 = 0
  ) -> AnswerCounts {
    var counts = AnswerCounts()
    counts.acknowledgedByteCount = sent
    counts.receivedByteCount = received
    counts.disk.outCount = out
    counts.disk.doneCount = done
    return counts
  }

  static func at(_ seconds: Double) -> MonotonicTime {
    MonotonicTime(nanoseconds: UInt64(seconds * 1_000_000_000))
  }

  static let flushIsOut = counts(sent: 1028, received: 500)
  static let readsAreOut = counts(sent: 1000 + 28 * 32, received: 500, out: 32)

  static let stories: [(String, [(seconds: Double, AnswerCounts, isSilent: Bool)])] = [
    ("nothing is out", [(0, counts(sent: 1000, received: 500), false)]),
    (
      "a flush is out, and only the bytes tell",
      [(1, flushIsOut, false), (10.9, flushIsOut, false), (11, flushIsOut, true)]
    ),
    (
      "32 reads are out, and only the disk tells",
      [(1, readsAreOut, false), (10.9, readsAreOut, false), (11, readsAreOut, true)]
    ),
    (
      "something comes meanwhile",
      [
        (1, readsAreOut, false),
        (10, counts(sent: 2000, received: 501, out: 32), false),
        (19, counts(sent: 2000, received: 501, out: 32), false),
        (20, counts(sent: 2000, received: 501, out: 32), true),
      ]
    ),
    (
      "requests go out and none is answered",
      [
        (1, readsAreOut, false),
        (6, counts(sent: 9000, received: 500, out: 64), false),
        (11, counts(sent: 12_000, received: 500, out: 128), true),
      ]
    ),
    (
      "the answer comes in the last moment",
      [
        (1, flushIsOut, false), (10, counts(sent: 1028, received: 516), false),
        (30, counts(sent: 1028, received: 516), false),
      ]
    ),
    (
      "it is no TCP connection: what the disk has done counts",
      [
        (1, counts(sent: nil, received: nil, out: 2, done: 7), false),
        (10, counts(sent: nil, received: nil, out: 2, done: 8), false),
        (19, counts(sent: nil, received: nil, out: 2, done: 8), false),
        (20, counts(sent: nil, received: nil, out: 2, done: 8), true),
      ]
    ),
  ]

  @Test("calls a server silent that owed an answer for the whole of the limit", arguments: stories)
  func story(name: String, looks: [(seconds: Double, AnswerCounts, isSilent: Bool)]) {
    var watch = AnswerWatch(limitMilliseconds: 10_000)
    watch.begin(Self.counts(sent: 1000, received: 500))
    for look in looks {
      let isSilent = watch.look(look.1, at: Self.at(look.seconds))
      #expect(isSilent == look.isSilent, "\(name): at \(look.seconds) s")
    }
  }

  @Test(
    "waits twice as long after each silence, eight times at most, and forgets it with an answer")
  func patience() {
    var watch = AnswerWatch(limitMilliseconds: 10_000)
    var now = 0.0
    func looks(_ counts: AnswerCounts, at seconds: Double) -> Bool {
      watch.look(counts, at: Self.at(seconds))
    }
    for limit in [10.0, 20, 40, 80, 80] {
      watch.begin(Self.counts(sent: 1000, received: 500))
      #expect(looks(Self.flushIsOut, at: now) == false)
      #expect(looks(Self.flushIsOut, at: now + limit - 0.1) == false)
      #expect(looks(Self.flushIsOut, at: now + limit))
      watch.growPatient()
      now += limit
    }
    watch.begin(Self.counts(sent: 1000, received: 500))
    #expect(looks(Self.counts(sent: 1056, received: 516), at: now) == false)
    #expect(looks(Self.counts(sent: 1056, received: 516), at: now + 10))
  }

  /// Source: Linux `Documentation/block/stat.rst`; the second line is of Linux 4.17.
  @Test(
    "reads what the disk has done and what is out",
    arguments: [
      (
        "     100        0     8000       40      200       10    16000       90        3  "
          + "    1000     1200       30        0      400        5        7        2\n",
        done: UInt64(100 + 200 + 30 + 7), out: UInt64(3)
      ),
      ("1 2 3 4 5 6 7 8 9 10 11", 6, 9), ("", 0, 0), ("x", 0, 0),
      ("18446744073709551615 0 0 0 2 0 0 0 99999999999999999999999\n", 1, .max),
    ])
  func disk(text: String, done: UInt64, out: UInt64) {
    let counts = DiskCounts(decoding: Array(text.utf8).span)
    #expect(counts.doneCount == done)
    if out != .max { #expect(counts.outCount == out) }
  }
}

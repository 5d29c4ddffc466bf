// SPDX-License-Identifier: Apache-2.0
// The handshake of a reconnection: the same conversations as the first one, without a heap.

import TestSupport
import Testing
import WireFormat

@testable import NBDProtocol

@Suite("The handshake of a reconnection")
struct ExportReentryTests {
  static let greeting = ServerGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded

  static func reply(
    _ type: OptionReplyType, _ data: [UInt8] = [], to option: OptionCode = .go
  ) -> [UInt8] {
    OptionReplyHeader(option: option, type: type, dataByteCount: UInt32(data.count)).encoded + data
  }
  static let export = reply(
    .info, InformationItem.export(byteCount: 1 << 20, flags: [.hasFlags, .sendFlush]).encoded)
  static let sizes = reply(
    .info,
    InformationItem.blockSize(
      BlockSizes(minimum: 512, preferred: 4096, maximumPayload: 1 << 25)
    ).encoded)
  static let taken = reply(.ack, to: .session)
  static let unknownOption = reply(.errUnsup, Array("what?".utf8), to: .session)

  struct Outcome: Equatable {
    var export: ReenteredExport?
    var error: ReentryError?
    var answers: [ExportReentry.Answer] = []
  }

  /// Feeds the server's bytes; an end before the handshake's is nil and no error.
  static func run(_ bytes: [UInt8], hasIdentity: Bool = true) -> Outcome {
    let identity = SessionIdentity(token: SessionToken(high: 1, low: 2), generation: 0)
    var entry = ExportReentry(name: "root", identity: hasIdentity ? identity : nil)
    entry.restart(generation: 7)
    var outcome = Outcome()
    var offset = 0
    while !entry.isFinished {
      let needed = entry.neededByteCount
      guard needed <= bytes.count - offset else { return outcome }
      do throws(ReentryError) {
        let answer = try entry.receive(bytes.span.extracting(offset..<(offset + needed)))
        if answer != .nothing { outcome.answers.append(answer) }
      } catch {
        outcome.error = error
        return outcome
      }
      offset += needed
    }
    outcome.export = entry.export
    return outcome
  }

  @Test("reaches the export of a server that knows the session, and of one that does not")
  func reaches() {
    for first in [Self.taken, Self.unknownOption] {
      let outcome = Self.run(
        Self.greeting + first + Self.export + Self.sizes + Self.reply(.ack))
      #expect(outcome.export?.byteCount == 1 << 20)
      #expect(outcome.export?.flags == [.hasFlags, .sendFlush])
      #expect(outcome.export?.blockSizes?.minimum == 512)
      #expect(outcome.answers == [.opening])
    }
  }

  @Test("asks in the old way where the server knows no other")
  func oldWay() {
    let answer = ExportNameAnswer(exportByteCount: 4096, flags: [.hasFlags]).encoded
    let outcome = Self.run(
      Self.greeting + Self.reply(.errUnsup, Array("no".utf8)) + answer, hasIdentity: false)
    #expect(outcome.export?.byteCount == 4096)
    #expect(outcome.answers == [.opening, .exportName])
  }

  static let refusals: [(ReentryError, [UInt8])] = [
    (.notAnNBDServer, Array("HTTP/1.1 400 Bad Request\r\n".utf8)),
    (.unknownExport, greeting + taken + reply(.errUnknown, Array("none".utf8))),
    (.tlsRequired, greeting + taken + reply(.errTLSRequired)),
    (.sessionRefused, greeting + reply(.errInvalid, to: .session)),
    (.refused, greeting + taken + reply(.errPolicy)),
    (.violation, greeting + taken + reply(.ack)),
    (.violation, greeting + taken + reply(.ack, to: .list)),
    (
      .invalidBlockSizes,
      greeting + taken
        + reply(
          .info,
          InformationItem.blockSize(
            BlockSizes(minimum: 3, preferred: 1, maximumPayload: 0)
          ).encoded)
    ),
    (.violation, greeting + taken + (0..<40).flatMap { _ in export }),
  ]

  @Test("ends with the reason", arguments: refusals.indices)
  func refused(index: Int) {
    let (error, bytes) = Self.refusals[index]
    #expect(Self.run(bytes).error == error)
  }

  @Test("passes over information that it does not want, however long")
  func longInformation() {
    let long = Self.reply(.info, [0, 2] + [UInt8](repeating: 0x41, count: 4096))
    let outcome = Self.run(Self.greeting + Self.taken + long + Self.export + Self.reply(.ack))
    #expect(outcome.export?.byteCount == 1 << 20)
  }

  @Test("carries the generation of each attempt, in the place where a server looks for it")
  func generation() throws {
    let identity = SessionIdentity(
      token: SessionToken(high: 1, low: 2), generation: 0, slot: 3, flags: .resume)
    var entry = ExportReentry(name: "root", identity: identity)
    entry.restart(generation: 0x1122_3344_5566_7788)
    let start = ClientFlags.byteCount + OptionHeader.byteCount
    let decoded = try SessionIdentity(
      decoding: entry.opening.span.extracting(start..<(start + SessionIdentity.byteCount)))
    #expect(decoded.generation == 0x1122_3344_5566_7788)
    #expect(decoded.slot == 3)
  }

  @Test("cut anywhere or mutated never traps")
  func mutated() {
    var generator = SeededGenerator(printingAs: "reentry")
    let whole = Self.greeting + Self.taken + Self.export + Self.sizes + Self.reply(.ack)
    for count in 0..<whole.count { #expect(Self.run(Array(whole.prefix(count))).export == nil) }
    for _ in 0..<20_000 {
      var bytes = whole + whole
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(
          in: 0...255, using: &generator)
      }
      _ = Self.run(bytes)
    }
  }
}

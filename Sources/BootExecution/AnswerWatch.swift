// SPDX-License-Identifier: Apache-2.0
// Whether a server owes answers on the one connection of a device. TCP cannot tell: the machine of
// a server that was stopped, or that lost a request, goes on acknowledging what it is sent.
//
// Two witnesses, neither of which costs more than a system call a look:
//
//   bytes of the socket   A request has 28 bytes and a multiple of 512, a reply 16 and a multiple
//                         of 512, so that the bytes each way, modulo 512, tell how many of them
//                         there were, modulo 32. Flushes are among them.
//   statistics of the disk How many reads and writes are out; not flushes.
//
// Nothing received for the whole of the limit while an answer was owed is a silence. Reads no
// clock and no file: a test runs an hour at once.

import CLinux
import LinuxSystem
import WireFormat

/// What was counted at one moment.
struct AnswerCounts: Equatable, Sendable {
  /// Of the kernel's socket, since it was connected; nil where it is not TCP or not at hand.
  var acknowledgedByteCount: UInt64?
  var receivedByteCount: UInt64?
  var disk = DiskCounts()

  init() {}
  init(ofSocket descriptor: CInt) {
    var acknowledged: UInt64 = 0
    var received: UInt64 = 0
    // SAFETY: two integers of ours, which the call fills.
    guard unsafe clinux_tcp_byte_counts(descriptor, &acknowledged, &received) == 0 else { return }
    acknowledgedByteCount = acknowledged
    receivedByteCount = received
  }
}

/// What /sys/block/NAME/stat says.
struct DiskCounts: Equatable, Sendable {
  /// Reads, writes, discards and flushes that are done.
  var doneCount: UInt64 = 0
  /// Reads, writes and discards that are not.
  var outCount: UInt64 = 0

  init() {}

  /// Fields that are missing are zero: older kernels have fewer.
  /// Source: Linux `Documentation/block/stat.rst`.
  init(decoding text: Span<UInt8>) {
    var field = 0
    var value: UInt64 = 0
    var isInside = false
    for position in 0...text.count {
      let byte = position < text.count ? text[position] : 0x20
      if byte >= 0x30, byte <= 0x39 {
        value = value &* 10 &+ UInt64(byte - 0x30)
        isInside = true
      } else if isInside {
        switch field {
        case 0, 4, 11, 15: doneCount &+= value
        case 8: outCount = value
        default: break
        }
        field += 1
        value = 0
        isInside = false
      }
    }
  }
}

struct AnswerWatch: Sendable {
  /// A server that needs long gets long: the limit doubles with each silence that no answer
  /// followed, up to so many times.
  static let factorMaximum: UInt64 = 8

  let limitMilliseconds: UInt64
  private(set) var factor: UInt64 = 1
  /// When the socket was handed over, with nothing out.
  private var base = AnswerCounts()
  private var last = AnswerCounts()
  /// Since when an answer is owed and nothing was received.
  private(set) var owedSince: MonotonicTime?

  init(limitMilliseconds: UInt64) { self.limitMilliseconds = limitMilliseconds }

  /// A silence is noticed at most a quarter of the limit late.
  var lookMilliseconds: UInt64 { min(max(limitMilliseconds / 4, 250), 2500) }

  /// Another socket carries the data.
  mutating func begin(_ counts: AnswerCounts) {
    base = counts
    last = counts
    owedSince = nil
  }

  /// True while the silence lasts longer than the limit.
  mutating func look(_ counts: AnswerCounts, at now: MonotonicTime) -> Bool {
    let isHeard =
      counts.receivedByteCount != nil
      ? counts.receivedByteCount != last.receivedByteCount
      : counts.disk.doneCount != last.disk.doneCount
    last = counts
    if isHeard { factor = 1 }
    guard isOwed(counts) else {
      owedSince = nil
      return false
    }
    if isHeard { owedSince = nil }
    guard let since = owedSince else {
      owedSince = now
      return false
    }
    return now.milliseconds(since: since) >= limitMilliseconds * factor
  }

  /// The server was asked over another connection, which takes over.
  mutating func growPatient() { factor = min(factor * 2, Self.factorMaximum) }

  private func isOwed(_ counts: AnswerCounts) -> Bool {
    if counts.disk.outCount > 0 { return true }
    guard let acknowledged = counts.acknowledgedByteCount, let received = counts.receivedByteCount,
      let firstAcknowledged = base.acknowledgedByteCount, let firstReceived = base.receivedByteCount
    else { return false }
    return !Self.isEven(
      sent: acknowledged &- firstAcknowledged, received: received &- firstReceived)
  }

  /// Whether as many replies came as requests went, modulo 32. Sizes: NBD `doc/proto.md`, "Request
  /// message" and "Simple reply message"; the device's blocks are at least 512 bytes.
  static func isEven(sent: UInt64, received: UInt64) -> Bool {
    guard sent % 4 == 0, received % 16 == 0 else { return false }
    // 28 n = sent, modulo 512: n = sent/4 times the inverse of 7, modulo 128. 7 x 55 = 3 x 128 + 1.
    let requests = sent % 512 / 4 * 55 % 32
    let replies = received % 512 / 16
    return requests == replies
  }
}

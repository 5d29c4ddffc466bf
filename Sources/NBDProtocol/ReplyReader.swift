// SPDX-License-Identifier: Apache-2.0
// Simple replies as they come out of a stream, in any pieces. Of the stream nothing is kept but
// the beginning of a header: data of a READ are handed on as they come.

import WireFormat

/// What the next bytes of a stream were.
public enum ReplyEvent: Equatable, Sendable {
  /// Bytes `range` of what was given are data of the request, from `offset` in it.
  case data(tag: UInt16, offset: UInt32, range: Range<Int>)
  /// The answer is complete: an error, a command without data, or the data's last byte came before.
  case finished(tag: UInt16, error: ErrorNumber)
}

/// Reads the replies of one connection: see the head of this file. A new connection needs a new
/// reader, for half a reply may be left in the old one.
public struct ReplyReader: Sendable {
  private enum State: Equatable {
    case header
    case data(tag: UInt16, done: UInt32, length: UInt32)
  }
  private var state = State.header
  // The beginning of a header that ended with what was given.
  private var partial: (high: UInt64, low: UInt64) = (0, 0)
  private var partialCount = 0

  /// For a stream whose next byte is the first of a reply.
  public init() {}

  /// How far into a page to receive what comes next, so that a reply's data begin on one.
  /// `pageByteCount`: more than a header has.
  public func placeInPage(of pageByteCount: Int) -> Int {
    switch state {
    case .header: pageByteCount &- (SimpleReply.byteCount &- partialCount)
    case .data(_, let done, _): Int(done) % pageByteCount
    }
  }

  /// Whether the stream may end here.
  public var isBetweenReplies: Bool { state == .header && partialCount == 0 }

  /// The next event in `bytes` from `position`, which moves on; nil when all has been taken.
  /// A finished request is still in the ledger.
  public mutating func next(
    _ bytes: Span<UInt8>, at position: inout Int, in ledger: RequestLedger, slot: Int
  ) throws(ReplyViolation) -> ReplyEvent? {
    switch state {
    case .header:
      while partialCount < SimpleReply.byteCount {
        guard position < bytes.count else { return nil }
        let byte = UInt64(bytes[position])
        if partialCount < 8 {
          partial.high = partial.high << 8 | byte
        } else {
          partial.low = partial.low << 8 | byte
        }
        partialCount &+= 1
        position &+= 1
      }
      partialCount = 0
      let magic = UInt32(truncatingIfNeeded: partial.high >> 32)
      guard magic == SimpleReply.magic else { throw .magic(magic) }
      let error = ErrorNumber(rawValue: UInt32(truncatingIfNeeded: partial.high))
      let tag = try ledger.tag(of: partial.low, on: slot)
      let length = ledger.length(of: tag)
      guard error == .none, ledger.command(of: tag) == .read, length > 0 else {
        return .finished(tag: tag, error: error)
      }
      state = .data(tag: tag, done: 0, length: length)
      return try next(bytes, at: &position, in: ledger, slot: slot)
    case .data(let tag, let done, let length):
      if done == length {
        state = .header
        return .finished(tag: tag, error: .none)
      }
      let count = min(Int(length &- done), bytes.count &- position)
      guard count > 0 else { return nil }
      let start = position
      position &+= count
      state = .data(tag: tag, done: done &+ UInt32(truncatingIfNeeded: count), length: length)
      return .data(tag: tag, offset: done, range: start..<position)
    }
  }
}

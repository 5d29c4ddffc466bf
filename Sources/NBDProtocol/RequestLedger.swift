// SPDX-License-Identifier: Apache-2.0
// Which request of a device is where: a client that carries data itself keeps every request until
// it is answered, and sends it again when the connection that it went out on is lost.
//
//               accept               send               answered
//        free ─────────► waiting ───────────► sent ───────────────► free
//                           ▲                   │ lose(slot): to the front, in order
//                           └───────────────────┘
//
// A tag is the device's number for a request, a slot one of the attachment's connections. Nothing
// here allocates once it is made, and nothing touches a descriptor or a clock.

/// Why a reply is none: the stream is of no more use.
public enum ReplyViolation: Error, Equatable, Sendable {
  /// Where a reply had to begin.
  case magic(UInt32)
  /// No request that is out on this connection has it.
  case unknownCookie(UInt64)
  /// The request that it answers has not been sent to its end.
  case answeredTooSoon(UInt64)
}

/// All requests of one device over all of its connections: see the head of this file.
public struct RequestLedger: Sendable {
  private enum Place: Equatable { case free, waiting, sending, sent }
  private struct Entry {
    var place = Place.free
    var slot: UInt8 = 0
    var command = CommandCode.read
    var flags: CommandFlags = []
    var offset: UInt64 = 0
    var length: UInt32 = 0
    var sentNanoseconds: UInt64 = 0
    /// How often this tag was sent, by any request.
    var counter: UInt32 = 0
    /// In the list of those that wait; `none` at its end.
    var next: UInt16 = RequestLedger.none
  }
  private static let none = UInt16.max

  private var entries: [Entry]
  private var first = none
  private var last = none
  private var sentCounts: [UInt16]
  /// Accepted or lost with their connection, and not taken by `send` again.
  public private(set) var waitingCount = 0
  /// Waiting and sent.
  public private(set) var outstandingCount = 0

  /// `depth`: tags are below it, at most 4096. `slotCount`: at most 16.
  public init(depth: UInt16, slotCount: Int) {
    precondition(depth <= 4096 && slotCount <= 16, "a ledger has room for these")
    entries = [Entry](repeating: Entry(), count: Int(depth))
    sentCounts = [UInt16](repeating: 0, count: slotCount)
  }

  /// Goes on where another process left off: its counter for a tag.
  public mutating func resume(tag: UInt16, counter: UInt32) {
    entries[Int(tag)].counter = counter
  }
  /// How often the tag was sent in the life of the attachment, for the process that takes over.
  public func counter(of tag: UInt16) -> UInt32 { entries[Int(tag)].counter }

  /// A request of the device. The tag must be free: the device uses a tag once at a time.
  public mutating func accept(
    _ tag: UInt16, _ command: CommandCode, flags: CommandFlags, offset: UInt64, length: UInt32
  ) {
    let index = Int(tag)
    precondition(entries[index].place == .free, "a device uses a tag once at a time")
    entries[index].place = .waiting
    entries[index].command = command
    entries[index].flags = flags
    entries[index].offset = offset
    entries[index].length = length
    entries[index].next = Self.none
    if last == Self.none { first = tag } else { entries[Int(last)].next = tag }
    last = tag
    waitingCount &+= 1
    outstandingCount &+= 1
  }

  /// The request that has waited longest.
  public var firstWaiting: UInt16? { first == Self.none ? nil : first }

  /// How many requests are out on a connection.
  public func sentCount(on slot: Int) -> Int { Int(sentCounts[slot]) }

  /// In bytes, of the request that the tag was last accepted for.
  public func length(of tag: UInt16) -> UInt32 { entries[Int(tag)].length }
  /// Of the request that the tag was last accepted for.
  public func command(of tag: UInt16) -> CommandCode { entries[Int(tag)].command }

  /// Takes the first of those that wait, for the connection `slot`. What to send: the low 32 bits
  /// of the cookie are the tag, the high ones a counter that grows each time the tag is sent.
  public mutating func send(on slot: Int, at nanoseconds: UInt64) -> Request? {
    guard first != Self.none else { return nil }
    let tag = first
    let index = Int(tag)
    first = entries[index].next
    if first == Self.none { last = Self.none }
    waitingCount &-= 1
    entries[index].place = .sending
    entries[index].slot = UInt8(truncatingIfNeeded: slot)
    entries[index].sentNanoseconds = nanoseconds
    entries[index].counter &+= 1
    sentCounts[slot] &+= 1
    return Request(
      flags: entries[index].flags, command: entries[index].command, cookie: cookie(of: tag),
      offset: entries[index].offset, length: entries[index].length)
  }

  /// Its last byte is on its way: an answer may come.
  public mutating func isSent(_ tag: UInt16) { entries[Int(tag)].place = .sent }

  private func cookie(of tag: UInt16) -> UInt64 {
    UInt64(entries[Int(tag)].counter) << 32 | UInt64(tag)
  }

  /// The tag that a reply on `slot` is for.
  public func tag(of cookie: UInt64, on slot: Int) throws(ReplyViolation) -> UInt16 {
    let low = cookie & 0xffff_ffff
    guard low < UInt64(entries.count) else { throw .unknownCookie(cookie) }
    let tag = UInt16(truncatingIfNeeded: low)
    let index = Int(tag)
    guard entries[index].slot == slot, self.cookie(of: tag) == cookie else {
      throw .unknownCookie(cookie)
    }
    switch entries[index].place {
    case .sent: return tag
    case .sending: throw .answeredTooSoon(cookie)
    case .free, .waiting: throw .unknownCookie(cookie)
    }
  }

  /// The request is over, or was given up while it waited.
  public mutating func finish(_ tag: UInt16) {
    let index = Int(tag)
    switch entries[index].place {
    case .sent, .sending: sentCounts[Int(entries[index].slot)] &-= 1
    case .waiting: remove(tag)
    case .free: return
    }
    entries[index].place = .free
    outstandingCount &-= 1
  }

  private mutating func remove(_ tag: UInt16) {
    var before = Self.none
    var at = first
    while at != Self.none, at != tag {
      before = at
      at = entries[Int(at)].next
    }
    guard at == tag else { return }
    let after = entries[Int(tag)].next
    if before == Self.none { first = after } else { entries[Int(before)].next = after }
    if last == tag { last = before }
    waitingCount &-= 1
  }

  /// The connection is lost: what was out on it waits again, before what has waited until now, the
  /// oldest first. How many those are.
  public mutating func lose(slot: Int) -> Int {
    var count = 0
    // From the youngest to the oldest, each put in front. Losses are rare and tags are few.
    while true {
      var youngest = Self.none
      var time: UInt64 = 0
      for index in entries.indices
      where entries[index].slot == slot
        && (entries[index].place == .sent || entries[index].place == .sending)
        && (youngest == Self.none || entries[index].sentNanoseconds >= time)
      {
        youngest = UInt16(truncatingIfNeeded: index)
        time = entries[index].sentNanoseconds
      }
      guard youngest != Self.none else { return count }
      entries[Int(youngest)].place = .waiting
      entries[Int(youngest)].next = first
      first = youngest
      if last == Self.none { last = youngest }
      waitingCount &+= 1
      sentCounts[slot] &-= 1
      count &+= 1
    }
  }

  /// When the request was sent that has been out longest on `slot`; nil when none is.
  public func oldestNanoseconds(on slot: Int) -> UInt64? {
    guard sentCounts[slot] > 0 else { return nil }
    var oldest: UInt64?
    for entry in entries
    where entry.slot == slot && (entry.place == .sent || entry.place == .sending) {
      oldest = min(oldest ?? .max, entry.sentNanoseconds)
    }
    return oldest
  }
}

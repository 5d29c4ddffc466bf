// SPDX-License-Identifier: Apache-2.0
// The one option of our own: which attachment a connection belongs to.
//
// A client that reconnects tells the server so; the server then ends the connection that this one
// replaces before it lets the new one do anything. Other servers answer ERR_UNSUP and are used
// without. Option numbers are not assigned by anybody; 0x726c6b is "rlk".

import WireFormat

/// One attached device: all connections and reconnections of it carry the same token. Random, so
/// that no two machines have the same.
public struct SessionToken: Hashable, Sendable {
  /// The first eight bytes on the wire.
  public var high: UInt64
  /// The last eight.
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
}

/// What a client promises, or asks for, with its identity. A bit without a name is refused: a
/// server that ignored it would break the promise unseen.
public struct SessionFlags: OptionSet, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// This attachment was connected before, and what it wrote must be there.
  public static let resume = SessionFlags(rawValue: 1 << 0)
  /// Of a request's cookie the low 32 bits are a tag that one request uses at a time, the high 32
  /// bits a counter that grows each time this tag is sent again. It grows over the whole life of
  /// the attachment: a process that takes it up goes on where the last one was, for a request with
  /// a smaller counter is forgotten without an answer. Tags from 4096 on are in no order. Not to be
  /// said of requests of the kernel's nbd driver: they look alike, but a flush borrows the tag of
  /// another request, and an I/O scheduler deals the tags out anew.
  public static let countedCookies = SessionFlags(rawValue: 1 << 1)

  static let known: SessionFlags = [.resume, .countedCookies]
}

/// All big-endian: u64 token high, u64 token low, u64 generation, u16 slot, u16 flags. Sent after
/// the client flags and before GO or EXPORT_NAME; answered ACK or with an error.
public struct SessionIdentity: Equatable, Sendable, WireEncodable {
  /// Of the option's data.
  public static let byteCount = 28
  /// Slots are 0 to 15.
  public static let slotCount: UInt16 = 16

  /// The same for all connections of the attachment.
  public var token: SessionToken
  /// Of two connections with one token and one slot the larger is the newer: nanoseconds of the
  /// client's CLOCK_BOOTTIME.
  public var generation: UInt64
  /// Which of the attachment's connections this is, below `slotCount`.
  public var slot: UInt16
  /// Of this connection.
  public var flags: SessionFlags

  public init(
    token: SessionToken, generation: UInt64, slot: UInt16 = 0, flags: SessionFlags = []
  ) {
    self.token = token
    self.generation = generation
    self.slot = slot
    self.flags = flags
  }

  /// Takes all of the option's data; refuses a slot that is none and flags that have no name.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    token = SessionToken(
      high: bytes.bigEndian(UInt64.self, at: 0), low: bytes.bigEndian(UInt64.self, at: 8))
    generation = bytes.bigEndian(UInt64.self, at: 16)
    slot = bytes.bigEndian(UInt16.self, at: 24)
    flags = SessionFlags(rawValue: bytes.bigEndian(UInt16.self, at: 26))
    guard slot < Self.slotCount else {
      throw .limit(field: "slot", maximum: UInt64(Self.slotCount) - 1, actual: UInt64(slot))
    }
    guard flags.isSubset(of: .known) else {
      throw .value(field: "session flags", actual: UInt64(flags.rawValue))
    }
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: token.high)
    output.append(bigEndian: token.low)
    output.append(bigEndian: generation)
    output.append(bigEndian: slot)
    output.append(bigEndian: flags.rawValue)
  }
}

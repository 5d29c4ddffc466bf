// SPDX-License-Identifier: Apache-2.0
// What a server says with every connection that it accepts or rejects: the private data of its
// reply. Sizes and depth count on connection 0 only.

public import WireFormat

/// What a server does with its chunks. Source: `enum rtrs_msg_flags`.
public struct ServerFlags: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Each answer carries a new key of its chunk (NEW_RKEY); the old one is of no more use.
  public static let refreshesKeys = ServerFlags(rawValue: 1 << 1)
}

/// Source: `struct rtrs_msg_conn_rsp`.
public struct ConnectionAnswer: Equatable, Sendable, WireEncodable {
  /// Without what the connection manager puts around it.
  public static let byteCount = 56

  /// `success` in an acceptance.
  public var error: PeerErrno
  /// Chunks of the session, and so requests that it has in flight.
  public var queueDepth: UInt16
  /// The largest data part of a request, in bytes.
  public var dataByteCountMaximum: UInt32
  /// Room for what follows the data: the user's message and that of RTRS.
  public var headerByteCountMaximum: UInt32
  /// Of all chunks of the session.
  public var flags: ServerFlags

  /// `flags` of the server, whatever the connection.
  public init(accepting geometry: ChunkGeometry, flags: ServerFlags) {
    error = .success
    queueDepth = geometry.queueDepth
    dataByteCountMaximum = geometry.dataByteCountMaximum
    headerByteCountMaximum = geometry.headerByteCountMaximum
    self.flags = flags
  }

  /// `error` is told as its negated number; all other fields are 0.
  public init(rejecting error: PeerErrno) {
    self.error = error
    queueDepth = 0
    dataByteCountMaximum = 0
    headerByteCountMaximum = 0
    flags = []
  }

  /// `bytes` is longer on the way: 196 in an acceptance, 148 in a rejection.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    try checkGreeting(magic: bytes.littleEndian(UInt16.self, at: 0), version: bytes, at: 2)
    // Negated, in 16 bits with a sign. Linux compares an acceptance's with 0 only.
    error = PeerErrno(
      rawValue: UInt16(
        truncatingIfNeeded: Int16(bitPattern: bytes.littleEndian(UInt16.self, at: 4)).magnitude))
    queueDepth = bytes.littleEndian(UInt16.self, at: 6)
    dataByteCountMaximum = bytes.littleEndian(UInt32.self, at: 8)
    headerByteCountMaximum = bytes.littleEndian(UInt32.self, at: 12)
    flags = ServerFlags(rawValue: bytes.littleEndian(UInt32.self, at: 16))
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: RTRS.magic)
    output.append(littleEndian: RTRS.version)
    output.append(littleEndian: 0 &- error.rawValue)
    output.append(littleEndian: queueDepth)
    output.append(littleEndian: dataByteCountMaximum)
    output.append(littleEndian: headerByteCountMaximum)
    output.append(littleEndian: flags.rawValue)
    output.append(zeroes: 36)
  }
}

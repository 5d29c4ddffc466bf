// SPDX-License-Identifier: Apache-2.0
// What a client says of itself with every connection: the private data of its connect request.

public import WireFormat

/// Source: `struct rtrs_msg_conn_req`.
public struct ConnectionRequest: Equatable, Sendable, WireEncodable {
  /// With the connection manager's own 36 bytes for IP addresses it fills the request's 92.
  public static let byteCount = 56

  /// Below `connectionCount`; 0 is the service connection.
  public var connection: UInt16
  /// The same in each request of a path, 1 to `RTRS.connectionCountMaximum`.
  public var connectionCount: UInt16
  /// 1 at first, one more each time that the path is brought up again.
  public var attempt: UInt16
  /// Kept for the life of the path, over reconnections too.
  public var path: RTRSUUID
  /// Shared by all paths of the session.
  public var session: RTRSUUID
  /// Without it a server that does not know the session refuses.
  public var mayCreateSession: Bool

  public init(
    connection: UInt16, connectionCount: UInt16, attempt: UInt16, path: RTRSUUID,
    session: RTRSUUID, mayCreateSession: Bool = true
  ) {
    self.connection = connection
    self.connectionCount = connectionCount
    self.attempt = attempt
    self.path = path
    self.session = session
    self.mayCreateSession = mayCreateSession
  }

  /// The number of an attempt, as a client of ours says it: 1 at first; with the highest bit until
  /// the session was connected for the first time; without it from then on. All numbers mean the
  /// same to Linux's server, and Linux's client has no second attempt before it was connected.
  static func number(ofAttempt attempt: UInt16, isReturning: Bool) -> UInt16 {
    if isReturning { return 2 + attempt % 0x7ffe }
    return attempt == 1 ? 1 : attempt | 0x8000
  }

  /// The session was connected before, to this server or to one that was here before it.
  public var isReturning: Bool { attempt > 1 && attempt < 0x8000 }

  /// `bytes` may be longer: what the connection manager hands out may be padded. The first two
  /// bytes are the manager's own, and mean nothing here.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    try checkGreeting(magic: bytes.littleEndian(UInt16.self, at: 2), version: bytes, at: 4)
    connection = bytes.littleEndian(UInt16.self, at: 6)
    connectionCount = bytes.littleEndian(UInt16.self, at: 8)
    guard connectionCount <= RTRS.connectionCountMaximum else {
      throw .limit(
        field: "connection count", maximum: UInt64(RTRS.connectionCountMaximum),
        actual: UInt64(connectionCount))
    }
    guard connection < connectionCount else {
      throw .value(field: "connection number", actual: UInt64(connection))
    }
    attempt = bytes.littleEndian(UInt16.self, at: 10)
    path = RTRSUUID(decoding: bytes, at: 12)
    session = RTRSUUID(decoding: bytes, at: 28)
    mayCreateSession = bytes[44] & 1 != 0
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(zeroes: 2)  // The connection manager refuses anything else.
    output.append(littleEndian: RTRS.magic)
    output.append(littleEndian: RTRS.version)
    output.append(littleEndian: connection)
    output.append(littleEndian: connectionCount)
    output.append(littleEndian: attempt)
    path.encode(into: &output)
    session.encode(into: &output)
    output.append(mayCreateSession ? 1 : 0)
    output.append(zeroes: 11)
  }
}

extension RTRSUUID {
  init(decoding bytes: Span<UInt8>, at offset: Int) {
    high = bytes.bigEndian(UInt64.self, at: offset)
    low = bytes.bigEndian(UInt64.self, at: offset + 8)
  }

  func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: high)
    output.append(bigEndian: low)
  }
}

/// The magic, and of the version at `offset` the major part.
func checkGreeting(
  magic: UInt16, version bytes: Span<UInt8>, at offset: Int
) throws(WireError) {
  guard magic == RTRS.magic else {
    throw .magic(expected: UInt64(RTRS.magic), actual: UInt64(magic))
  }
  let version = bytes.littleEndian(UInt16.self, at: offset)
  guard version >> 8 == RTRS.version >> 8 else {
    throw .value(field: "version", actual: UInt64(version))
  }
}

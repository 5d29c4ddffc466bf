// SPDX-License-Identifier: Apache-2.0
import RNBDProtocol
import RTRSProtocol
import WireFormat

/// What clients get, and what they can make the server spend. Every session takes
/// `queueDepth * (dataByteCountMaximum + RNBD.headerByteCountForLinux)` bytes of locked memory for each
/// RDMA device that its paths go through.
public struct RNBDServerLimits: Equatable, Sendable {
  /// Requests in flight of a session. The same at every start of the server: Linux's client does
  /// not come back to one that has another.
  public var queueDepth: UInt16 = 128
  /// The longest read or write, in bytes.
  public var dataByteCountMaximum: UInt32 = 128 << 10
  /// The client that would have one more is rejected.
  public var sessionCountMaximum = 64
  /// Of all sessions together.
  public var memoryByteCountMaximum = 2 << 30
  /// A client that was not heard of for so long is gone; for six sevenths of it, it may be.
  public var silenceSeconds: UInt64 = 12
  /// How long a client has to show that it is alive when another one wants its name.
  public var challengeNanoseconds: UInt64 = 500_000_000
  /// From a path's first connection to the end of its introduction.
  public var establishSeconds: UInt64 = 10
  /// Of each session; an open of one more is answered ENFILE.
  public var deviceCountMaximum = 64
  /// Threads that wait for disks, of each session.
  public var workerCount = 8

  /// The defaults of the properties.
  public init() {}

  func geometry() throws(WireError) -> ChunkGeometry {
    try ChunkGeometry(
      queueDepth: queueDepth, dataByteCountMaximum: dataByteCountMaximum,
      headerByteCountMaximum: RNBD.headerByteCountForLinux)
  }

  var ofSessions: ServerLimits {
    var limits = ServerLimits()
    // Up to an interval until it is asked, and six for the answer.
    limits.heartbeat = Heartbeat.Limits(
      intervalNanoseconds: silenceSeconds * 1_000_000_000 / 7, missedMaximum: 5)
    limits.establishNanoseconds = establishSeconds * 1_000_000_000
    limits.pathCountMaximum = 8
    limits.connectionCountMaximum = 264
    return limits
  }
}

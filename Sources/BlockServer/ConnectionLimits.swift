// SPDX-License-Identifier: Apache-2.0
// What clients may make the server spend, and why one of them is turned away.

/// What all clients together, and each alone, may have; the defaults are those of the
/// configuration.
public struct ConnectionLimits: Equatable, Sendable {
  /// Connections at one time.
  public var connectionCountMaximum = 1024
  /// Of them, of one client address; those through Unix sockets count as one client's. Nil: no limit
  /// of its own.
  public var clientConnectionCountMaximum: Int?
  /// From the acceptance to the end of the negotiation.
  public var handshakeMilliseconds: UInt64 = 10_000
  /// A session that has done nothing for so long is ended; nil: never.
  public var idleSeconds: UInt64?
  /// The longest read or write.
  public var requestByteCountMaximum: UInt32 = 32 << 20
  /// What the buffers of all connections together may come to; nil: no limit. A connection counts
  /// with all that it may ever need, so that the limit holds whatever clients do.
  public var memoryByteCountMaximum: UInt64?

  /// The defaults of the properties; no limit on memory, idleness or one client's share.
  public init() {}
}

/// Why a connection is not served.
public enum ConnectionRefusal: Error, Equatable, Sendable {
  /// The server has as many as it may have.
  case tooMany(maximum: Int)
  /// This client has as many as one may have.
  case tooManyOfClient(maximum: Int)
  /// Its buffers could exceed what is left of `memoryByteCountMaximum`.
  case noMemory(maximum: UInt64)

  /// Why, and which key of the configuration has the limit.
  public var report: (reason: String, advice: String) {
    switch self {
    case .tooMany(let maximum):
      ("there are \(maximum) connections", "raise limits.connections")
    case .tooManyOfClient(let maximum):
      ("this client has \(maximum) connections", "raise limits.connections_per_client")
    case .noMemory(let maximum):
      (
        "its buffers and those of the others could come to more than \(maximum) bytes",
        "raise limits.memory, or lower limits.request_size"
      )
    }
  }
}

// SPDX-License-Identifier: Apache-2.0

/// What a configuration says about RDMA; nil: what the server has by itself.
public struct RDMASettings: Equatable, Sendable {
  /// Where devices are looked for that are no exports; nil: nowhere.
  public var searchPath: SearchPath?
  /// Requests in flight of a session.
  public var queueDepth: Int?
  /// The longest read or write, in bytes.
  public var dataByteCountMaximum: Int?
  public var sessionCountMaximum: Int?
  /// Of the buffers of all sessions, in bytes.
  public var memoryByteCountMaximum: Int?
  /// A client that was not heard of for so long is gone.
  public var silenceSeconds: UInt64?

  public init() {}
}

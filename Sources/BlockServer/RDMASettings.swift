// SPDX-License-Identifier: Apache-2.0

/// What a configuration says about RDMA; nil: what the server has by itself.
public struct RDMASettings: Equatable, Sendable {
  /// What is found beside the exports.
  public var search = DeviceDirectory.Search()
  /// Requests in flight of a session.
  public var queueDepth: Int?
  /// The longest read or write, in bytes.
  public var dataByteCountMaximum: Int?
  /// Sessions at one time, however many paths they have.
  public var sessionCountMaximum: Int?
  /// Of the buffers of all sessions, in bytes.
  public var memoryByteCountMaximum: Int?
  /// A client that was not heard of for so long is gone.
  public var silenceSeconds: UInt64?

  /// For `queueDepth`.
  public static let queueDepthRange: ClosedRange<Int> = 4...1024
  /// For `dataByteCountMaximum`: 64 KiB to 1 MiB.
  public static let dataByteCountRange: ClosedRange<Int> = 65_536...1_048_576
  /// For `sessionCountMaximum`.
  public static let sessionCountRange: ClosedRange<Int> = 1...1024
  /// For `silenceSeconds`.
  public static let silenceSecondsRange: ClosedRange<UInt64> = 3...600

  /// Nothing is said: the server's own values hold, and nothing is found beside the exports.
  public init() {}
}

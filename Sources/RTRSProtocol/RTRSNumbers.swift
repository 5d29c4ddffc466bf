// SPDX-License-Identifier: Apache-2.0
// The numbers that both halves share. Source: Linux 6.12 `drivers/infiniband/ulp/rtrs/rtrs-pri.h`,
// as everything in this module where nothing else is said. All fields are little-endian; the
// immediate alone is big-endian, in the RDMA headers, where neither half sees it.

/// The module's numbers; see the head of this file.
public enum RTRS {
  /// First of every message of the connection manager. Source: `RTRS_MAGIC`.
  public static let magic: UInt16 = 0x1bbd
  /// The major version is in the high byte, and is all that a peer compares.
  public static let version: UInt16 = 0x0200
  /// Source: `RTRS_PORT` in Linux `rnbd-proto.h`.
  public static let defaultPort: UInt16 = 1234
  /// Connections of a path. Source: `rtrs_rdma_connect` in `rtrs-srv.c`.
  public static let connectionCountMaximum: UInt16 = 4096
  /// Paths of a session. Source: `MAX_PATHS_NUM`.
  public static let pathCountMaximum = 128
  /// Of an immediate's 32 bits. Source: `MAX_IMM_PAYL_BITS`.
  public static let payloadBitCount = 28

  /// The smallest b for which 2^b is at least `count`; 0 for 0 and 1.
  static func bitCount(for count: UInt32) -> Int {
    count <= 1 ? 0 : UInt32.bitWidth - (count - 1).leadingZeroBitCount
  }
}

/// Sixteen random bytes that name a path or, shared by all paths of one, a session.
public struct RTRSUUID: Equatable, Sendable {
  /// The first eight bytes, most significant first.
  public var high: UInt64
  /// The last eight.
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
}

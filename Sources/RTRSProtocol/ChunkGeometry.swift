// SPDX-License-Identifier: Apache-2.0
// A server's chunks: how many, how large, and how an immediate names a place in one of them.

public import WireFormat

/// Always within the limits of the protocol, so that sizes made of it cannot overflow: all chunks
/// together are at most 2^28 bytes.
public struct ChunkGeometry: Equatable, Sendable {
  /// Chunks of a session, and so requests that it has in flight; 1 to 65535.
  public let queueDepth: UInt16
  /// The largest data part of a request, in bytes.
  public let dataByteCountMaximum: UInt32
  /// Room for what follows the data, in bytes: the user's message and that of RTRS.
  public let headerByteCountMaximum: UInt32
  /// Bits of an immediate's payload that hold an offset.
  private let offsetBitCount: Int

  /// In bytes: data and header together.
  public var chunkByteCount: UInt32 { dataByteCountMaximum + headerByteCountMaximum }
  /// All chunks of a session together, in bytes.
  public var totalByteCount: Int { Int(chunkByteCount) * Int(queueDepth) }

  /// Source: `map_cont_bufs` in Linux `rtrs-srv.c`: number and offset share the payload.
  public init(
    queueDepth: UInt16, dataByteCountMaximum: UInt32, headerByteCountMaximum: UInt32
  ) throws(WireError) {
    guard queueDepth > 0 else { throw .value(field: "queue depth", actual: 0) }
    guard headerByteCountMaximum >= UInt32(RequestMessage.byteCountMaximum) else {
      throw .value(field: "header size", actual: UInt64(headerByteCountMaximum))
    }
    guard dataByteCountMaximum > 0 else { throw .value(field: "data size", actual: 0) }
    let depthBitCount = RTRS.bitCount(for: UInt32(queueDepth))
    let (chunk, overflow) = dataByteCountMaximum.addingReportingOverflow(headerByteCountMaximum)
    guard !overflow, RTRS.bitCount(for: chunk) + depthBitCount <= RTRS.payloadBitCount else {
      throw .limit(
        field: "chunk size", maximum: 1 << UInt64(RTRS.payloadBitCount - depthBitCount),
        actual: UInt64(dataByteCountMaximum) + UInt64(headerByteCountMaximum))
    }
    self.queueDepth = queueDepth
    self.dataByteCountMaximum = dataByteCountMaximum
    self.headerByteCountMaximum = headerByteCountMaximum
    offsetBitCount = RTRS.payloadBitCount - depthBitCount
  }

  /// What a server announced on connection 0.
  public init(_ answer: ConnectionAnswer) throws(WireError) {
    try self.init(
      queueDepth: answer.queueDepth, dataByteCountMaximum: answer.dataByteCountMaximum,
      headerByteCountMaximum: answer.headerByteCountMaximum)
  }

  /// The payload that names a byte of a chunk. Both must be within the geometry.
  public func payload(chunk: UInt16, offset: UInt32) -> UInt32 {
    UInt32(chunk) << UInt32(offsetBitCount) | offset
  }

  /// The byte that a peer's payload names; nil when there is no such chunk or byte.
  public func place(of payload: UInt32) -> (chunk: UInt16, offset: UInt32)? {
    let chunk = payload >> UInt32(offsetBitCount)
    let offset = payload & ((1 << UInt32(offsetBitCount)) - 1)
    guard chunk < UInt32(queueDepth), offset < chunkByteCount else { return nil }
    return (UInt16(truncatingIfNeeded: chunk), offset)
  }
}

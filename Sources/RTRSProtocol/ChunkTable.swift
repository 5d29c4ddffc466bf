// SPDX-License-Identifier: Apache-2.0
// Where a path's chunks are at the server, and under which keys. Each path has keys of its own for
// the same chunks.

public import WireFormat

/// Taken once for a depth and filled again with each reconnection: no memory is taken later.
public struct ChunkTable: Sendable {
  private struct Chunk {
    var address: UInt64 = 0
    var key: UInt32 = 0
  }
  private var chunks: [Chunk]

  /// `queueDepth` is the greatest that `load` will take.
  public init(queueDepth: UInt16) {
    chunks = [Chunk](repeating: Chunk(), count: Int(queueDepth))
  }

  /// As the server's device counts; 0 until `load`.
  public func address(of chunk: UInt16) -> UInt64 { chunks[Int(chunk)].address }
  /// What the server's device wants to see with `address(of:)`; 0 until `load`.
  public func key(of chunk: UInt16) -> UInt32 { chunks[Int(chunk)].key }
  /// The server has given the chunk a new key: the old one is of no more use.
  public mutating func setKey(_ key: UInt32, of chunk: UInt16) { chunks[Int(chunk)].key = key }

  /// The answer to the information request: `bytes` is all that was received. When it throws, the
  /// table is of no use. Source: `process_info_rsp` in Linux `rtrs-clt.c`.
  public mutating func load(
    _ bytes: Span<UInt8>, geometry: ChunkGeometry
  ) throws(WireError) {
    guard bytes.count >= PathInformationAnswer.headerByteCount else {
      throw .byteCount(expected: PathInformationAnswer.headerByteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == PathInformationAnswer.type else {
      throw .value(field: "message type", actual: UInt64(type))
    }
    let regionCount = bytes.littleEndian(UInt16.self, at: 2)
    guard regionCount > 0, geometry.queueDepth % regionCount == 0,
      Int(geometry.queueDepth) <= chunks.count
    else { throw .value(field: "region count", actual: UInt64(regionCount)) }
    let byteCount =
      PathInformationAnswer.headerByteCount + Int(regionCount) * RegionDescriptor.byteCount
    guard bytes.count >= byteCount else {
      throw .byteCount(expected: byteCount, actual: bytes.count)
    }
    var chunk = 0
    for index in 0..<Int(regionCount) {
      let region = RegionDescriptor(
        decoding: bytes,
        at: PathInformationAnswer.headerByteCount + index * RegionDescriptor.byteCount)
      let count = Int(region.length / geometry.chunkByteCount)
      guard count > 0, region.length % geometry.chunkByteCount == 0,
        count <= Int(geometry.queueDepth) - chunk
      else { throw .value(field: "region length", actual: UInt64(region.length)) }
      for place in 0..<count {
        chunks[chunk] = Chunk(
          address: region.address &+ UInt64(place) * UInt64(geometry.chunkByteCount),
          key: region.key)
        chunk += 1
      }
    }
    guard chunk == Int(geometry.queueDepth) else {
      throw .value(field: "chunk count", actual: UInt64(chunk))
    }
  }
}

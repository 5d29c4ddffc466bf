// SPDX-License-Identifier: Apache-2.0
// A request as it lies in a chunk, checked: every number came from the client.

import WireFormat

/// One request of a client, whose sizes all fit into its chunk.
public struct ServerRequest: Equatable, Sendable {
  /// In which it lies, and which is the client's again when it is answered.
  public var chunk: UInt16
  /// By which it came, and by which alone it can be answered.
  public var path: ServerPathToken
  /// Of the path; the answer goes out on the same.
  public var connection: UInt16
  /// Where the data go.
  public var direction: RequestDirection
  /// From the start of the chunk: what the client wrote there, or the room for what it reads.
  public var dataByteCount: UInt32
  /// Directly behind the data.
  public var userByteCount: UInt16
  /// Where data that the client reads go; its length is at most `dataByteCount` and not 0.
  public var destination: RegionDescriptor?
  /// The key of `destination` is to be sent back to be invalidated.
  public var wantsInvalidation: Bool
}

/// Why a message in a chunk is no request.
enum RequestRefusal: Error, Equatable {
  /// The client does not know its own chunks: its path ends.
  case endPath(ServerPathLoss)
  /// It is answered with EINVAL. Linux's server leaves some of these without an answer, and the
  /// chunk is lost.
  case invalid
}

extension ServerRequest {
  /// `message`: a copy of what lies at the place that `payload` names, up to
  /// `RequestMessage.byteCountMaximum` bytes or the end of the chunk.
  init(
    payload: UInt32, message bytes: Span<UInt8>, geometry: ChunkGeometry, path: ServerPathToken,
    connection: UInt16
  ) throws(RequestRefusal) {
    guard let place = geometry.place(of: payload) else {
      throw .endPath(.wrongPlace(payload: payload))
    }
    let room = Int(geometry.chunkByteCount - place.offset)
    let message: RequestMessage
    do throws(RequestMessageError) {
      message = try RequestMessage(decoding: bytes.extracting(first: min(room, bytes.count)))
    } catch {
      if case .descriptorCount = error { throw .invalid }
      throw .endPath(.wrongMessage(error))
    }
    userByteCount = message.userByteCount
    guard UInt32(userByteCount) <= place.offset,
      UInt32(userByteCount) + UInt32(message.encodedByteCount)
        <= geometry.headerByteCountMaximum
    else { throw .invalid }
    dataByteCount = place.offset - UInt32(userByteCount)
    guard dataByteCount <= geometry.dataByteCountMaximum else { throw .invalid }
    switch message {
    case .write:
      direction = .toServer
      destination = nil
      wantsInvalidation = false
    case .read(_, let region, let wants):
      // Without a region there is no key that could be sent back.
      direction = .toClient
      destination = region
      wantsInvalidation = wants && region != nil
      if let region {
        guard region.length > 0, region.length <= dataByteCount else { throw .invalid }
      }
    }
    chunk = place.chunk
    self.path = path
    self.connection = connection
  }
}

/// What to post for a request that is over, all on its connection and in this order: an RDMA WRITE
/// of `destination`'s length from the start of the chunk, an empty SEND-WITH-INV of
/// `invalidatedKey`, an empty RDMA-WRITE-WITH-IMM. What is nil is left out.
public struct ServerAnswer: Equatable, Sendable {
  /// Which the client may use again.
  public var chunk: UInt16
  /// When it is gone, nothing is posted.
  public var path: ServerPathToken
  /// By which the request came.
  public var connection: UInt16
  /// In the client's memory; nil when no data go there.
  public var destination: RegionDescriptor?
  /// Of `destination`, to be invalidated at the client's device; nil: nothing is sent for it.
  public var invalidatedKey: UInt32?
  /// In this machine's byte order: a work request wants it in network order.
  public var immediate: UInt32
}

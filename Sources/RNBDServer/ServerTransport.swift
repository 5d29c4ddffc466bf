// SPDX-License-Identifier: Apache-2.0
// All that the sessions know of RDMA. The engine asks `next` until nil, then waits; everything but
// `wake` is called by its thread alone. Connections and paths are numbers; none is used again.

import RTRSProtocol
import WireFormat

/// Why the transport could not do something: what was seen and what to do about it.
struct TransportError: Error, Equatable {
  var reason: String
  var advice: String
}

/// The chunks of a session, as one device reaches them.
protocol ChunkMemory: AnyObject {
  /// The client may write to it at any time.
  @unsafe var bytes: UnsafeMutableRawBufferPointer { get }
  var remoteKey: UInt32 { get }
  /// Where a byte is for the client.
  func address(_ offset: Int) -> UInt64
}

/// How much a connection may have out.
struct ConnectionSizes: Equatable {
  var receiveCount: UInt32
  var sendCount: UInt32
}

/// Both ends of a connection.
struct ConnectionEnds: Equatable {
  var client = ByteString()
  var server = ByteString()
  /// As `rxe0`.
  var device = ByteString()
  /// The same for all connections through that device.
  var deviceIdentity: UInt = 0
}

enum TransportEvent: Equatable {
  /// Answer with `accept` or `reject`.
  case request(connection: Int, privateData: [UInt8])
  case established(connection: Int)
  /// By the client, or because its device went away.
  case disconnected(connection: Int)
  /// A receive without a payload.
  case received(connection: Int, immediate: UInt32)
  /// The introduction, on connection 0 of a path; empty for a message that does not belong there.
  case message(connection: Int, bytes: [UInt8])
  /// Source of the status: `enum ibv_wc_status`.
  case workFailed(connection: Int, status: UInt32)
}

protocol ServerTransport: AnyObject {
  associatedtype Memory: ChunkMemory

  func ends(of connection: Int) -> ConnectionEnds
  func makeMemory(byteCount: Int, for connection: Int) throws(TransportError) -> Memory

  /// As one of the `connectionCount` of a path. Connection 0 can take the introduction from now on.
  func accept(
    _ connection: Int, path: Int, isService: Bool, connectionCount: Int, _ sizes: ConnectionSizes,
    answer: [UInt8]
  ) throws(TransportError)
  func reject(_ connection: Int, answer: [UInt8])
  /// Disconnects and destroys all connections of a path: from then on the client reaches none of
  /// our memory through them, and nothing of it is heard any more.
  func close(path: Int)

  func postReceives(_ connection: Int, count: Int) throws(TransportError)
  func sendInformation(_ connection: Int, _ bytes: [UInt8]) throws(TransportError)
  func sendImmediate(_ connection: Int, _ immediate: UInt32) throws(TransportError)
  /// `offset`: of the chunk in `memory`.
  func send(
    _ answer: ServerAnswer, on connection: Int, from memory: Memory, offset: Int
  ) throws(TransportError)

  /// What there is. `isLast`: before `wait`; without it, nil may mean that there is something that is
  /// dear to find.
  func next(isLast: Bool) -> TransportEvent?
  /// Until there may be an event, or somebody calls `wake`.
  func wait(milliseconds: Int32)
  var waker: any TransportWaker { get }
}

/// Ends the transport's `wait`, from any thread.
protocol TransportWaker: AnyObject, Sendable {
  func wake()
}

// SPDX-License-Identifier: Apache-2.0
// The seam between a session and what carries it: RDMA at boot, a script in the tests.

public import RTRSProtocol

/// What a transport has to tell. What came with it is in `eventBytes` until `nextEvent` is
/// called again.
public enum TransportEvent: Equatable, Sendable {
  /// The connection that was asked for is there; with what the server said.
  case established(path: Int, connection: UInt16)
  /// The server said no; with what it said.
  case rejected(path: Int, reason: UInt32)
  /// Anything else that ends a path.
  case lost(path: Int, PathLoss)
  /// The answer to the information request is there.
  case informed(path: Int)
  /// A receive of a connection completed; with the message, if one came.
  case received(path: Int, connection: UInt16, immediate: UInt32?)
}

/// Paths by number; requests by the numbers of a `ClientSession`, the control request among them.
/// After `prepare` nothing here may allocate that a request needs. What cannot be done comes back as
/// the loss of its path.
public protocol PathTransport: ~Copyable {
  /// Nil when there is nothing now.
  mutating func nextEvent() -> TransportEvent?
  /// What came with the event that was told last.
  borrowing func eventBytes() -> UnsafeBufferPointer<UInt8>

  /// Begins one connection of a path; its end comes as an event.
  mutating func connect(_ path: Int, _ request: ConnectionRequest) -> PathLoss?
  /// Posts a receive for the answer, and sends.
  mutating func sendInformation(_ path: Int, name: SessionName) -> PathLoss?
  mutating func postReceives(_ path: Int) -> PathLoss?
  mutating func sendHeartbeat(_ path: Int, isAcknowledgement: Bool) -> PathLoss?
  /// From its return on the server reaches none of our memory through the path.
  mutating func tearDown(_ path: Int)

  /// Where a request's data lie, all the room there is. Stays where it is.
  borrowing func data(of request: UInt16) -> UnsafeMutableRawBufferPointer
  /// Where its messages lie: what is posted behind the data.
  borrowing func messages(of request: UInt16) -> UnsafeMutableRawBufferPointer
  /// What tells the server where to write a read's data; known while the path is connected.
  borrowing func destination(of request: UInt16, on path: Int) -> RegionDescriptor
  /// Sends the first `messageByteCount` bytes of the request's messages, behind its data if they go
  /// to the server.
  mutating func post(_ posting: Posting, messageByteCount: Int) -> PathLoss?
}

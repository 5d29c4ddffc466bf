// SPDX-License-Identifier: Apache-2.0
// Where everything lies in the registered memory of a session.
//
//   data pages:      request 0 │ request 1 │ ... │ the control request's answer
//   message pages:   request 0 │ request 1 │ ... │ the control request's message
//   pages of a path: answer to the information request │ message for it │ heartbeats' none │
//                    connection 0: receive 0, receive 1, ... │ connection 1: ...

import RNBDProtocol
import RTRSProtocol

/// Sizes that a transport is made with.
public struct TransportSizes: Equatable, Sendable {
  /// Requests of devices, 1 to 4096; one more is for control messages.
  public var requestCount: UInt16
  /// The largest data part of one, in bytes; a multiple of 4096, up to 1 MiB.
  public var dataByteCount: UInt32
  /// Connections of a path.
  public var connectionCount: UInt16

  public init(requestCount: UInt16, dataByteCount: UInt32, connectionCount: UInt16) {
    self.requestCount = requestCount
    self.dataByteCount = dataByteCount
    self.connectionCount = connectionCount
  }
}

struct TransportLayout: Equatable {
  /// Both messages of an I/O: 32 and at most 24 bytes.
  static let messageStride = 64
  static let controlMessageByteCount = 512
  static let controlDataByteCount = 4096
  /// A message for us has at most 8 bytes; a piece of a cache line each.
  static let receiveStride = 16
  /// A server that sends a region for each chunk can have so many of them. Linux's has 512.
  static let regionCountMaximum: UInt16 = 8192
  /// Receives of connection 0: heartbeats of both sides, and the control request's answer.
  static let controlReceiveCount = 32
  /// Receives beside those for answers: Linux's server sends nothing else there.
  static let spareReceiveCount = 8

  let sizes: TransportSizes

  var dataPagesByteCount: Int {
    Int(sizes.requestCount) * Int(sizes.dataByteCount) + Self.controlDataByteCount
  }
  func dataOffset(_ request: UInt16) -> Int { Int(request) * Int(sizes.dataByteCount) }
  func dataRoom(_ request: UInt16) -> Int {
    request == sizes.requestCount ? Self.controlDataByteCount : Int(sizes.dataByteCount)
  }

  var messagePagesByteCount: Int {
    Int(sizes.requestCount) * Self.messageStride + Self.controlMessageByteCount
  }
  func messageOffset(_ request: UInt16) -> Int { Int(request) * Self.messageStride }
  func messageRoom(_ request: UInt16) -> Int {
    request == sizes.requestCount ? Self.controlMessageByteCount : Self.messageStride
  }

  /// Of the answer to the information request.
  var informationByteCount: Int {
    PathInformationAnswer.byteCountMaximum(queueDepth: Self.regionCountMaximum)
  }
  var informationMessageOffset: Int { (informationByteCount + 63) / 64 * 64 }
  private var receivesOffset: Int { informationMessageOffset + 320 }

  /// Receives that a connection has posted at a time.
  func receiveCount(_ connection: UInt16) -> Int {
    if sizes.connectionCount == 1 {
      return Self.controlReceiveCount + Int(sizes.requestCount)
    }
    return connection == 0
      ? Self.controlReceiveCount : Int(sizes.requestCount) + Self.spareReceiveCount
  }
  /// Work requests that may be out to the server: a request each, its answer may come before the
  /// device has told that it was sent, and heartbeats.
  func sendCount(_ connection: UInt16) -> Int {
    connection == 0 && sizes.connectionCount > 1
      ? 2 * Self.controlReceiveCount : 2 * Int(sizes.requestCount) + 2 * Self.controlReceiveCount
  }

  func receiveOffset(_ connection: UInt16, _ index: Int) -> Int {
    var offset = receivesOffset
    if connection > 0 {
      offset += receiveCount(0) * Self.receiveStride
      offset += Int(connection - 1) * receiveCount(1) * Self.receiveStride
    }
    return offset + index * Self.receiveStride
  }
  var pathPagesByteCount: Int { receiveOffset(sizes.connectionCount, 0) }

  /// All that can be out on a path at a time.
  var completionCount: Int {
    var count = 1
    for connection in 0..<sizes.connectionCount {
      count += receiveCount(connection) + sendCount(connection)
    }
    return count
  }
}

/// The number that comes back with a completion: what it was, of which attempt of the path.
struct WorkNumber: Equatable {
  enum Kind: UInt64 { case send, receive, information }
  var kind: Kind
  /// Grows with each connection of the path: what is left of earlier ones means nothing.
  var attempt: UInt16
  var connection: UInt16
  var index: Int

  init(_ kind: Kind, attempt: UInt16, connection: UInt16, index: Int = 0) {
    self.kind = kind
    self.attempt = attempt
    self.connection = connection
    self.index = index
  }

  var rawValue: UInt64 {
    kind.rawValue << 56 | UInt64(attempt) << 40 | UInt64(connection) << 24
      | UInt64(truncatingIfNeeded: index) & 0xff_ffff
  }

  init?(rawValue: UInt64) {
    guard let kind = Kind(rawValue: rawValue >> 56) else { return nil }
    self.kind = kind
    attempt = UInt16(truncatingIfNeeded: rawValue >> 40)
    connection = UInt16(truncatingIfNeeded: rawValue >> 24)
    index = Int(rawValue & 0xff_ffff)
  }
}

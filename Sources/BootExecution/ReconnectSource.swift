// SPDX-License-Identifier: Apache-2.0

/// Who brings connections back: told that one is lost, asked from time to time, and one day it has
/// a socket that has entered the same export again. Never blocks, never allocates.
protocol ReconnectSource: ~Copyable {
  /// Connection `slot` is gone; its descriptor is closed. Nanoseconds are those of MonotonicTime.
  mutating func isLost(_ slot: Int, _ reason: LossReason, at nanoseconds: UInt64)
  /// Whether two connections go, or last went, the same way.
  func goTheSameWay(_ slot: Int, _ other: Int) -> Bool
  /// The next step for a connection that is lost.
  mutating func step(_ slot: Int, at nanoseconds: UInt64) -> ReconnectStep
}

enum ReconnectStep: Equatable {
  /// Nothing to be done before that moment.
  case later(nanoseconds: UInt64)
  /// A connected socket, past its handshake, nothing read beyond it. It is the asker's now.
  case connected(CInt)
}

/// Why a connection is of no more use.
enum LossReason: Equatable {
  /// The peer ended the stream, or the stream broke.
  case ended(errno: CInt)
  /// Requests are out on it and nothing was heard for so long.
  case silent(seconds: UInt64)
  /// What came was no answer to what is out.
  case violation
  /// The server says that it is going down.
  case serverShutsDown
  /// The connection never was: the device is taken up again.
  case notYet

  var text: StaticString {
    switch self {
    case .ended(0): "the server closed it"
    case .ended: "it broke"
    case .silent: "the server does not answer"
    case .violation: "the server broke the protocol"
    case .serverShutsDown: "the server is shutting down"
    case .notYet: "it is to be made"
    }
  }
}

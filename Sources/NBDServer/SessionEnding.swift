// SPDX-License-Identifier: Apache-2.0
import LinuxSystem

/// Why a session ended.
enum SessionEnding: Error, Equatable {
  case disconnected
  /// The stream ended between two requests, without DISC.
  case closedByClient
  /// The stream ended inside a request, or the socket failed.
  case vanished(SystemError?)
  case lostFrame(magic: UInt64)
  /// Longer than any command's, and so long that nobody would take it off the stream.
  case payloadTooLong(UInt64)
  case serverStopping
  /// A reply had begun to leave when its data turned out not to be there. Nil: the file was cut.
  case mediumFailed(SystemError?)
  /// Another connection of the attachment has its place.
  case replaced
  case notSetUp(SystemError)

  var reason: String {
    switch self {
    case .disconnected: "disconnected"
    case .closedByClient: "closed by the client"
    case .vanished(nil): "the client vanished inside a request"
    case .vanished(let error?): "the connection failed: \(error.text)"
    case .mediumFailed(nil): "a file was cut while it was sent"
    case .mediumFailed(let error?): "a file could not be sent: \(error.text)"
    case .lostFrame(let magic):
      "the client sent 0x\(String(magic, radix: 16)) where a request belongs"
    case .payloadTooLong(let count): "the client announced a payload of \(count) bytes"
    case .serverStopping: "the server is stopping"
    case .replaced: "a newer connection of this client took its place"
    case .notSetUp(let error): "no session could be set up: \(error.text)"
    }
  }
}

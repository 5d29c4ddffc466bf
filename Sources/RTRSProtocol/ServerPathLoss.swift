// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Why a server ends a path. Nothing of it reaches the client but the disconnect.
public enum ServerPathLoss: Error, Equatable, Sendable {
  /// The connection manager says so, of any of the connections.
  case disconnected
  /// Connections or information did not come in time.
  case timedOut
  /// Nothing came from the client for as long as `Heartbeat.Limits` allow.
  case silent
  /// Source of the number: `enum ibv_wc_status`.
  case workRequestFailed(status: UInt32)
  /// The introduction was no message, or its name none.
  case malformed(WireError)
  /// Information came before all connections, or twice; or a request came before it.
  case outOfTurn
  /// A message where only immediates belong.
  case unexpectedMessage(byteCount: Int)
  /// An immediate that names no byte of a chunk.
  case wrongPlace(payload: UInt32)
  /// What lies at the place that the immediate names is no message of RTRS.
  case wrongMessage(RequestMessageError)
  /// A chunk was used again before it was answered.
  case chunkInUse(UInt16)
  /// Another session has the name, or this session has another one.
  case nameTaken(SessionName)
  /// The client begins the path anew, and so has lost this one.
  case replaced
  /// The machine that had the session is back with a new one.
  case takenOver
  /// We wanted it.
  case closed

  /// What happened, with the values seen, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .disconnected: ("the client has left", "nothing needs to be done")
    case .timedOut: ("the client did not finish connecting", "check the client")
    case .silent: ("the client is silent", "check the client and its link")
    case .workRequestFailed(let status):
      ("a transfer failed (status \(status))", "check the client and its link")
    case .malformed(let error):
      ("the client broke the protocol: \(error.reason)", "check the client")
    case .outOfTurn: ("the client spoke out of turn", "check the client")
    case .unexpectedMessage(let count):
      ("the client sent a message of \(count) bytes out of turn", "check the client")
    case .wrongPlace(let payload):
      (
        "the client's request lies outside of its chunks (0x\(String(payload, radix: 16)))",
        "check the client"
      )
    case .wrongMessage(.truncated(let count)):
      ("a request has only \(count) bytes before the end of its chunk", "check the client")
    case .wrongMessage(.unknownType(let type)):
      ("the client sent a request of type \(type)", "check the client")
    case .wrongMessage(.descriptorCount(let count)):
      ("the client sent \(count) descriptors", "check the client")
    case .chunkInUse(let chunk):
      ("the client used chunk \(chunk) again before it was answered", "check the client")
    case .nameTaken(let name):
      (
        "another client has the session name '\(name.text.printable)'",
        "give each client its own name"
      )
    case .replaced: ("the client begins the path anew", "nothing needs to be done")
    case .takenOver: ("the client is back with a new session", "nothing needs to be done")
    case .closed: ("the path was closed", "nothing needs to be done")
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// Why a path is not, or no longer, connected.
public enum PathLoss: Error, Equatable, Sendable {
  /// The address or the route cannot be resolved, or nobody listens: an errno of this machine.
  case unreachable(errno: Int32)
  /// The server refused a connection, and said why.
  case rejected(PeerErrno)
  /// Rejected without a word of RTRS: something else listens there.
  case rejectedByStranger(reason: UInt32)
  /// It took too long to become connected.
  case timedOut
  /// The connection manager says so, of any of the connections.
  case disconnected
  /// The same, while the information was awaited: so a server refuses a name.
  case disconnectedAtInformation
  /// A work request failed. Source of the number: `enum ibv_wc_status`.
  case workRequestFailed(status: UInt32)
  /// Nothing came from the server for as long as `Heartbeat.Limits` allow.
  case silent
  /// A message that is none.
  case malformed(WireError)
  /// The depth of a session cannot change, whatever its server was restarted with.
  case depthChanged(from: UInt16, to: UInt16)
  /// One chunk is kept for control messages, so that a session needs at least 2.
  case depthTooSmall(UInt16)
  /// Too small for requests that were, or have to be, made.
  case sizesTooSmall(data: UInt32, header: UInt32)
  /// An answer to nothing that was asked on this connection.
  case unexpectedAnswer(chunk: UInt32)
  /// The server said that it refreshes keys, and did not, or another chunk's.
  case keyMissing(chunk: UInt32)
  /// A message where only immediates belong.
  case unexpectedMessage(byteCount: Int)
  /// We wanted it.
  case closed

  /// The server's kernel refuses a queue pair with the number of one that it believes alive, and ends
  /// that one: the next try comes through. Source of the number: `IB_CM_REJ_STALE_CONN` in Linux
  /// `ib_cm.h`.
  public static let staleConnection = PathLoss.rejectedByStranger(reason: 10)

  /// What happened, with the values seen, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .unreachable(let errno):
      ("the server cannot be reached (errno \(errno))", "check addresses, link and RDMA device")
    case .rejected(.noSuchAddress):
      ("the server does not know the session", "does this path lead to the same server?")
    case .rejected(.exists):
      ("the server has a path between these addresses already", "give each path its own addresses")
    case .rejected(let error):
      (
        "the server refused the connection (\(error.text))",
        "it may still keep the path of before; its log says why"
      )
    // Source of the number: `IB_CM_REJ_INVALID_SERVICE_ID` in Linux `ib_cm.h`.
    case .rejectedByStranger(reason: 8):
      ("nothing listens there", "start the server, or check the port")
    case .staleConnection:
      (
        "the server's machine took it for a connection of before this machine's start",
        "nothing needs to be done: it is tried again"
      )
    case .rejectedByStranger(let reason):
      ("the connection was refused, reason \(reason)", "check the port and what listens there")
    case .timedOut: ("the server did not answer in time", "check the server and its link")
    case .disconnected: ("the server closed the path", "its log may say why")
    case .disconnectedAtInformation:
      (
        "the server closed the path when it heard the session's name",
        "another client may have that name, or had it half a minute ago"
      )
    case .workRequestFailed(let status):
      ("a transfer failed (status \(status))", "check the link and the server")
    case .silent: ("the server is silent", "check the link and the server")
    case .malformed(let error):
      ("the server broke the protocol: \(error.reason)", "check what listens on that port")
    case .depthChanged(let old, let new):
      (
        "the server's queue depth is \(new) and was \(old)",
        "set sess_queue_depth as it was before"
      )
    case .depthTooSmall(let depth):
      ("the server's queue depth is \(depth)", "at least 2 are needed: raise sess_queue_depth")
    case .sizesTooSmall(let data, let header):
      (
        "the server takes \(data) bytes of data and \(header) of header, less than is needed",
        "set its chunk size as it was before"
      )
    case .unexpectedAnswer(let chunk):
      ("the server answered in chunk \(chunk) what nobody asked", "check the server")
    case .keyMissing(let chunk):
      ("the server sent no new key for chunk \(chunk)", "check the server")
    case .unexpectedMessage(let count):
      ("the server sent a message of \(count) bytes out of turn", "check the server")
    case .closed: ("the path was closed", "nothing needs to be done")
    }
  }
}

extension PeerErrno {
  /// For people: the name, or the number of one without.
  var text: String { name ?? "error \(rawValue)" }
}

// SPDX-License-Identifier: Apache-2.0
// Which sessions a server has, and what they are called. A session's number is its place in the
// driver's own list.

public import WireFormat

/// All sessions of a server; see the head of this file.
public struct SessionRegistry: Sendable {
  private struct Entry {
    var uuid: RTRSUUID
    var name: SessionName?
  }

  /// Whether a session may have a name.
  public enum Naming: Equatable, Sendable {
    /// It has it from now on.
    case granted
    /// By another session. A driver that finds it to be the same client's closes that one, waits
    /// until it is quiet, removes it, and asks again.
    case taken(by: Int)
  }

  private var entries: [Entry?]

  /// How many sessions there can be at a time.
  public init(sessionCountMaximum: Int) {
    entries = [Entry?](repeating: nil, count: sessionCountMaximum)
  }

  /// The session's number; nil for one that is not there.
  public func find(_ uuid: RTRSUUID) -> Int? {
    for index in entries.indices where entries[index]?.uuid == uuid { return index }
    return nil
  }

  /// The session of a connect request: the one there is, or a new one. The errno is what to reject
  /// the request with. Source: `get_or_create_srv` in Linux 6.12 `rtrs-srv.c`.
  public mutating func session(
    for request: ConnectionRequest
  ) throws(PeerErrno) -> (number: Int, isNew: Bool) {
    if let number = find(request.session) { return (number, false) }
    guard request.mayCreateSession else { throw .noSuchAddress }
    for index in entries.indices where entries[index] == nil {
      entries[index] = Entry(uuid: request.session)
      return (index, true)
    }
    throw .outOfMemory
  }

  /// Asks for a name, and takes it when no other session has it.
  public mutating func name(_ session: Int, _ name: SessionName) -> Naming {
    for index in entries.indices where index != session && entries[index]?.name == name {
      return .taken(by: index)
    }
    entries[session]?.name = name
    return .granted
  }

  /// Its number, and its name, are free again.
  public mutating func remove(_ session: Int) { entries[session] = nil }
}

// SPDX-License-Identifier: Apache-2.0
import CVerbs
public import LinuxSystem

/// One event of the connection manager. A connection request owns the new connection until it is
/// taken; one that nobody takes is destroyed, which rejects it without a word.
@safe public struct ConnectionEvent: ~Copyable {
  /// Source: `enum rdma_cm_event_type`, and rdma_get_cm_event(3).
  public enum Kind: Equatable, Sendable {
    case addressResolved
    case routeResolved
    /// A listener heard of a client: `takeConnection`, then accept or reject it.
    case connectRequest
    case established
    /// Whoever began it. Disconnect too, and destroy the queue pair.
    case disconnected
    /// The peer's program said no; its private data say why.
    case rejected(reason: UInt32)
    /// Of the address, the route, the connection; or nobody answers.
    case failed(Failure, SystemError)
    /// The device goes away: destroy everything on it.
    case deviceRemoved
    /// The bonding or routing below has changed: the connection is of no more use.
    case addressChanged
    /// The queue pair's number is free again.
    case timeWaitEnded
    case other(UInt32)
  }
  public enum Failure: Equatable, Sendable { case address, route, connect, unreachable }

  public let kind: Kind
  /// The context of the identifier; of a connection request that of the listener.
  public let context: UInt64
  @unsafe private var new: UnsafeMutableRawPointer?
  @unsafe private var raw: cverbs_event

  @unsafe init(_ raw: cverbs_event) {
    unsafe self.raw = unsafe raw
    unsafe new = unsafe raw.new_connection
    context = unsafe raw.context
    // SAFETY: numbers of the structure.
    kind = unsafe Self.kind(of: raw.kind, status: raw.status)
  }

  deinit {
    // SAFETY: taken by nobody, so this is its only owner.
    if let new = unsafe new { unsafe cverbs_identifier_destroy(new) }
  }

  static func kind(of kind: UInt32, status: Int32) -> Kind {
    // Of most a negated errno; some devices' drivers report it positive.
    let error = SystemError(errno: CInt(truncatingIfNeeded: status.magnitude))
    switch kind {
    case 0: return .addressResolved
    case 1: return .failed(.address, error)
    case 2: return .routeResolved
    case 3: return .failed(.route, error)
    case 4: return .connectRequest
    // 5 is a response that the library itself makes an `established` of.
    case 6: return .failed(.connect, error)
    case 7: return .failed(.unreachable, error)
    case 8: return .rejected(reason: UInt32(bitPattern: status))
    case 9: return .established
    case 10: return .disconnected
    case 11: return .deviceRemoved
    case 14: return .addressChanged
    case 15: return .timeWaitEnded
    default: return .other(kind)
    }
  }

  /// The connection that was asked for, with a context of its own; nil when this is no request, or
  /// it was taken before.
  public mutating func takeConnection(context: UInt64) -> ConnectionIdentifier? {
    guard let taken = unsafe new else { return nil }
    unsafe new = nil
    // SAFETY: owned until now by this event, from now on by the identifier.
    unsafe cverbs_identifier_set_context(taken, context)
    return unsafe ConnectionIdentifier(owning: taken)
  }

  /// What the peer said with it; empty when it said nothing. May be padded with zeroes.
  public borrowing func withPrivateData<Result: ~Copyable>(
    _ body: (Span<UInt8>) -> Result
  ) -> Result {
    let count = min(Int(unsafe raw.private_count), Int(cverbs_private_data_maximum))
    return unsafe withUnsafeBytes(of: raw.private_data) { bytes in
      // SAFETY: the structure's own bytes, no more of them than there are.
      let buffer = unsafe bytes.bindMemory(to: UInt8.self)
      return unsafe body(buffer.span.extracting(first: count))
    }
  }
}

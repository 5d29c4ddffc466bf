// SPDX-License-Identifier: Apache-2.0
// What client and server have agreed on before the transmission phase, and what follows from it.

import WireFormat

/// How requests and replies look on the wire. Source: NBD `doc/proto.md`, "Structured replies", and
/// of the branch `extension-ext-header`, "Extended headers".
public enum ReplyStyle: UInt8, Equatable, Sendable {
  /// One head of 16 bytes, and the data of a READ behind it.
  case simple
  /// READ and BLOCK_STATUS are answered in chunks, everything else as before.
  case structured
  /// Requests of 32 bytes with lengths of 64 bits; every answer comes in chunks of another head.
  case extended

  /// How many bytes a request takes without its payload.
  public var requestByteCount: Int {
    self == .extended ? ExtendedRequest.byteCount : Request.byteCount
  }

  /// A request in the client's own words, of `requestByteCount` bytes.
  public func request(decoding bytes: Span<UInt8>) throws(WireError) -> ExtendedRequest {
    self == .extended
      ? try ExtendedRequest(decoding: bytes) : ExtendedRequest(try Request(decoding: bytes))
  }

  /// How many bytes follow the request; they come whatever is wrong with it.
  public func payloadByteCount(of request: ExtendedRequest) -> UInt64 {
    let hasPayload =
      self == .extended
      ? request.flags.contains(.payloadLength) : request.command == .write
    return hasPayload ? request.length : 0
  }
}

/// What one connection's handshake has settled: the server's to keep for the transmission phase.
public struct SessionTerms: Equatable, Sendable {
  /// For both directions, from the first request on.
  public var style: ReplyStyle
  /// BLOCK_STATUS may be sent, and is answered for base:allocation.
  public var hasAllocationContext: Bool

  public init(style: ReplyStyle = .simple, hasAllocationContext: Bool = false) {
    self.style = style
    self.hasAllocationContext = hasAllocationContext
  }

  /// What the client is told of an export that can do `flags`.
  public func flags(of flags: TransmissionFlags) -> TransmissionFlags {
    switch style {
    case .simple: flags
    case .structured: flags.union(.sendDF)
    case .extended: flags.union([.sendDF, .blockStatusPayload])
    }
  }

  /// The flags that a client may set on a command, when it was told `told` of the export.
  public func allowedFlags(
    for command: CommandCode, told: TransmissionFlags
  ) -> CommandFlags {
    // A read-only export answers EPERM, which says more than EINVAL.
    var allowed: CommandFlags = told.isDisjoint(with: [.sendFUA, .readOnly]) ? [] : .fua
    switch command {
    case .read: if told.contains(.sendDF) { allowed.insert(.df) }
    case .write: if style == .extended { allowed.insert(.payloadLength) }
    case .writeZeroes:
      allowed.insert(.noHole)
      if told.contains(.sendFastZero) { allowed.insert(.fastZero) }
    case .blockStatus:
      allowed.insert(.reqOne)
      if told.contains(.blockStatusPayload) { allowed.insert(.payloadLength) }
    default: break
    }
    return allowed
  }
}

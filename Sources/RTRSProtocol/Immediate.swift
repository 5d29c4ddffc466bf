// SPDX-License-Identifier: Apache-2.0
// The 32 bits that come with an operation: 4 bits of type, 28 of payload.

public import WireFormat

/// The end of a request. Source: `rtrs_to_io_rsp_imm`.
public struct ChunkResponse: Equatable, Sendable {
  /// In 19 bits; a depth is at most 16 bits.
  public var chunk: UInt32
  /// In 9 bits: 0 to 511.
  public var error: PeerErrno
  /// A SEND-WITH-INV of the request's key went before it.
  public var isInvalidated: Bool

  public init(chunk: UInt32, error: PeerErrno, isInvalidated: Bool) {
    self.chunk = chunk
    self.error = error
    self.isInvalidated = isInvalidated
  }
}

/// As numbers of this machine: `imm_data` of a work request wants it in network order.
public enum Immediate: Equatable, Sendable {
  /// A client's request; `ChunkGeometry` reads the payload.
  case request(payload: UInt32)
  /// Of the server, to a request.
  case response(ChunkResponse)
  /// On connection 0 only, like its acknowledgement.
  case heartbeat
  /// To the peer's `heartbeat`, on connection 0.
  case heartbeatAcknowledgement
  /// Peers log it and go on.
  case unknown(UInt32)

  private static let payloadMask: UInt32 = 1 << UInt32(RTRS.payloadBitCount) - 1
  private static let chunkMask: UInt32 = 1 << 19 - 1
  /// An errno that does not fit is told as an I/O error and never as success.
  private static let errnoMaximum: UInt16 = 0x1ff

  /// Every number is an immediate, if only an `unknown` one.
  public init(rawValue: UInt32) {
    let payload = rawValue & Self.payloadMask
    switch rawValue >> UInt32(RTRS.payloadBitCount) {
    case 0: self = .request(payload: payload)
    case let type where type == 1 || type == 2:
      self = .response(
        ChunkResponse(
          chunk: payload & Self.chunkMask,
          error: PeerErrno(rawValue: UInt16(truncatingIfNeeded: payload >> 19)),
          isInvalidated: type == 2))
    case 8: self = .heartbeat
    case 9: self = .heartbeatAcknowledgement
    default: self = .unknown(rawValue)
    }
  }

  /// As `init(rawValue:)` reads it. A number of an error that does not fit into 9 bits becomes EIO.
  public var rawValue: UInt32 {
    switch self {
    case .request(let payload): payload & Self.payloadMask
    case .response(let response):
      (response.isInvalidated ? 2 : 1) << UInt32(RTRS.payloadBitCount)
        | UInt32(
          response.error.rawValue <= Self.errnoMaximum
            ? response.error.rawValue : PeerErrno.io.rawValue) << 19
        | response.chunk & Self.chunkMask
    case .heartbeat: 8 << UInt32(RTRS.payloadBitCount)
    case .heartbeatAcknowledgement: 9 << UInt32(RTRS.payloadBitCount)
    case .unknown(let value): value
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// What a server gets: one of the four messages that a client sends. `bytes` is a copy that the
/// client can no longer write to.
public enum ClientMessage: Equatable, Sendable {
  /// The first of a session: which version the client speaks.
  case sessionInformation(SessionInformation)
  /// To open a device by its name.
  case open(OpenRequest)
  /// To read or change blocks of an open device.
  case io(IORequest)
  /// To close an open device.
  case close(CloseRequest)

  /// The answer to one that cannot be decoded is EINVAL. Source: `rnbd_srv_rdma_ev` in Linux
  /// `rnbd-srv.c`.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= MessageType.byteCount else {
      throw .byteCount(expected: MessageType.byteCount, actual: bytes.count)
    }
    switch bytes.littleEndian(UInt16.self, at: 0) {
    case MessageType.io: self = .io(try IORequest(decoding: bytes))
    case MessageType.sessionInformation:
      self = .sessionInformation(try SessionInformation(decoding: bytes))
    case MessageType.open: self = .open(try OpenRequest(decoding: bytes))
    case MessageType.close: self = .close(try CloseRequest(decoding: bytes))
    case let type: throw .value(field: "message type", actual: UInt64(type))
    }
  }
}

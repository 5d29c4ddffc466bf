// SPDX-License-Identifier: Apache-2.0
public import WireFormat

/// The first message of a session, and its answer. Source: `struct rnbd_msg_sess_info` and
/// `struct rnbd_msg_sess_info_rsp`.
public struct SessionInformation: Equatable, Sendable, WireEncodable {
  /// Of the message, and of its answer.
  public static let byteCount = 36

  /// Which of the two it is; their layout is one.
  public var isAnswer: Bool
  /// The highest that the client has; in the answer, the one that both use.
  public var version: UInt8

  public init(version: UInt8 = RNBD.version, isAnswer: Bool = false) {
    self.version = version
    self.isAnswer = isAnswer
  }

  /// Takes exactly `byteCount` bytes, of either of the two.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == MessageType.sessionInformation || type == MessageType.sessionInformationAnswer
    else { throw .value(field: "message type", actual: UInt64(type)) }
    isAnswer = type == MessageType.sessionInformationAnswer
    version = bytes[4]
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(
      littleEndian: isAnswer
        ? MessageType.sessionInformationAnswer : MessageType.sessionInformation)
    output.append(zeroes: 2)
    output.append(version)
    output.append(zeroes: 31)
  }
}

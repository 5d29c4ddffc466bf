// SPDX-License-Identifier: Apache-2.0
// The numbers of the transmission phase. Source: NBD `doc/proto.md`, "Request types", "Command
// flags" and "Error values".

/// What a request asks for; the set is open, and a server answers EINVAL to a number without a
/// name.
public struct CommandCode: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The answer carries `length` bytes from `offset`.
  public static let read = CommandCode(rawValue: 0)
  /// The bytes follow the request, and must be taken from the stream even when it is refused.
  public static let write = CommandCode(rawValue: 1)
  /// NBD_CMD_DISC: the client is leaving and wants no answer; what it asked for before still gets
  /// one.
  public static let disconnect = CommandCode(rawValue: 2)
  /// All that was answered before it is durable once this is answered. Offset and length are 0.
  public static let flush = CommandCode(rawValue: 3)
  /// The range is not needed any more; its contents are undefined afterwards.
  public static let trim = CommandCode(rawValue: 4)
  /// A hint to bring the range into memory. Its failure says nothing about later reads.
  public static let cache = CommandCode(rawValue: 5)
  /// The range reads as zeroes afterwards, to the byte; nothing travels but its bounds.
  public static let writeZeroes = CommandCode(rawValue: 6)
  /// Asks which parts of the range are holes or zeroes. Needs a metadata context, else EINVAL.
  public static let blockStatus = CommandCode(rawValue: 7)
  /// Of the branch `extension-resize`: the new size is in the offset. This server answers EINVAL.
  public static let resize = CommandCode(rawValue: 8)
}

/// What a request adds to its command. A flag that the command does not know is answered EINVAL.
public struct CommandFlags: OptionSet, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The answer comes only when what was written is durable.
  public static let fua = CommandFlags(rawValue: 1 << 0)
  /// WRITE_ZEROES: keep the space allocated.
  public static let noHole = CommandFlags(rawValue: 1 << 1)
  /// READ with structured replies: one piece.
  public static let df = CommandFlags(rawValue: 1 << 2)
  /// BLOCK_STATUS: one extent.
  public static let reqOne = CommandFlags(rawValue: 1 << 3)
  /// WRITE_ZEROES: fail with ENOTSUP rather than be as slow as a write.
  public static let fastZero = CommandFlags(rawValue: 1 << 4)
  /// Extended headers: payload follows, and the request's length is that of the payload.
  public static let payloadLength = CommandFlags(rawValue: 1 << 5)
}

/// An error number of the protocol: neither this machine's errno nor a negated one. A client
/// treats what has no name here like EINVAL.
public struct ErrorNumber: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Success.
  public static let none = ErrorNumber(rawValue: 0)
  /// The export is read-only, or the server may not write to what is behind it.
  public static let eperm = ErrorNumber(rawValue: 1)
  /// The medium failed.
  public static let eio = ErrorNumber(rawValue: 5)
  /// No memory for the request; a server is to avoid it.
  public static let enomem = ErrorNumber(rawValue: 12)
  /// An unknown command or flag, a misaligned or too long request, or a range past the end that was
  /// not to be written.
  public static let einval = ErrorNumber(rawValue: 22)
  /// No space left, or a write past the end of the export.
  public static let enospc = ErrorNumber(rawValue: 28)
  /// A READ with `CommandFlags.df` that is too long for one piece, or a range too long for its
  /// command.
  public static let eoverflow = ErrorNumber(rawValue: 75)
  /// WRITE_ZEROES with `CommandFlags.fastZero` that would not be fast; the contents are untouched.
  public static let enotsup = ErrorNumber(rawValue: 95)
  /// The server is stopping, and the client must disconnect.
  public static let eshutdown = ErrorNumber(rawValue: 108)

  /// The number's name in the specification, for people; nil for a number without one.
  public var name: String? {
    switch rawValue {
    case 0: "success"
    case 1: "EPERM"
    case 5: "EIO"
    case 12: "ENOMEM"
    case 22: "EINVAL"
    case 28: "ENOSPC"
    case 75: "EOVERFLOW"
    case 95: "ENOTSUP"
    case 108: "ESHUTDOWN"
    default: nil
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The numbers of the transmission phase. Source: NBD `doc/proto.md`, "Request types", "Command
// flags" and "Error values".

public struct CommandCode: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let read = CommandCode(rawValue: 0)
  public static let write = CommandCode(rawValue: 1)
  public static let disconnect = CommandCode(rawValue: 2)
  public static let flush = CommandCode(rawValue: 3)
  public static let trim = CommandCode(rawValue: 4)
  public static let cache = CommandCode(rawValue: 5)
  public static let writeZeroes = CommandCode(rawValue: 6)
  public static let blockStatus = CommandCode(rawValue: 7)
  public static let resize = CommandCode(rawValue: 8)
}

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

  public static let none = ErrorNumber(rawValue: 0)
  public static let eperm = ErrorNumber(rawValue: 1)
  public static let eio = ErrorNumber(rawValue: 5)
  public static let enomem = ErrorNumber(rawValue: 12)
  public static let einval = ErrorNumber(rawValue: 22)
  public static let enospc = ErrorNumber(rawValue: 28)
  public static let eoverflow = ErrorNumber(rawValue: 75)
  public static let enotsup = ErrorNumber(rawValue: 95)
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

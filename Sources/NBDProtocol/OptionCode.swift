// SPDX-License-Identifier: Apache-2.0
// The numbers of option haggling. All sets are open: a peer may send what has no name here.
// Source: NBD `doc/proto.md`, "Option types", "Option reply types", "NBD_INFO information types".

public struct OptionCode: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let exportName = OptionCode(rawValue: 1)
  public static let abort = OptionCode(rawValue: 2)
  public static let list = OptionCode(rawValue: 3)
  public static let peekExport = OptionCode(rawValue: 4)
  public static let startTLS = OptionCode(rawValue: 5)
  public static let info = OptionCode(rawValue: 6)
  public static let go = OptionCode(rawValue: 7)
  public static let structuredReply = OptionCode(rawValue: 8)
  public static let listMetaContext = OptionCode(rawValue: 9)
  public static let setMetaContext = OptionCode(rawValue: 10)
  public static let extendedHeaders = OptionCode(rawValue: 11)
  /// Ours, not the specification's: `SessionIdentity`.
  public static let session = OptionCode(rawValue: 0x726c_6b01)
}

public struct OptionReplyType: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let ack = OptionReplyType(rawValue: 1)
  public static let server = OptionReplyType(rawValue: 2)
  public static let info = OptionReplyType(rawValue: 3)
  public static let metaContext = OptionReplyType(rawValue: 4)
  public static let errUnsup = OptionReplyType(rawValue: 0x8000_0001)
  public static let errPolicy = OptionReplyType(rawValue: 0x8000_0002)
  public static let errInvalid = OptionReplyType(rawValue: 0x8000_0003)
  public static let errPlatform = OptionReplyType(rawValue: 0x8000_0004)
  public static let errTLSRequired = OptionReplyType(rawValue: 0x8000_0005)
  public static let errUnknown = OptionReplyType(rawValue: 0x8000_0006)
  public static let errShutdown = OptionReplyType(rawValue: 0x8000_0007)
  public static let errBlockSizeRequired = OptionReplyType(rawValue: 0x8000_0008)
  public static let errTooBig = OptionReplyType(rawValue: 0x8000_0009)
  public static let errExtHeaderRequired = OptionReplyType(rawValue: 0x8000_000a)

  /// Also true for errors without a name here: a client takes those for a refusal.
  public var isError: Bool { rawValue & 0x8000_0000 != 0 }
  /// Nothing follows in answer to the same option.
  public var isFinal: Bool { isError || self == .ack }
}

/// What an INFO reply tells, and what INFO and GO ask for.
public struct InformationType: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let export = InformationType(rawValue: 0)
  public static let name = InformationType(rawValue: 1)
  public static let description = InformationType(rawValue: 2)
  public static let blockSize = InformationType(rawValue: 3)
}

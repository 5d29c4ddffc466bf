// SPDX-License-Identifier: Apache-2.0
// The numbers of option haggling. All sets are open: a peer may send what has no name here.
// Source: NBD `doc/proto.md`, "Option types", "Option reply types", "NBD_INFO information types".

/// What a client asks before the transmission phase. A server answers ERR_UNSUP to what it does not
/// know, and goes on.
public struct OptionCode: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Enters the export with this name; has no reply header, and to say no the server hangs up.
  public static let exportName = OptionCode(rawValue: 1)
  /// The client leaves; answered ACK, and the connection ends.
  public static let abort = OptionCode(rawValue: 2)
  /// Asks for the names of all exports: SERVER replies, then ACK.
  public static let list = OptionCode(rawValue: 3)
  /// Withdrawn; answered ERR_UNSUP.
  public static let peekExport = OptionCode(rawValue: 4)
  /// TLS from the ACK on. This server answers ERR_UNSUP.
  public static let startTLS = OptionCode(rawValue: 5)
  /// Asks about an export without entering it: INFO replies, then ACK.
  public static let info = OptionCode(rawValue: 6)
  /// As `info`; after the ACK the transmission phase begins.
  public static let go = OptionCode(rawValue: 7)
  /// READ and BLOCK_STATUS are answered in chunks from now on; not to be sent for a connection that
  /// the kernel's nbd driver takes over.
  public static let structuredReply = OptionCode(rawValue: 8)
  /// Asks which metadata contexts an export has: META_CONTEXT replies, then ACK.
  public static let listMetaContext = OptionCode(rawValue: 9)
  /// Chooses the contexts that BLOCK_STATUS answers for, and forgets what was chosen before.
  public static let setMetaContext = OptionCode(rawValue: 10)
  /// Of the branch `extension-ext-header`: requests and replies with lengths of 64 bits.
  public static let extendedHeaders = OptionCode(rawValue: 11)
  /// Ours, not the specification's: `SessionIdentity`.
  public static let session = OptionCode(rawValue: 0x726c_6b01)
}

/// What a server answers an option. An error's data is text for people, perhaps empty.
public struct OptionReplyType: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Done, without data; the last reply to its option.
  public static let ack = OptionReplyType(rawValue: 1)
  /// One export of the answer to LIST: `ListedExport`.
  public static let server = OptionReplyType(rawValue: 2)
  /// One fact about an export, in answer to INFO and GO: `InformationItem`.
  public static let info = OptionReplyType(rawValue: 3)
  /// One context in answer to LIST_META_CONTEXT and SET_META_CONTEXT: `MetaContext`.
  public static let metaContext = OptionReplyType(rawValue: 4)
  /// The server does not know the option, or does not have it.
  public static let errUnsup = OptionReplyType(rawValue: 0x8000_0001)
  /// Known, but forbidden by the server's configuration.
  public static let errPolicy = OptionReplyType(rawValue: 0x8000_0002)
  /// Malformed data, or an option that is out of place.
  public static let errInvalid = OptionReplyType(rawValue: 0x8000_0003)
  /// Known, but not possible in this build or on this system.
  public static let errPlatform = OptionReplyType(rawValue: 0x8000_0004)
  /// Only after STARTTLS; also hides whether a name exists.
  public static let errTLSRequired = OptionReplyType(rawValue: 0x8000_0005)
  /// No export of this name; the client may try another on the same connection.
  public static let errUnknown = OptionReplyType(rawValue: 0x8000_0006)
  /// The server is stopping: the client must leave.
  public static let errShutdown = OptionReplyType(rawValue: 0x8000_0007)
  /// Only for a client that asks for `InformationType.blockSize`, and so promises to obey it.
  public static let errBlockSizeRequired = OptionReplyType(rawValue: 0x8000_0008)
  /// The request or its answer is too large for the server.
  public static let errTooBig = OptionReplyType(rawValue: 0x8000_0009)
  /// Of the branch `extension-ext-header`: only after EXTENDED_HEADERS.
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

  /// The size and the transmission flags; sent whether it is asked for or not.
  public static let export = InformationType(rawValue: 0)
  /// The export's canonical name.
  public static let name = InformationType(rawValue: 1)
  /// Text for people.
  public static let description = InformationType(rawValue: 2)
  /// `BlockSizes`; who asks for it in GO must obey it.
  public static let blockSize = InformationType(rawValue: 3)
}

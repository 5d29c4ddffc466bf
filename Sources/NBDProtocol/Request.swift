// SPDX-License-Identifier: Apache-2.0
// One command of the transmission phase.

import WireFormat

/// All big-endian; a WRITE is followed by `byteCount` bytes of payload.
/// Source: NBD `doc/proto.md`, "Request message".
public struct Request: Equatable, Sendable, WireEncodable {
  /// Of the request without its payload.
  public static let byteCount = 28
  /// NBD_REQUEST_MAGIC.
  public static let magic: UInt32 = 0x2560_9513

  /// A set with bits that have no name here is kept, for the server to refuse.
  public var flags: CommandFlags
  /// A number without a name here is kept, for the server to refuse.
  public var command: CommandCode
  /// Opaque; comes back in the reply.
  public var cookie: UInt64
  /// In bytes from the start of the export.
  public var offset: UInt64
  /// In bytes; what a READ or WRITE moves, or the extent that the command is about.
  public var length: UInt32

  public init(
    flags: CommandFlags = [], command: CommandCode, cookie: UInt64, offset: UInt64 = 0,
    length: UInt32 = 0
  ) {
    self.flags = flags
    self.command = command
    self.cookie = cookie
    self.offset = offset
    self.length = length
  }

  /// A wrong magic means that the stream has lost its frame: the connection is of no more use.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt32.self, at: 0)
    guard magic == Self.magic else {
      throw .magic(expected: UInt64(Self.magic), actual: UInt64(magic))
    }
    flags = CommandFlags(rawValue: bytes.bigEndian(UInt16.self, at: 4))
    command = CommandCode(rawValue: bytes.bigEndian(UInt16.self, at: 6))
    cookie = bytes.bigEndian(UInt64.self, at: 8)
    offset = bytes.bigEndian(UInt64.self, at: 16)
    length = bytes.bigEndian(UInt32.self, at: 24)
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: flags.rawValue)
    output.append(bigEndian: command.rawValue)
    output.append(bigEndian: cookie)
    output.append(bigEndian: offset)
    output.append(bigEndian: length)
  }
}

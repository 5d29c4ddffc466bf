// SPDX-License-Identifier: Apache-2.0
// One command of the transmission phase with extended headers, which is also what the server makes
// of a compact one: it has every field that the other has.

import WireFormat

/// All big-endian; payload follows when PAYLOAD_LEN is set, `length` bytes of it.
/// Source: NBD `doc/proto.md` of the branch `extension-ext-header`, "Extended request message".
public struct ExtendedRequest: Equatable, Sendable, WireEncodable {
  /// Of the request without its payload.
  public static let byteCount = 32
  /// NBD_EXTENDED_REQUEST_MAGIC, where a compact request has `Request.magic`.
  public static let magic: UInt32 = 0x21e4_1c71

  /// A set with bits that have no name here is kept, for the server to refuse.
  public var flags: CommandFlags
  /// A number without a name here is kept, for the server to refuse.
  public var command: CommandCode
  /// Opaque; comes back in the reply.
  public var cookie: UInt64
  /// In bytes from the start of the export.
  public var offset: UInt64
  /// In bytes: of the payload when there is one, or the extent that the command is about.
  public var length: UInt64

  public init(
    flags: CommandFlags = [], command: CommandCode, cookie: UInt64, offset: UInt64 = 0,
    length: UInt64 = 0
  ) {
    self.flags = flags
    self.command = command
    self.cookie = cookie
    self.offset = offset
    self.length = length
  }

  /// The compact request in the fields of the extended one, its flags as they are: whether payload
  /// follows is then said by its command, not by PAYLOAD_LEN.
  public init(_ request: Request) {
    flags = request.flags
    command = request.command
    cookie = request.cookie
    offset = request.offset
    length = UInt64(request.length)
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
    length = bytes.bigEndian(UInt64.self, at: 24)
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

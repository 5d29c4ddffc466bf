// SPDX-License-Identifier: Apache-2.0
// Replies that come in chunks: the heads of both kinds, and what each type carries.
// Source: NBD `doc/proto.md`, "Structured reply chunk message" and, for the extended ones, the
// same of the branch `extension-ext-header`.

import WireFormat

/// Bits without a name here are ignored.
public struct ChunkFlags: OptionSet, Sendable {
  /// As on the wire.
  public let rawValue: UInt16
  /// Whatever came: unknown values are kept.
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The last chunk of a reply, and only it.
  public static let done = ChunkFlags(rawValue: 1 << 0)
}

/// What a chunk carries. A client that meets an unknown type fails the request when the type is an
/// error, and hangs up when it is not.
public struct ChunkType: RawRepresentable, Equatable, Sendable {
  /// As on the wire.
  public let rawValue: UInt16
  /// Whatever came: unknown values are kept.
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// Nothing; for `done` alone.
  public static let none = ChunkType(rawValue: 0)
  /// u64 offset, and the bytes of a READ from there on, at least one.
  public static let offsetData = ChunkType(rawValue: 1)
  /// A piece of a READ that is zeroes: `HoleChunk`.
  public static let offsetHole = ChunkType(rawValue: 2)
  /// The extents of one context: `BlockStatusChunk`.
  public static let blockStatus = ChunkType(rawValue: 5)
  /// Only with extended headers, where it stands for `blockStatus`.
  public static let blockStatusExtended = ChunkType(rawValue: 6)
  /// The whole request failed: `ErrorChunk` without an offset.
  public static let error = ChunkType(rawValue: 0x8001)
  /// The request failed at an offset: `ErrorChunk` with it.
  public static let errorOffset = ChunkType(rawValue: 0x8002)

  /// Also true for errors without a name here.
  public var isError: Bool { rawValue & 0x8000 != 0 }
}

/// All big-endian; the payload follows.
public struct StructuredChunkHeader: Equatable, Sendable, WireEncodable {
  /// Of the header without its payload.
  public static let byteCount = 20
  /// NBD_STRUCTURED_REPLY_MAGIC.
  public static let magic: UInt32 = 0x668e_33ef

  /// `done` on the last chunk of the answer.
  public var flags: ChunkFlags
  /// A number without a name here is kept: `isError` says how to take it.
  public var type: ChunkType
  /// As sent in the request.
  public var cookie: UInt64
  /// As the server says: nothing may be allocated by it before it has met a limit.
  public var payloadByteCount: UInt32

  /// `cookie` is the request's.
  public init(flags: ChunkFlags, type: ChunkType, cookie: UInt64, payloadByteCount: UInt32) {
    self.flags = flags
    self.type = type
    self.cookie = cookie
    self.payloadByteCount = payloadByteCount
  }

  /// Takes exactly `byteCount` bytes. A wrong magic means that the stream has lost its frame.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt32.self, at: 0)
    guard magic == Self.magic else {
      throw .magic(expected: UInt64(Self.magic), actual: UInt64(magic))
    }
    flags = ChunkFlags(rawValue: bytes.bigEndian(UInt16.self, at: 4))
    type = ChunkType(rawValue: bytes.bigEndian(UInt16.self, at: 6))
    cookie = bytes.bigEndian(UInt64.self, at: 8)
    payloadByteCount = bytes.bigEndian(UInt32.self, at: 16)
  }

  /// In bytes, as on the wire.
  public var encodedByteCount: Int { Self.byteCount }
  /// As on the wire; `output` has room for `encodedByteCount` bytes.
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: flags.rawValue)
    output.append(bigEndian: type.rawValue)
    output.append(bigEndian: cookie)
    output.append(bigEndian: payloadByteCount)
  }
}

/// All big-endian; the payload follows. With extended headers there is no other kind of reply.
public struct ExtendedChunkHeader: Equatable, Sendable, WireEncodable {
  /// Of the header without its payload.
  public static let byteCount = 32
  /// NBD_EXTENDED_REPLY_MAGIC.
  public static let magic: UInt32 = 0x6e8a_278c

  /// `done` on the last chunk of the answer.
  public var flags: ChunkFlags
  /// A number without a name here is kept: `isError` says how to take it.
  public var type: ChunkType
  /// As sent in the request.
  public var cookie: UInt64
  /// That of the request, whatever the chunk is about.
  public var offset: UInt64
  /// As the server says: nothing may be allocated by it before it has met a limit.
  public var payloadByteCount: UInt64

  /// `cookie` and `offset` are the request's.
  public init(
    flags: ChunkFlags, type: ChunkType, cookie: UInt64, offset: UInt64, payloadByteCount: UInt64
  ) {
    self.flags = flags
    self.type = type
    self.cookie = cookie
    self.offset = offset
    self.payloadByteCount = payloadByteCount
  }

  /// Takes exactly `byteCount` bytes. A wrong magic means that the stream has lost its frame.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let magic = bytes.bigEndian(UInt32.self, at: 0)
    guard magic == Self.magic else {
      throw .magic(expected: UInt64(Self.magic), actual: UInt64(magic))
    }
    flags = ChunkFlags(rawValue: bytes.bigEndian(UInt16.self, at: 4))
    type = ChunkType(rawValue: bytes.bigEndian(UInt16.self, at: 6))
    cookie = bytes.bigEndian(UInt64.self, at: 8)
    offset = bytes.bigEndian(UInt64.self, at: 16)
    payloadByteCount = bytes.bigEndian(UInt64.self, at: 24)
  }

  /// In bytes, as on the wire.
  public var encodedByteCount: Int { Self.byteCount }
  /// As on the wire; `output` has room for `encodedByteCount` bytes.
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: Self.magic)
    output.append(bigEndian: flags.rawValue)
    output.append(bigEndian: type.rawValue)
    output.append(bigEndian: cookie)
    output.append(bigEndian: offset)
    output.append(bigEndian: payloadByteCount)
  }
}

/// The payload of OFFSET_HOLE: a piece of a READ that is zeroes. OFFSET_DATA has the same offset,
/// and then the bytes themselves.
public struct HoleChunk: Equatable, Sendable, WireEncodable {
  /// Of the payload: u64 offset, u32 length.
  public static let byteCount = 12

  /// In bytes from the start of the export.
  public var offset: UInt64
  /// Not 0.
  public var byteCount: UInt32

  /// Of the export, in bytes.
  public init(offset: UInt64, byteCount: UInt32) {
    self.offset = offset
    self.byteCount = byteCount
  }

  /// Takes all of a chunk's payload; refuses a hole of length 0.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    offset = bytes.bigEndian(UInt64.self, at: 0)
    byteCount = bytes.bigEndian(UInt32.self, at: 8)
    guard byteCount > 0 else { throw .value(field: "hole length", actual: 0) }
  }

  /// In bytes, as on the wire.
  public var encodedByteCount: Int { Self.byteCount }
  /// As on the wire; `output` has room for `encodedByteCount` bytes.
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: offset)
    output.append(bigEndian: byteCount)
  }
}

/// The payload of ERROR and of ERROR_OFFSET: u32 error, u16 length, text, and for the latter u64
/// offset.
public struct ErrorChunk: Equatable, Sendable, WireEncodable {
  /// Not `none`.
  public var error: ErrorNumber
  /// For people.
  public var text: ByteString
  /// Where a READ went wrong; nil when all of the reply is void.
  public var offset: UInt64?

  /// `text` is for people, and may be empty.
  public init(error: ErrorNumber, text: ByteString = "", offset: UInt64? = nil) {
    self.error = error
    self.text = text
    self.offset = offset
  }

  /// What the chunk's header must name.
  public var type: ChunkType { offset == nil ? .error : .errorOffset }

  /// `type` is one of the two.
  public init(decoding bytes: Span<UInt8>, type: ChunkType) throws(WireError) {
    let tail = type == .errorOffset ? 8 : 0
    guard bytes.count >= 6 + tail else {
      throw .byteCount(expected: 6 + tail, actual: bytes.count)
    }
    error = ErrorNumber(rawValue: bytes.bigEndian(UInt32.self, at: 0))
    guard error != .none else { throw .value(field: "error", actual: 0) }
    let textEnd = 6 + Int(bytes.bigEndian(UInt16.self, at: 4))
    guard bytes.count == textEnd + tail else {
      throw .byteCount(expected: textEnd + tail, actual: bytes.count)
    }
    text = try ExportString.decode(bytes, 6..<textEnd, field: "error text")
    offset = tail == 0 ? nil : bytes.bigEndian(UInt64.self, at: textEnd)
  }

  /// In bytes, as on the wire.
  public var encodedByteCount: Int { 6 + text.count + (offset == nil ? 0 : 8) }
  /// As on the wire; `output` has room for `encodedByteCount` bytes.
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: error.rawValue)
    output.append(bigEndian: UInt16(truncatingIfNeeded: text.count))
    output.append(bytes: text.bytes)
    if let offset { output.append(bigEndian: offset) }
  }
}

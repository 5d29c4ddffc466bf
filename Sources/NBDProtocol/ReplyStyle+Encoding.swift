// SPDX-License-Identifier: Apache-2.0
// The server's answers, in the words that were agreed on. Nothing here allocates.

import WireFormat

extension ReplyStyle {
  /// No head that is written here is longer: an extended chunk and the content of a hole.
  public static let headByteCountMaximum = ExtendedChunkHeader.byteCount + HoleChunk.byteCount

  /// Between the start of the answer to a READ, or of one data chunk of it, and its data.
  public var dataHeadByteCount: Int {
    switch self {
    case .simple: SimpleReply.byteCount
    case .structured: StructuredChunkHeader.byteCount + 8
    case .extended: ExtendedChunkHeader.byteCount + 8
    }
  }

  /// The answer to `request` when it has no data: of all commands when it is an error, else of all
  /// but READ and BLOCK_STATUS, and of a READ of nothing.
  public func encode(
    _ error: ErrorNumber, to request: ExtendedRequest, into output: inout OutputSpan<UInt8>
  ) {
    // Where both words are allowed, the shorter.
    let isChunk =
      self == .extended
      || (self == .structured && (request.command == .read || request.command == .blockStatus))
    guard isChunk else {
      return SimpleReply(error: error, cookie: request.cookie).encode(into: &output)
    }
    guard error != .none else {
      return encodeHead(.none, of: request, isLast: true, payloadByteCount: 0, into: &output)
    }
    encodeHead(.error, of: request, isLast: true, payloadByteCount: 6, into: &output)
    output.append(bigEndian: error.rawValue)
    output.append(bigEndian: UInt16(0))  // No text: the number says it, and costs nothing.
  }

  /// What precedes `byteCount` bytes of data from `offset` on, at least one. With simple replies
  /// these are all that `request` asked for.
  public func encodeDataHead(
    of request: ExtendedRequest, offset: UInt64, byteCount: Int, isLast: Bool,
    into output: inout OutputSpan<UInt8>
  ) {
    guard self != .simple else {
      return SimpleReply(error: .none, cookie: request.cookie).encode(into: &output)
    }
    encodeHead(
      .offsetData, of: request, isLast: isLast, payloadByteCount: 8 &+ byteCount, into: &output)
    output.append(bigEndian: offset)
  }

  /// All of a chunk that stands for `byteCount` zeroes from `offset` on. Not with simple replies.
  public func encodeHole(
    of request: ExtendedRequest, offset: UInt64, byteCount: Int, isLast: Bool,
    into output: inout OutputSpan<UInt8>
  ) {
    encodeHead(
      .offsetHole, of: request, isLast: isLast, payloadByteCount: HoleChunk.byteCount,
      into: &output)
    HoleChunk(offset: offset, byteCount: UInt32(truncatingIfNeeded: byteCount))
      .encode(into: &output)
  }

  /// The head of a chunk of structured and extended replies.
  public func encodeHead(
    _ type: ChunkType, of request: ExtendedRequest, isLast: Bool, payloadByteCount: Int,
    into output: inout OutputSpan<UInt8>
  ) {
    let flags: ChunkFlags = isLast ? .done : []
    guard self == .extended else {
      return StructuredChunkHeader(
        flags: flags, type: type, cookie: request.cookie,
        payloadByteCount: UInt32(truncatingIfNeeded: payloadByteCount)
      ).encode(into: &output)
    }
    ExtendedChunkHeader(
      flags: flags, type: type, cookie: request.cookie, offset: request.offset,
      payloadByteCount: UInt64(payloadByteCount)
    ).encode(into: &output)
  }
}

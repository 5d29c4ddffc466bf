// SPDX-License-Identifier: Apache-2.0
// What BLOCK_STATUS answers, and what it may be asked with.
// Source: NBD `doc/proto.md`, "NBD_REPLY_TYPE_BLOCK_STATUS" and, for the extended form, the same of
// the branch `extension-ext-header`.

import WireFormat

/// The value of an extent in base:allocation. None: data, or nothing is known.
public struct AllocationFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Takes no space; a write may find that there is none.
  public static let hole = AllocationFlags(rawValue: 1 << 0)
  /// Reads as zeroes.
  public static let zero = AllocationFlags(rawValue: 1 << 1)
}

/// One run of an export's bytes that have the same `flags`; where it begins follows from those
/// before it.
public struct ExtentStatus: Equatable, Sendable {
  /// Not 0; at most 32 bits in the compact form.
  public var byteCount: UInt64
  /// Bits without a name here are kept as the peer sent them.
  public var flags: AllocationFlags

  public init(byteCount: UInt64, flags: AllocationFlags) {
    self.byteCount = byteCount
    self.flags = flags
  }
}

/// The payload of BLOCK_STATUS: u32 context, then u32 length and u32 flags of each extent; or of
/// BLOCK_STATUS_EXT: u32 context, u32 count, then u64 length and u64 flags of each.
public struct BlockStatusChunk: Equatable, Sendable, WireEncodable {
  /// Source: NBD `doc/proto.md`: a client may hang up on more.
  public static let extentCountMaximum = 1 << 20

  /// The number that the server gave the context when it was set; `MetaContext.allocationID` of
  /// this server.
  public var contextID: UInt32
  /// At least one.
  public var extents: [ExtentStatus]
  /// In the form of BLOCK_STATUS_EXT: with extended headers, and only with them.
  public var isExtended: Bool

  public init(contextID: UInt32, extents: [ExtentStatus], isExtended: Bool) {
    self.contextID = contextID
    self.extents = extents
    self.isExtended = isExtended
  }

  /// Takes all of a chunk's payload. Refuses no extent at all, more than `extentCountMaximum`, a
  /// count that differs from the extents that are there, and an extent of length 0.
  public init(decoding bytes: Span<UInt8>, isExtended: Bool) throws(WireError) {
    let (head, each) = isExtended ? (8, 16) : (4, 8)
    guard bytes.count >= head + each, (bytes.count - head) % each == 0 else {
      throw .byteCount(expected: head + each, actual: bytes.count)
    }
    let count = (bytes.count - head) / each
    guard count <= Self.extentCountMaximum else {
      throw .limit(
        field: "extent count", maximum: UInt64(Self.extentCountMaximum), actual: UInt64(count))
    }
    if isExtended {
      let said = bytes.bigEndian(UInt32.self, at: 4)
      guard said == UInt32(count) else { throw .value(field: "extent count", actual: UInt64(said)) }
    }
    contextID = bytes.bigEndian(UInt32.self, at: 0)
    self.isExtended = isExtended
    extents = []
    extents.reserveCapacity(count)
    for index in 0..<count {
      let at = head + index * each
      let byteCount =
        isExtended
        ? bytes.bigEndian(UInt64.self, at: at) : UInt64(bytes.bigEndian(UInt32.self, at: at))
      let flags =
        isExtended
        ? bytes.bigEndian(UInt64.self, at: at + 8)
        : UInt64(bytes.bigEndian(UInt32.self, at: at + 4))
      guard byteCount > 0 else { throw .value(field: "extent length", actual: 0) }
      extents.append(ExtentStatus(byteCount: byteCount, flags: AllocationFlags(rawValue: flags)))
    }
  }

  /// What the chunk's header must name.
  public var type: ChunkType { isExtended ? .blockStatusExtended : .blockStatus }

  public var encodedByteCount: Int { isExtended ? 8 + 16 * extents.count : 4 + 8 * extents.count }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: contextID)
    if isExtended { output.append(bigEndian: UInt32(truncatingIfNeeded: extents.count)) }
    for extent in extents {
      if isExtended {
        output.append(bigEndian: extent.byteCount)
        output.append(bigEndian: extent.flags.rawValue)
      } else {
        output.append(bigEndian: UInt32(truncatingIfNeeded: extent.byteCount))
        output.append(bigEndian: UInt32(truncatingIfNeeded: extent.flags.rawValue))
      }
    }
  }
}

/// The payload of BLOCK_STATUS with PAYLOAD_LEN: u64 length of the range, then the u32 ids of the
/// contexts that the answer is to be about.
public struct BlockStatusQuery: Equatable, Sendable, WireEncodable {
  /// No server has as many contexts.
  public static let contextCountMaximum = 64
  /// The longest payload that decodes.
  public static let byteCountMaximum = 8 + 4 * contextCountMaximum

  /// Of the range, from the request's offset.
  public var length: UInt64
  /// At least one, and none twice.
  public var contextIDs: [UInt32]

  public init(length: UInt64, contextIDs: [UInt32]) {
    self.length = length
    self.contextIDs = contextIDs
  }

  /// Takes all of a request's payload. Refuses one without a context, more contexts than
  /// `contextCountMaximum`, and a context that is there twice.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 12, bytes.count % 4 == 0 else {
      throw .byteCount(expected: 12, actual: bytes.count)
    }
    guard bytes.count <= Self.byteCountMaximum else {
      throw .limit(
        field: "query length", maximum: UInt64(Self.byteCountMaximum), actual: UInt64(bytes.count))
    }
    length = bytes.bigEndian(UInt64.self, at: 0)
    contextIDs = []
    for index in 0..<((bytes.count - 8) / 4) {
      let id = bytes.bigEndian(UInt32.self, at: 8 + 4 * index)
      guard !contextIDs.contains(id) else {
        throw .value(field: "repeated context", actual: UInt64(id))
      }
      contextIDs.append(id)
    }
  }

  public var encodedByteCount: Int { 8 + 4 * contextIDs.count }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: length)
    for id in contextIDs { output.append(bigEndian: id) }
  }
}

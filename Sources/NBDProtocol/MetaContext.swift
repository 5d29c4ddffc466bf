// SPDX-License-Identifier: Apache-2.0
// Metadata contexts: what BLOCK_STATUS can tell about an export, and how a client chooses of it.

import WireFormat

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT, all big-endian: u32 name length, name, u32
/// query count, then u32 length and text of each query.
/// Source: NBD `doc/proto.md`, "NBD_OPT_LIST_META_CONTEXT".
public struct MetaContextRequest: Equatable, Sendable, WireEncodable {
  /// Clients ask for a handful; one bitmap a snapshot of a disk image is the most that is known.
  public static let queryCountMaximum = 1024
  /// The longest data that a server looks at.
  public static let byteCountMaximum = 64 << 10

  /// Of the export; empty for the default one.
  public var name: ByteString
  /// Each `namespace:leaf`, or what a namespace takes for a wildcard; not looked at here.
  public var queries: [ByteString]

  public init(name: ByteString, queries: [ByteString]) {
    self.name = name
    self.queries = queries
  }

  /// Takes all of an option's data. A length that points outside is told apart from a string or
  /// a count that is there and above its limit.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    var position = 0
    name = try Self.string(bytes, at: &position, field: "name length", text: "export name")
    guard bytes.count - position >= 4 else {
      throw .byteCount(expected: position + 4, actual: bytes.count)
    }
    let count = bytes.bigEndian(UInt32.self, at: position)
    position += 4
    // Each query has its length at least.
    guard UInt64(count) * 4 <= UInt64(bytes.count - position) else {
      throw .value(field: "query count", actual: UInt64(count))
    }
    guard count <= UInt32(Self.queryCountMaximum) else {
      throw .limit(
        field: "query count", maximum: UInt64(Self.queryCountMaximum), actual: UInt64(count))
    }
    queries = []
    queries.reserveCapacity(Int(count))
    for _ in 0..<count {
      queries.append(try Self.string(bytes, at: &position, field: "query length", text: "query"))
    }
    guard position == bytes.count else {
      throw .byteCount(expected: position, actual: bytes.count)
    }
  }

  /// u32 length and so many bytes.
  private static func string(
    _ bytes: Span<UInt8>, at position: inout Int, field: StaticFieldName, text: StaticFieldName
  ) throws(WireError) -> ByteString {
    guard bytes.count - position >= 4 else {
      throw .byteCount(expected: position + 4, actual: bytes.count)
    }
    let length = bytes.bigEndian(UInt32.self, at: position)
    let start = position + 4
    guard UInt64(length) <= UInt64(bytes.count - start) else {
      throw .value(field: field, actual: UInt64(length))
    }
    position = start + Int(length)
    return try ExportString.decode(bytes, start..<position, field: text)
  }

  public var encodedByteCount: Int {
    var count = 8 + name.count
    for query in queries { count += 4 + query.count }
    return count
  }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: UInt32(truncatingIfNeeded: name.count))
    output.append(bytes: name.bytes)
    output.append(bigEndian: UInt32(truncatingIfNeeded: queries.count))
    for query in queries {
      output.append(bigEndian: UInt32(truncatingIfNeeded: query.count))
      output.append(bytes: query.bytes)
    }
  }
}

/// The data of a META_CONTEXT reply: u32 id, big-endian, then the name.
/// Source: NBD `doc/proto.md`, "NBD_REP_META_CONTEXT".
public struct MetaContext: Equatable, Sendable, WireEncodable {
  /// The only one that the server has: what is allocated, what reads as zeroes.
  public static let allocationName: ByteString = "base:allocation"
  static let allocationNamespace: ByteString = "base:"
  /// The number that BLOCK_STATUS answers with; ours to choose.
  public static let allocationID: UInt32 = 1

  /// Means nothing in the answer to LIST_META_CONTEXT.
  public var id: UInt32
  /// `namespace:leaf`.
  public var name: ByteString

  public init(id: UInt32, name: ByteString) {
    self.id = id
    self.name = name
  }

  /// Takes all data of one META_CONTEXT reply.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 4 else { throw .byteCount(expected: 4, actual: bytes.count) }
    id = bytes.bigEndian(UInt32.self, at: 0)
    name = try ExportString.decode(bytes, 4..<bytes.count, field: "context name")
  }

  public var encodedByteCount: Int { 4 + name.count }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: id)
    output.append(bytes: name.bytes)
  }
}

extension MetaContextRequest {
  /// Whether LIST with these queries is about base:allocation. None at all asks for everything.
  var listsAllocation: Bool {
    if queries.isEmpty { return true }
    for query in queries
    where query == MetaContext.allocationName || query == MetaContext.allocationNamespace {
      return true
    }
    return false
  }

  /// Whether SET with these queries selects base:allocation: a namespace alone selects nothing.
  var selectsAllocation: Bool {
    for query in queries where query == MetaContext.allocationName { return true }
    return false
  }
}

// SPDX-License-Identifier: Apache-2.0
// What RTRS adds to a request. It lies behind the user's message at the end of what the client
// writes into the chunk, and the immediate says where:
//
//     0              data              data + user           the offset in the immediate
//     │  the data    │  user's message │  message of RTRS    │ ...
//
// The server counts backwards from it. So a read leaves as much room before its messages as it
// wants to get.

public import WireFormat

/// Why a request's message is none. A server can answer the last, and not the others.
public enum RequestMessageError: Error, Equatable, Sendable {
  /// Its type, or its descriptor, lies behind what there is.
  case truncated(byteCount: Int)
  /// A number that is neither a write's nor a read's.
  case unknownType(UInt16)
  /// More than one: Linux knows only one, and never answers.
  case descriptorCount(UInt16)
}

/// Source: `struct rtrs_msg_rdma_write` and `struct rtrs_msg_rdma_read`.
public enum RequestMessage: Equatable, Sendable, WireEncodable {
  /// The data, if any, come with it.
  case write(userByteCount: UInt16)
  /// The data are to be written to `destination`; nil when there are none. `wantsInvalidation`:
  /// its key is to come back in a SEND-WITH-INV, for keys of fast registration and of memory
  /// windows only.
  case read(userByteCount: UInt16, destination: RegionDescriptor?, wantsInvalidation: Bool)

  /// Of a read with a destination.
  public static let byteCountMaximum = 24
  private static let writeType: UInt16 = 2
  private static let readType: UInt16 = 3
  private static let needsInvalidation: UInt16 = 1

  /// How long the user's message is that lies before it, in bytes.
  public var userByteCount: UInt16 {
    switch self {
    case .write(let count): count
    case .read(let count, _, _): count
    }
  }

  /// `bytes`: what lies at the offset, a copy that nobody writes to, at least as long as the
  /// message; at most the first `byteCountMaximum` bytes are looked at.
  public init(decoding bytes: Span<UInt8>) throws(RequestMessageError) {
    guard bytes.count >= 4 else { throw .truncated(byteCount: bytes.count) }
    let userByteCount = bytes.littleEndian(UInt16.self, at: 2)
    switch bytes.littleEndian(UInt16.self, at: 0) {
    case Self.writeType: self = .write(userByteCount: userByteCount)
    case Self.readType:
      guard bytes.count >= 8 else { throw .truncated(byteCount: bytes.count) }
      let flags = bytes.littleEndian(UInt16.self, at: 4)
      let count = bytes.littleEndian(UInt16.self, at: 6)
      guard count <= 1 else { throw .descriptorCount(count) }
      guard bytes.count >= 8 + Int(count) * RegionDescriptor.byteCount else {
        throw .truncated(byteCount: bytes.count)
      }
      self = .read(
        userByteCount: userByteCount,
        destination: count == 1 ? RegionDescriptor(decoding: bytes, at: 8) : nil,
        wantsInvalidation: flags & Self.needsInvalidation != 0)
    case let type: throw .unknownType(type)
    }
  }

  public var encodedByteCount: Int {
    switch self {
    case .write: 4
    case .read(_, let destination, _): destination == nil ? 8 : Self.byteCountMaximum
    }
  }
  public func encode(into output: inout OutputSpan<UInt8>) {
    switch self {
    case .write(let userByteCount):
      output.append(littleEndian: Self.writeType)
      output.append(littleEndian: userByteCount)
    case .read(let userByteCount, let destination, let wantsInvalidation):
      output.append(littleEndian: Self.readType)
      output.append(littleEndian: userByteCount)
      output.append(littleEndian: wantsInvalidation ? Self.needsInvalidation : 0)
      output.append(littleEndian: UInt16(destination == nil ? 0 : 1))
      destination?.encode(into: &output)
    }
  }
}

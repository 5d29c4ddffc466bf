// SPDX-License-Identifier: Apache-2.0
// What every request must keep to, whatever protocol it came by.

import BlockBackends

/// What a request asks for, as the rules see it.
public enum RequestKind: Sendable, CaseIterable {
  /// `about`: asks about a range, or prepares it, and neither moves nor changes its bytes.
  case read, write, writeZeroes, trim, about

  /// Whether a read-only export refuses it.
  public var isWrite: Bool { self != .read && self != .about }
}

/// Why a request goes no further.
public enum RequestRefusal: Error, Equatable, Sendable {
  /// It writes, and the export is read-only.
  case readOnly
  /// It ends behind the export, or its sum does not fit in 64 bits.
  case outOfRange
  /// Its offset or length is no multiple of the minimum block.
  case misaligned
  /// A read or write above `RequestRules.payloadByteCountMaximum`.
  case tooLong
}

/// What the requests of one session are checked against; see `check`.
public struct RequestRules: Sendable {
  /// Of the export.
  public let byteCount: UInt64
  /// Requests that write are refused.
  public let isReadOnly: Bool
  private let alignmentMask: UInt64
  /// Offsets and lengths are multiples of it; a power of two.
  public var alignment: UInt64 { alignmentMask + 1 }
  /// The longest read or write.
  public let payloadByteCountMaximum: UInt64

  /// `payloadByteCountMaximum` in bytes, of a read or write; other requests carry no data, and may
  /// be longer.
  public init(_ geometry: ExportGeometry, payloadByteCountMaximum: UInt64) {
    byteCount = geometry.byteCount
    isReadOnly = geometry.isReadOnly
    alignmentMask = UInt64(geometry.blockSizes.minimum) - 1
    self.payloadByteCountMaximum = payloadByteCountMaximum
  }

  /// The range that the request is about. Any two numbers may be given. An empty range is fine
  /// wherever a longer one would be.
  public func check(
    _ kind: RequestKind, offset: UInt64, length: UInt64
  ) throws(RequestRefusal) -> Range<UInt64> {
    if isReadOnly, kind.isWrite { throw .readOnly }
    if kind == .read || kind == .write, length > payloadByteCountMaximum { throw .tooLong }
    // No sum before it is known to fit: offset + length may wrap.
    guard offset <= byteCount, length <= byteCount - offset else { throw .outOfRange }
    guard (offset | length) & alignmentMask == 0 else { throw .misaligned }
    return offset..<(offset + length)
  }
}

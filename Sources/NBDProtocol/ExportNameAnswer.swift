// SPDX-License-Identifier: Apache-2.0
// What follows EXPORT_NAME, without a reply header, when the server has the export.

import WireFormat

/// All big-endian; unless both sides set NO_ZEROES, `paddingByteCount` zero bytes follow.
/// Source: NBD `doc/proto.md`, "NBD_OPT_EXPORT_NAME".
public struct ExportNameAnswer: Equatable, Sendable, WireEncodable {
  /// Without the padding.
  public static let byteCount = 10
  /// Zeroes that say nothing. Source: NBD `doc/proto.md`, "NBD_OPT_EXPORT_NAME".
  public static let paddingByteCount = 124

  /// The size of the export, in bytes.
  public var exportByteCount: UInt64
  /// What the export can do; here the server cannot say more about it.
  public var flags: TransmissionFlags

  public init(exportByteCount: UInt64, flags: TransmissionFlags) {
    self.exportByteCount = exportByteCount
    self.flags = flags
  }

  /// Takes the answer without its padding: exactly `byteCount` bytes.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    exportByteCount = bytes.bigEndian(UInt64.self, at: 0)
    flags = TransmissionFlags(rawValue: bytes.bigEndian(UInt16.self, at: 8))
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(bigEndian: exportByteCount)
    output.append(bigEndian: flags.rawValue)
  }
}

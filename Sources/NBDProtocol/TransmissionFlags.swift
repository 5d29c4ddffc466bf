// SPDX-License-Identifier: Apache-2.0
// What an export can do. Source: NBD `doc/proto.md`, "Transmission flags".

/// A server sets what it supports; a client uses what is set and ignores bits without a name.
public struct TransmissionFlags: OptionSet, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// Always set.
  public static let hasFlags = TransmissionFlags(rawValue: 1 << 0)
  /// Writes of every kind fail with EPERM.
  public static let readOnly = TransmissionFlags(rawValue: 1 << 1)
  /// FLUSH may be sent.
  public static let sendFlush = TransmissionFlags(rawValue: 1 << 2)
  /// `CommandFlags.fua` may be set.
  public static let sendFUA = TransmissionFlags(rawValue: 1 << 3)
  /// A hint: seeks are expensive.
  public static let rotational = TransmissionFlags(rawValue: 1 << 4)
  /// TRIM may be sent.
  public static let sendTrim = TransmissionFlags(rawValue: 1 << 5)
  /// WRITE_ZEROES may be sent, with `CommandFlags.noHole` or without.
  public static let sendWriteZeroes = TransmissionFlags(rawValue: 1 << 6)
  /// Only with structured replies.
  public static let sendDF = TransmissionFlags(rawValue: 1 << 7)
  /// A flush or FUA answered on one connection holds for all connections.
  public static let canMultiConn = TransmissionFlags(rawValue: 1 << 8)
  /// Of the branch `extension-resize`; this server never sets it.
  public static let sendResize = TransmissionFlags(rawValue: 1 << 9)
  /// CACHE may be sent.
  public static let sendCache = TransmissionFlags(rawValue: 1 << 10)
  /// `CommandFlags.fastZero` may be set. Never without `sendWriteZeroes`.
  public static let sendFastZero = TransmissionFlags(rawValue: 1 << 11)
  /// Only with extended headers: BLOCK_STATUS may name the contexts that it is to be about.
  public static let blockStatusPayload = TransmissionFlags(rawValue: 1 << 12)
}

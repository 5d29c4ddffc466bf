// SPDX-License-Identifier: Apache-2.0
import NBDProtocol

/// Sizes and times of a device whose data we carry. Source: rootlink(8).
struct UblkLimits: Sendable {
  /// Requests that the kernel has out at a time, as the kernel's own nbd driver has it.
  static let queueDepth: UInt16 = 128
  /// Data are not kept in buffers of ours (user copy), so that longer requests cost no memory.
  static let requestByteCountMaximum: UInt32 = 512 << 10
  /// A server that answers others and leaves one request open for so many times the limit on
  /// silence has forgotten it.
  static let forgottenFactor: UInt64 = 6
  static let silenceFactorMaximum: UInt64 = 8
  static let lookNanoseconds: UInt64 = 500_000_000

  /// A connection that owes an answer and says nothing for so long is given up.
  var silenceNanoseconds = Detection.answerSecondsDefault * 1_000_000_000
  /// With no connection for so long requests fail; 0 is never.
  var deadNanoseconds: UInt64 = 0
  /// The server takes FUA.
  var takesFUA = true

  /// What the kernel is told of an answer: bytes, 0, or a negated errno of this machine.
  static func result(_ error: ErrorNumber, _ command: CommandCode, _ length: UInt32) -> Int32 {
    switch error {
    case .none:
      command == .read || command == .write ? Int32(truncatingIfNeeded: length) : 0
    case .eperm: -1
    case .eio: -5
    case .enomem: -12
    case .enospc: -28
    case .eoverflow: -75
    case .enotsup: -95
    default: -22  // What has no name is EINVAL. Source: NBD `doc/proto.md`, "Error values".
    }
  }
}

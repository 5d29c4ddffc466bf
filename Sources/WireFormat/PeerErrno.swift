// SPDX-License-Identifier: Apache-2.0
// What went wrong at the peer, as Linux numbers it. Not an errno of this machine: the numbers are
// those of x86 and ARM whatever this is compiled for, and nothing here comes from a system call.

/// A positive Linux error number in a message; 0 is success.
public struct PeerErrno: RawRepresentable, Error, Equatable, Sendable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  // Source: Linux `include/uapi/asm-generic/errno-base.h` and `errno.h`.
  public static let success = PeerErrno(rawValue: 0)
  /// EPERM.
  public static let notPermitted = PeerErrno(rawValue: 1)
  /// ENOENT.
  public static let notFound = PeerErrno(rawValue: 2)
  /// EIO.
  public static let io = PeerErrno(rawValue: 5)
  /// ENXIO.
  public static let noSuchAddress = PeerErrno(rawValue: 6)
  /// EAGAIN.
  public static let tryAgain = PeerErrno(rawValue: 11)
  /// ENOMEM.
  public static let outOfMemory = PeerErrno(rawValue: 12)
  /// EBUSY.
  public static let busy = PeerErrno(rawValue: 16)
  /// EEXIST.
  public static let exists = PeerErrno(rawValue: 17)
  /// ENODEV.
  public static let noSuchDevice = PeerErrno(rawValue: 19)
  /// EINVAL.
  public static let invalid = PeerErrno(rawValue: 22)
  /// ENFILE.
  public static let tooManyOpen = PeerErrno(rawValue: 23)
  /// ENOSPC.
  public static let noSpace = PeerErrno(rawValue: 28)
  /// EROFS.
  public static let readOnly = PeerErrno(rawValue: 30)
  /// EOPNOTSUPP.
  public static let notSupported = PeerErrno(rawValue: 95)
  /// ECONNRESET.
  public static let connectionReset = PeerErrno(rawValue: 104)
  /// ENOTCONN.
  public static let notConnected = PeerErrno(rawValue: 107)
  /// ETIMEDOUT.
  public static let timedOut = PeerErrno(rawValue: 110)

  /// The number's name in the system's headers, for people; nil for one that no peer here uses.
  public var name: String? {
    switch rawValue {
    case 0: "success"
    case 1: "EPERM"
    case 2: "ENOENT"
    case 5: "EIO"
    case 6: "ENXIO"
    case 11: "EAGAIN"
    case 12: "ENOMEM"
    case 16: "EBUSY"
    case 17: "EEXIST"
    case 19: "ENODEV"
    case 22: "EINVAL"
    case 23: "ENFILE"
    case 28: "ENOSPC"
    case 30: "EROFS"
    case 95: "EOPNOTSUPP"
    case 104: "ECONNRESET"
    case 107: "ENOTCONN"
    case 110: "ETIMEDOUT"
    default: nil
    }
  }
}

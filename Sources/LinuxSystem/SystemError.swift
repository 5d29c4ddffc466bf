// SPDX-License-Identifier: Apache-2.0

/// An errno of this machine, positive. Not a wire error, not a negated result of a shim.
public struct SystemError: Error, Equatable, Sendable {
  public let errno: CInt

  public init(errno: CInt) { self.errno = errno }

  /// EINTR. Source of the numbers: Linux `include/uapi/asm-generic/errno-base.h` and `errno.h`.
  public static let interrupted = SystemError(errno: 4)
  /// ENOENT.
  public static let noSuchFile = SystemError(errno: 2)
  /// EIO.
  public static let inputOutput = SystemError(errno: 5)
  /// EAGAIN.
  public static let tryAgain = SystemError(errno: 11)
  /// ENOMEM.
  public static let noMemory = SystemError(errno: 12)
  /// EACCES.
  public static let permissionDenied = SystemError(errno: 13)
  /// EBUSY.
  public static let busy = SystemError(errno: 16)
  /// EEXIST.
  public static let exists = SystemError(errno: 17)
  /// EINVAL.
  public static let invalidArgument = SystemError(errno: 22)
  /// EFBIG.
  public static let fileTooLarge = SystemError(errno: 27)
  /// ENETUNREACH.
  public static let networkUnreachable = SystemError(errno: 101)
  /// ECONNRESET.
  public static let connectionReset = SystemError(errno: 104)
  /// ETIMEDOUT.
  public static let timedOut = SystemError(errno: 110)
  /// ECONNREFUSED.
  public static let connectionRefused = SystemError(errno: 111)
  /// EINPROGRESS.
  public static let inProgress = SystemError(errno: 115)

  /// What strerror(3) would say for the numbers that a root device meets. The table keeps
  /// libc's message catalogues out of the static program.
  public var text: String {
    switch errno {
    case 1: "operation not permitted"
    case 2: "no such file or directory"
    case 3: "no such process"
    case 5: "input/output error"
    case 6: "no such device or address"
    case 9: "bad file descriptor"
    case 11: "resource temporarily unavailable"
    case 12: "out of memory"
    case 13: "permission denied"
    case 16: "device or resource busy"
    case 17: "file exists"
    case 19: "no such device"
    case 20: "not a directory"
    case 21: "is a directory"
    case 22: "invalid argument"
    case 25: "not a device of that kind"
    case 27: "file too large"
    case 28: "no space left on device"
    case 30: "read-only file system"
    case 32: "broken pipe"
    case 36: "name too long"
    case 38: "function not implemented"
    case 88: "not a socket"
    case 93: "protocol not supported"
    case 95: "operation not supported"
    case 97: "address family not supported"
    case 98: "address already in use"
    case 99: "no such address on this machine"
    case 100: "network is down"
    case 101: "network is unreachable"
    case 103: "connection aborted"
    case 104: "connection reset by peer"
    case 105: "no buffer space"
    case 107: "not connected"
    case 110: "timed out"
    case 111: "connection refused"
    case 112: "host is down"
    case 113: "no route to host"
    default: "errno \(errno)"
    }
  }
}

/// The result of a shim as a value or an error: shims return negated errnos.
@inlinable
@inline(__always)
public func checked<Value: SignedInteger & FixedWidthInteger>(
  _ result: Value
) throws(SystemError) -> Value {
  guard result >= 0 else { throw SystemError(errno: CInt(truncatingIfNeeded: 0 &- result)) }
  return result
}

/// Like `checked`, and calls again while a signal interrupts.
@inlinable
@inline(__always)
public func retryingInterrupts<Value: SignedInteger & FixedWidthInteger>(
  _ call: () -> Value
) throws(SystemError) -> Value {
  while true {
    let result = call()
    if result != -4 { return try checked(result) }
  }
}

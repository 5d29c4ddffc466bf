// SPDX-License-Identifier: Apache-2.0
import CLinux
import WireFormat

/// A file descriptor with one owner, closed when that owner goes away.
@frozen public struct FileDescriptor: ~Copyable, Sendable {
  public let rawValue: CInt

  /// Nothing else may close `rawValue` from here on.
  public init(owning rawValue: CInt) { self.rawValue = rawValue }

  deinit { _ = clinux_close(rawValue) }  // Linux frees the number even when close(2) fails.

  /// Hands the number on unclosed.
  public consuming func release() -> CInt {
    let number = rawValue
    discard self
    return number
  }
}

/// The flags of open(2) that are used here; close-on-exec is always set.
public struct OpenFlags: OptionSet, Sendable {
  public let rawValue: CInt
  public init(rawValue: CInt) { self.rawValue = rawValue }
  /// O_RDONLY, which is no bit. Source of the numbers: Linux `include/uapi/asm-generic/fcntl.h`.
  public static let readOnly = OpenFlags([])
  public static let writeOnly = OpenFlags(rawValue: 0o1)  // O_WRONLY
  public static let readWrite = OpenFlags(rawValue: 0o2)  // O_RDWR
  public static let create = OpenFlags(rawValue: 0o100)  // O_CREAT
  public static let exclusive = OpenFlags(rawValue: 0o200)  // O_EXCL
  public static let truncate = OpenFlags(rawValue: 0o1000)  // O_TRUNC
  public static let append = OpenFlags(rawValue: 0o2000)  // O_APPEND
  public static let nonBlocking = OpenFlags(rawValue: 0o4000)  // O_NONBLOCK
  /// A place and not what is in it: for who only goes there, or looks from there.
  public static let path = OpenFlags(rawValue: clinux_O_PATH())
  /// O_DIRECT, whose number differs from machine to machine: past the page cache.
  public static let direct = OpenFlags(rawValue: clinux_O_DIRECT())
}

extension FileDescriptor {
  /// open(2); `mode` counts only when the file is made, and the process's umask is taken from it.
  public static func open(
    _ path: ByteString, _ flags: OpenFlags = .readOnly, mode: UInt32 = 0o644
  ) throws(SystemError) -> FileDescriptor {
    let number = try unsafe withCString(path) { pointer in
      // SAFETY: the pointer is a NUL-terminated copy that outlives the call.
      unsafe clinux_open(pointer, flags.rawValue, mode)
    }
    return FileDescriptor(owning: number)
  }

  /// A file of an open directory.
  public static func open(
    _ name: ByteString, _ flags: OpenFlags, in directory: CInt
  ) throws(SystemError) -> FileDescriptor {
    let number = try unsafe withCString(name) { pointer in
      // SAFETY: the pointer is a NUL-terminated copy that outlives the call.
      unsafe clinux_openat(directory, pointer, flags.rawValue, 0)
    }
    return FileDescriptor(owning: number)
  }

  /// Appends what one read(2) gives, at most `maximum` bytes; false at the end of the file.
  public func read(
    into buffer: inout [UInt8], maximum: Int
  ) throws(SystemError) -> Bool {
    var chunk = [UInt8](repeating: 0, count: maximum)
    let number = rawValue
    let count = try retryingInterrupts {
      unsafe chunk.withUnsafeMutableBytes { raw in
        // SAFETY: base and count are those of the array's own storage.
        unsafe clinux_read(number, raw.baseAddress, raw.count)
      }
    }
    buffer.append(contentsOf: chunk.prefix(count))
    return count > 0
  }

  /// Writes all of it, or throws.
  public func write(_ bytes: [UInt8]) throws(SystemError) {
    var written = 0
    let number = rawValue
    while written < bytes.count {
      written += try retryingInterrupts {
        unsafe bytes.withUnsafeBytes { raw in
          // SAFETY: `written` is below the array's count.
          unsafe clinux_write(number, raw.baseAddress! + written, raw.count - written)
        }
      }
    }
  }
}

/// Calls `body` with a NUL-terminated copy. A name that holds a NUL itself is refused (EINVAL).
public func withCString<Result: SignedInteger & FixedWidthInteger>(
  _ text: ByteString, _ body: (UnsafePointer<CChar>) -> Result
) throws(SystemError) -> Result {
  guard !text.bytes.contains(0) else { throw .invalidArgument }
  let terminated = text.bytes + [0]
  return try retryingInterrupts {
    unsafe terminated.withUnsafeBytes { raw in
      // SAFETY: never empty, and CChar and UInt8 have one layout.
      unsafe body(raw.baseAddress!.assumingMemoryBound(to: CChar.self))
    }
  }
}

/// The same with two texts, of which either may be the one that is refused.
public func withCStrings<Result: SignedInteger & FixedWidthInteger>(
  _ first: ByteString, _ second: ByteString,
  _ body: (UnsafePointer<CChar>, UnsafePointer<CChar>) -> Result
) throws(SystemError) -> Result {
  guard !second.bytes.contains(0) else { throw .invalidArgument }
  let terminated = second.bytes + [0]
  return try unsafe withCString(first) { first in
    unsafe terminated.withUnsafeBytes { raw in
      // SAFETY: never empty, and CChar and UInt8 have one layout.
      unsafe body(first, raw.baseAddress!.assumingMemoryBound(to: CChar.self))
    }
  }
}

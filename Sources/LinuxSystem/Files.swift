// SPDX-License-Identifier: Apache-2.0
// Small files: leases, /proc, /sys, what is left in /run. Everything read has a limit.

import CLinux
public import WireFormat

/// The whole file. EFBIG when it is longer than `limit` bytes: it is then not what it should be.
public func readFile(_ path: ByteString, limit: Int) throws(SystemError) -> ByteString {
  let file = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
  var bytes: [UInt8] = []
  while try file.read(into: &bytes, maximum: min(limit + 1 - bytes.count, 4096)) {
    if bytes.count > limit { throw .fileTooLarge }
  }
  return ByteString(bytes)
}

/// Writes `text` to an existing file in one write(2), as /sys and /proc files want it.
public func writeExistingFile(_ path: ByteString, _ text: ByteString) throws(SystemError) {
  try FileDescriptor.open(path, .writeOnly).write(text.bytes)
}

/// Puts a file in place whole or not at all: written beside it, then renamed over it.
public func replaceFile(
  _ path: ByteString, with text: ByteString, mode: UInt32 = 0o644
) throws(SystemError) {
  let temporary = path + ".tmp"
  do {
    let file = try FileDescriptor.open(temporary, [.writeOnly, .create, .truncate], mode: mode)
    try file.write(text.bytes)
  }
  // SAFETY: terminated copies that outlive the call.
  _ = try unsafe withCStrings(temporary, path) { unsafe clinux_rename($0, $1) }
}

/// unlink(2): a link and not what it points at. ENOENT when there is none.
public func removeFile(_ path: ByteString) throws(SystemError) {
  _ = try unsafe withCString(path) { unsafe clinux_unlink($0) }  // SAFETY: a terminated copy.
}

/// Makes `path` and what is missing above it.
public func makeDirectories(_ path: ByteString) throws(SystemError) {
  var end = 1
  while end <= path.count {
    if end == path.count || path.bytes[end] == 0x2f {
      do {
        // SAFETY: a terminated copy.
        _ = try unsafe withCString(ByteString(path.bytes[..<end])) {
          unsafe clinux_mkdir($0, 0o755)
        }
      } catch .exists {
      }
    }
    end += 1
  }
}

/// What stat(2) says of a file.
public struct FileStatus: Equatable, Sendable {
  /// Symbolic links are followed. `other`: a FIFO, socket or character device.
  public enum Kind: Equatable, Sendable { case regular, blockDevice, directory, other }
  public let kind: Kind
  /// 0 for a device, whatever it holds.
  public let byteCount: UInt64
  /// Seconds since 1970.
  public let modifiedSeconds: Int64
  /// Of the device that the file is, for block devices.
  public let deviceMajor: UInt32
  /// As `deviceMajor`.
  public let deviceMinor: UInt32
  /// Of the file system that it lies in; with `inode` no other file has it.
  public let device: UInt64
  /// Of the file, among those of its file system.
  public let inode: UInt64

  /// From what `clinux_stat` has filled.
  public init(_ status: clinux_status) {
    kind =
      switch status.mode & UInt32(clinux_mode_type_mask) {
      case UInt32(clinux_mode_regular): .regular
      case UInt32(clinux_mode_block): .blockDevice
      case UInt32(clinux_mode_directory): .directory
      default: .other
      }
    byteCount = UInt64(max(0, status.size))
    modifiedSeconds = status.mtime_seconds
    deviceMajor = status.rdev_major
    deviceMinor = status.rdev_minor
    device = status.device
    inode = status.inode
  }
}

/// stat(2): of what a symbolic link points at. ENOENT when there is nothing.
public func fileStatus(_ path: ByteString) throws(SystemError) -> FileStatus {
  var status = clinux_status()
  _ = try unsafe withCString(path) { pointer in
    // SAFETY: a terminated copy, and a structure of ours that the call fills.
    unsafe clinux_stat(pointer, &status)
  }
  return FileStatus(status)
}

/// False also where stat(2) fails for another reason, as in a directory that may not be searched.
public func fileExists(_ path: ByteString) -> Bool {
  (try? fileStatus(path)) != nil
}

/// The names in a directory, sorted by their bytes, `.` and `..` left out; at most `limit`.
public func listDirectory(_ path: ByteString, limit: Int) throws(SystemError) -> [ByteString] {
  var directory: UnsafeMutableRawPointer?
  // SAFETY: a terminated copy, and a pointer of ours that the call fills.
  _ = try unsafe withCString(path) { unsafe clinux_opendir($0, &directory) }
  defer { unsafe clinux_closedir(directory) }  // SAFETY: opened above.
  var names: [ByteString] = []
  // SAFETY: every name is terminated, and copied before the next call.
  while names.count < limit, let name = unsafe clinux_readdir(directory) {
    var bytes: [UInt8] = []
    while case let byte = unsafe UInt8(bitPattern: name[bytes.count]), byte != 0 {
      bytes.append(byte)
    }
    if bytes != [0x2e], bytes != [0x2e, 0x2e] { names.append(ByteString(bytes)) }
  }
  return names.ordered { $0.bytes.lexicographicallyPrecedes($1.bytes) }
}

/// Where a symbolic link points.
public func readLink(_ path: ByteString) throws(SystemError) -> ByteString {
  var target = [UInt8](repeating: 0, count: 4096)
  let count = try unsafe withCString(path) { pointer in
    unsafe target.withUnsafeMutableBytes { raw in
      // SAFETY: a terminated copy and the array's own storage.
      unsafe clinux_readlink(
        pointer, raw.baseAddress!.assumingMemoryBound(to: CChar.self), raw.count)
    }
  }
  return ByteString(target[..<count])
}

/// Points `path` at `target`, in place of whatever link stands there, which is there until then.
public func replaceLink(_ path: ByteString, target: ByteString) throws(SystemError) {
  let temporary = path + ".tmp"
  do { try removeFile(temporary) } catch .noSuchFile {}
  // SAFETY of both: terminated copies that outlive the call.
  _ = try unsafe withCStrings(target, temporary) { unsafe clinux_symlink($0, $1) }
  _ = try unsafe withCStrings(temporary, path) { unsafe clinux_rename($0, $1) }
}

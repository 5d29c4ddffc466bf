// SPDX-License-Identifier: Apache-2.0
// Why a file or device cannot be served, and what can be told before it is tried.

import CLinux
import LinuxSystem
import WireFormat

extension FileBackend {
  /// Why a path cannot be served.
  public enum OpenError: Error, Equatable, Sendable {
    /// The file is missing, or the system does not let it be opened.
    case cannotOpen(ByteString, SystemError)
    /// It is a directory, a FIFO or the like.
    case notBlocks(ByteString)
    /// Its file system refuses O_DIRECT.
    case noDirectIO(ByteString)
    /// In bytes: a device, or a file that may only be read, is shorter than what is to be served.
    case sizeAboveDevice(ByteString, wanted: UInt64, actual: UInt64)
    /// A regular file is shorter than what is to be served, and ftruncate(2) failed.
    case cannotGrow(ByteString, SystemError)
    /// It was opened, and cannot be looked at.
    case system(ByteString, SystemError)

    /// What happened, with the path, and what the administrator can do about it.
    public var report: (reason: String, advice: String) {
      switch self {
      case .cannotOpen(let path, .noSuchFile):
        ("there is no file \(path.printable)", "check the path of the export, or create the image")
      case .cannotOpen(let path, .permissionDenied):
        (
          "\(path.printable) may not be opened",
          "give the user that runs rootlinkd access to it, or export it with 'ro'"
        )
      case .cannotOpen(let path, let error):
        ("\(path.printable) cannot be opened: \(error.text)", "check the path of the export")
      case .notBlocks(let path):
        (
          "\(path.printable) is neither a regular file nor a block device",
          "export an image file or a device such as /dev/sdb"
        )
      case .noDirectIO(let path):
        (
          "the file system under \(path.printable) has no direct input and output",
          "leave out 'direct' for this export"
        )
      case .sizeAboveDevice(let path, let wanted, let actual):
        (
          "size=\(wanted) is more than the \(actual) bytes of \(path.printable)",
          "give a smaller size, or none; only a regular file that may be written grows"
        )
      case .cannotGrow(let path, let error):
        ("\(path.printable) cannot be made larger: \(error.text)", "give a smaller size")
      case .system(let path, let error):
        ("\(path.printable) cannot be used: \(error.text)", "check the file or the device")
      }
    }
  }
}

extension FileBackend {
  /// Whether `init` would find what it needs, as far as can be told without touching anything.
  public static func check(_ path: ByteString) throws(OpenError) {
    let status: FileStatus
    do { status = try fileStatus(path) } catch { throw .cannotOpen(path, error) }
    guard status.kind == .regular || status.kind == .blockDevice else { throw .notBlocks(path) }
    do { _ = try FileDescriptor.open(path, [.readOnly, .nonBlocking]) } catch {
      throw .cannotOpen(path, error)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The archive that a kernel unpacks as its initramfs: cpio, "new ASCII" form. The same entries give
// the same bytes, in whatever order they were added: sorted names, numbers counted from 1, one
// time for all, everything owned by root.
// Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`; cpio(5).

/// What lies under one name.
public struct CPIOEntry: Equatable, Sendable {
  public enum Content: Equatable, Sendable {
    case directory
    case file([UInt8])
    case symbolicLink(target: String)
    case characterDevice(major: UInt32, minor: UInt32)
    case blockDevice(major: UInt32, minor: UInt32)
  }

  /// Without a slash in front: `lib/modules/virtio_net.ko`.
  public var path: String
  public var content: Content
  /// The twelve bits of chmod(2).
  public var permissions: UInt16

  public init(_ path: String, _ content: Content, permissions: UInt16) {
    self.path = path
    self.content = content
    self.permissions = permissions
  }

  /// The file type bits of stat(2). Source: Linux `include/uapi/linux/stat.h`.
  var mode: UInt32 {
    let type: UInt32 =
      switch content {
      case .directory: 0o040000
      case .file: 0o100000
      case .symbolicLink: 0o120000
      case .characterDevice: 0o020000
      case .blockDevice: 0o060000
      }
    return type | UInt32(permissions)
  }

  var data: [UInt8] {
    switch content {
    case .file(let bytes): bytes
    case .symbolicLink(let target): Array(target.utf8)
    default: []
    }
  }
}

public enum CPIOError: Error, Equatable, Sendable {
  /// Empty, absolute, with `..` or an empty part, too long, or named like the archive's end.
  case pathUnusable(String)
  /// Two different things under one name, or something below what is no directory.
  case pathTaken(String)
  case fileTooLong(String, byteCount: Int)
  /// Reading: where the archive goes wrong, in bytes.
  case malformed(offset: Int)

  public var report: (reason: String, advice: String) {
    switch self {
    case .pathUnusable(let path):
      ("'\(path)' cannot be a name in an initramfs", "give a plain path")
    case .pathTaken(let path):
      ("two different things are to lie at /\(path)", "leave out one of them")
    case .fileTooLong(let path, let count):
      ("/\(path) has \(count) bytes, above the 4 GiB of a cpio archive", "leave it out")
    case .malformed(let offset):
      ("no cpio archive of the newc form: byte \(offset)", "build the image again")
    }
  }
}

/// What the image holds: one entry under each name.
public struct CPIOArchive: Sendable {
  /// In front of every entry. Source: cpio(5), "New ASCII Format".
  public static let magic = "070701"
  static let headerByteCount = 110
  static let trailerName = "TRAILER!!!"
  /// `PATH_MAX`. Source: Linux `include/uapi/linux/limits.h`; the kernel's unpacker has it, too.
  static let pathByteCountMaximum = 4095
  /// What boot loaders and the kernel's own tools pad an archive to.
  static let blockByteCount = 512

  private var entries: [String: CPIOEntry] = [:]

  public init() {}

  /// Sorted by their bytes, so that a directory comes before what lies in it.
  public var sortedEntries: [CPIOEntry] {
    entries.values.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
  }

  /// Adds the entry, and the directories above it as far as they are not there (mode 0755). The
  /// same entry may come twice.
  public mutating func add(_ entry: CPIOEntry) throws(CPIOError) {
    let parts = entry.path.split(separator: "/", omittingEmptySubsequences: false)
    let isUsable =
      !parts.isEmpty && parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
      && entry.path.utf8.count < Self.pathByteCountMaximum && !entry.path.utf8.contains(0)
      && entry.path != Self.trailerName
    guard isUsable else { throw .pathUnusable(entry.path) }
    guard entry.data.count <= Int(UInt32.max) else {
      throw .fileTooLong(entry.path, byteCount: entry.data.count)
    }
    if let there = entries[entry.path], there != entry {
      // A directory that was only made on the way gets its own permissions.
      guard there.content == .directory, entry.content == .directory else {
        throw .pathTaken(entry.path)
      }
    }
    var parent = ""
    for part in parts.dropLast() {
      parent += parent.isEmpty ? String(part) : "/" + part
      if let there = entries[parent] {
        guard there.content == .directory else { throw .pathTaken(parent) }
      } else {
        entries[parent] = CPIOEntry(parent, .directory, permissions: 0o755)
      }
    }
    entries[entry.path] = entry
  }

  /// The archive, every entry of the time `seconds` since 1970.
  public func encoded(seconds: UInt32 = 0) -> [UInt8] {
    var bytes: [UInt8] = []
    for (index, entry) in sortedEntries.enumerated() {
      Self.append(entry, number: UInt32(truncatingIfNeeded: index + 1), seconds, to: &bytes)
    }
    let trailer = CPIOEntry(Self.trailerName, .file([]), permissions: 0)
    Self.append(trailer, number: 0, 0, mode: 0, to: &bytes)
    while !bytes.count.isMultiple(of: Self.blockByteCount) { bytes.append(0) }
    return bytes
  }

  private static func append(
    _ entry: CPIOEntry, number: UInt32, _ seconds: UInt32, mode: UInt32? = nil,
    to bytes: inout [UInt8]
  ) {
    var device: (major: UInt32, minor: UInt32) = (0, 0)
    switch entry.content {
    case .characterDevice(let major, let minor), .blockDevice(let major, let minor):
      device = (major, minor)
    default: break
    }
    let data = entry.data
    let links: UInt32 = entry.content == .directory ? 2 : 1
    bytes += Array(magic.utf8)
    for field in [
      number, mode ?? entry.mode, 0, 0, links, seconds, UInt32(data.count), 0, 0, device.major,
      device.minor, UInt32(entry.path.utf8.count + 1), 0,
    ] {
      appendHexadecimal(field, to: &bytes)
    }
    bytes += Array(entry.path.utf8) + [0]
    pad(&bytes)
    bytes += data
    pad(&bytes)
  }

  private static func appendHexadecimal(_ value: UInt32, to bytes: inout [UInt8]) {
    let digits = Array("0123456789abcdef".utf8)
    for shift in stride(from: UInt32(28), through: 4, by: -4) {
      bytes.append(digits[Int(value >> shift & 15)])
    }
    bytes.append(digits[Int(value & 15)])
  }

  /// Headers and contents begin at multiples of 4.
  private static func pad(_ bytes: inout [UInt8]) {
    while !bytes.count.isMultiple(of: 4) { bytes.append(0) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a client that names devices by paths can open: first the exports, by their names, then what
// lies below the search path. A file that is an export, too, keeps the export's rules, whatever it
// is called.

import BlockBackends
import LinuxSystem
import Synchronization
import WireFormat

/// Why a device is not opened.
public enum DeviceRefusal: Error, Equatable, Sendable {
  case notFound
  case outside
  /// Neither a file nor a block device.
  case notBlocks
  case unusable(SystemError)
  /// Opened for writing, and it is for reading.
  case readOnly
  /// Somebody else writes to it.
  case inUse
  case refused(AttachmentRefusal)

  public var report: (reason: String, advice: String) {
    switch self {
    case .notFound:
      ("there is no such device", "name an export, or a file below rdma.dev_search_path")
    case .outside:
      ("the name leads out of the search path", "see rdma.dev_search_path in rootlinkd(8)")
    case .notBlocks: ("it is neither a regular file nor a block device", "name one that is")
    case .unusable(let error):
      ("it cannot be opened: \(error.text)", "check the file or the device")
    case .readOnly: ("it may only be read", "map it with access_mode=ro")
    case .inUse:
      (
        "somebody else writes to it",
        "wait for its end, or map it with access_mode=ro, or migration while a machine moves"
      )
    case .refused(let refusal): refusal.report
    }
  }
}

public final class DeviceDirectory: Sendable {
  private struct Weak {
    weak var export: Export?
  }

  private let table: ExportTable
  private let searchPath: SearchPath?
  /// What was found below the search path, and is in use.
  private let foundExports = Mutex<[MediumIdentity: Weak]>([:])

  public init(table: ExportTable, searchPath: SearchPath? = nil) {
    self.table = table
    self.searchPath = searchPath
  }

  /// May wait for a disk. `session`: what the client calls itself; without `/`.
  public func find(
    _ name: ByteString, session: ByteString
  ) throws(DeviceRefusal) -> Export {
    let plain = ByteString(Array(name.bytes.drop { $0 == UInt8(ascii: "/") }))
    if let export = table.exact(name) ?? table.exact(plain) { return export }
    guard let searchPath else { throw .notFound }
    let file: FileDescriptor
    do { file = try searchPath.find(name, session: session) } catch {
      switch error {
      case .notFound: throw .notFound
      case .outside: throw .outside
      case .system(let error): throw .unusable(error)
      }
    }
    // The name that the kernel gives to what was found: nobody can put another file there.
    let path = ByteString("/proc/self/fd/\(file.rawValue)")
    let medium: MediumIdentity
    do {
      guard let identity = MediumIdentity(try fileStatus(path)) else {
        throw DeviceRefusal.notBlocks
      }
      medium = identity
    } catch let error as SystemError {
      throw .unusable(error)
    } catch {
      throw .notBlocks
    }
    if let export = table.exports.first(where: { $0.medium == medium }) { return export }
    if let export = foundExports.withLock({ $0[medium]?.export }) { return export }
    let shown = (try? readLink(path)) ?? name
    let export = try open(path, shownAs: shown, medium)
    return foundExports.withLock { found in
      if let other = found[medium]?.export { return other }
      found = found.filter { $0.value.export != nil }
      found[medium] = Weak(export: export)
      return export
    }
  }

  /// For writing too, unless the file may only be read.
  private func open(
    _ path: ByteString, shownAs shown: ByteString, _ medium: MediumIdentity
  ) throws(DeviceRefusal) -> Export {
    for access in [AccessMode.readWrite, .readOnly] {
      var definition = ExportDefinition(name: shown, path: path)
      definition.access = access
      do {
        return try Export(definition, shownAs: shown, overlayDirectory: "/var/tmp")
      } catch .cannotOpen(_, let error) {
        // EPERM, EACCES, EROFS
        guard access == .readWrite, [1, 13, 30].contains(error.errno) else {
          throw .unusable(error)
        }
      } catch .system(_, let error) {
        throw .unusable(error)
      } catch {
        throw .notBlocks
      }
    }
    throw .notFound
  }

  /// What was found below the search path and is in use, by its path.
  public var found: [Export] {
    foundExports.withLock { $0.values.compactMap(\.export) }
      .sorted { $0.path.bytes.lexicographicallyPrecedes($1.path.bytes) }
  }
}

extension MediumIdentity {
  /// Nil for what has no blocks.
  init?(_ status: FileStatus) {
    switch status.kind {
    case .regular: self = .file(device: status.device, inode: status.inode)
    case .blockDevice: self = .blockDevice(major: status.deviceMajor, minor: status.deviceMinor)
    case .directory, .other: return nil
    }
  }
}

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
  /// No export and no file has the name, or the client is not to know of it.
  case notFound
  /// The name leads out of the search path.
  case outside
  /// The search path has a token that this client gives no name for.
  case noName(token: ByteString)
  /// Neither a file nor a block device.
  case notBlocks
  /// The file is there, and the system does not let it be opened.
  case unusable(SystemError)
  /// Opened for writing, and it is for reading.
  case readOnly
  /// Somebody else writes to it.
  case inUse
  /// Its attachment does not let the connection in.
  case refused(AttachmentRefusal)

  /// What happened, for the log, and what can be done about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notFound:
      ("there is no such device", "name an export, or a file below dev_search_path")
    case .outside:
      ("the name leads out of the search path", "see dev_search_path in rootlinkd.toml(5)")
    case .noName(let token):
      (
        "the search path has \(token.printable) in it, and this client has said nothing for it",
        token == "%SESSNAME%"
          ? "use %CLIENT% for clients that tell the server nothing of themselves"
          : "use it for clients with an address only"
      )
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

/// Finds exports and devices for clients; see the head of this file. Any thread may call.
public final class DeviceDirectory: Sendable {
  /// What is found beside the exports.
  public struct Search: Equatable, Sendable {
    /// Nil: nothing.
    public var path: SearchPath?
    /// How it may be used: read-only, by one writer, or by two.
    public var access = AccessMode.readWrite
    /// By whom.
    public var allow = AllowList.everybody

    /// Read-write and for everybody, as far as `path` is given; nothing is found without it.
    public init(path: SearchPath? = nil) { self.path = path }
  }
  private struct Weak {
    weak var export: Export?
    /// What it was to be opened for; it may be less.
    var wanted: AccessMode
  }

  private let table: ExportTable
  private let search: Mutex<Search>
  /// What was found below the search path, and is in use.
  private let foundExports = Mutex<[MediumIdentity: Weak]>([:])

  /// `table` may be replaced while clients are there; `search`: see `replace`.
  public init(table: ExportTable, search: Search = Search()) {
    self.table = table
    self.search = Mutex(search)
  }

  /// From now on; what is open stays open.
  public func replace(_ search: Search) { self.search.withLock { $0 = search } }

  /// What a client may know of, for a list.
  public func exports(for client: ClientAddress) -> [Export] { table.exports(for: client) }

  /// One of the exports, the default one for an empty name. Never waits.
  public func offered(_ name: ByteString, for client: ClientAddress) -> Export? {
    table.export(named: name, for: client)
  }

  /// A device as RNBD's clients name it: slashes in front mean nothing. May wait for a disk.
  public func find(
    _ name: ByteString, for client: ClientIdentity
  ) throws(DeviceRefusal) -> Export {
    let plain = ByteString(Array(name.bytes.drop { $0 == UInt8(ascii: "/") }))
    if let export = table.exact(name, for: client.address) { return export }
    if let export = table.exact(plain, for: client.address) { return export }
    return try found(name, for: client)
  }

  /// An export as NBD's clients name it: the empty name is the default one. May wait for a disk.
  public func findExport(
    _ name: ByteString, for client: ClientIdentity
  ) throws(DeviceRefusal) -> Export {
    if let export = table.export(named: name, for: client.address) { return export }
    return try found(name, for: client)
  }

  private func found(
    _ name: ByteString, for client: ClientIdentity
  ) throws(DeviceRefusal) -> Export {
    let search = search.withLock { $0 }
    guard let searchPath = search.path, search.allow.allows(client.address) else {
      throw .notFound
    }
    let file: FileDescriptor
    do { file = try searchPath.find(name, for: client) } catch {
      switch error {
      case .notFound: throw .notFound
      case .outside: throw .outside
      case .noName(let token): throw .noName(token: token)
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
    if let export = table.exports.first(where: { $0.media.contains(medium) }) {
      guard export.allow.allows(client.address) else { throw .notFound }
      // Nobody gets a part of what is whole only together.
      guard export.media.count == 1, export.definition?.backend == nil else { throw .inUse }
      return export
    }
    if let export = known(medium, search.access) { return export }
    let shown = (try? readLink(path)) ?? name
    let export = try open(path, shownAs: shown, as: search.access)
    return foundExports.withLock { found in
      // Somebody else may have found it meanwhile.
      if let other = found[medium], other.wanted == search.access, let export = other.export {
        return export
      }
      found = found.filter { $0.value.export != nil }
      found[medium] = Weak(export: export, wanted: search.access)
      return export
    }
  }

  /// One that was found under other rules is as good as another file.
  private func known(_ medium: MediumIdentity, _ wanted: AccessMode) -> Export? {
    foundExports.withLock { found in
      guard let entry = found[medium], entry.wanted == wanted else { return nil }
      return entry.export
    }
  }

  /// For what is wanted, or for reading when the file may only be read.
  private func open(
    _ path: ByteString, shownAs shown: ByteString, as wanted: AccessMode
  ) throws(DeviceRefusal) -> Export {
    for access in [wanted, .readOnly] {
      var definition = ExportDefinition(name: shown, path: path)
      definition.access = access
      do {
        return try Export(definition, shownAs: shown, overlayDirectory: "/var/tmp")
      } catch .cannotOpen(_, let error) {
        // EPERM, EACCES, EROFS
        guard access != .readOnly, [1, 13, 30].contains(error.errno) else {
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

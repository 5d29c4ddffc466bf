// SPDX-License-Identifier: Apache-2.0
// All that a running server can be asked, for `rootlinkd status` and for whoever collects metrics.
// Asked on threads of their own, never on one that serves.

import BlockServer
import Foundation
import LinuxSystem
import RNBDServer
import ServerOperation
import Synchronization
import WireFormat

final class ServerReport: Sendable {
  private struct Removed {
    weak var export: Export?
  }
  private struct Changing {
    var listening: [ByteString] = []
    var removed: [Removed] = []
    var reload: ServerStatus.Reload?
  }

  private let table: ExportTable
  private let registry: SessionRegistry
  private let attachments: Attachments
  private let access: WriteAccess
  private let directories: [DeviceDirectory]
  private let rnbd: RNBDServer?
  private let start = MonotonicTime.now
  private let changing = Mutex(Changing())

  init(
    table: ExportTable, registry: SessionRegistry, attachments: Attachments, access: WriteAccess,
    directories: [DeviceDirectory], rnbd: RNBDServer?
  ) {
    self.table = table
    self.registry = registry
    self.attachments = attachments
    self.access = access
    self.directories = directories
    self.rnbd = rnbd
  }

  func setListening(_ addresses: [ByteString]) {
    changing.withLock { $0.listening = addresses }
  }

  /// Exports that are not offered any more, and may have sessions left.
  func addRemoved(_ exports: [Export]) {
    changing.withLock { changing in
      changing.removed.removeAll { $0.export == nil }
      changing.removed += exports.map { Removed(export: $0) }
    }
  }

  /// Those of which something is left.
  var removed: [Export] { changing.withLock { $0.removed.compactMap(\.export) } }

  /// `reason`: why the last reload was refused; nil when it was done.
  func reloaded(refusedBecause reason: String?) {
    changing.withLock { changing in
      var reload =
        changing.reload
        ?? ServerStatus.Reload(succeeded: true, done: 0, refused: 0, reason: nil)
      reload.succeeded = reason == nil
      reload.reason = reason
      if reason == nil { reload.done += 1 } else { reload.refused += 1 }
      changing.reload = reload
    }
  }

  var status: ServerStatus {
    let changing = changing.withLock { $0 }
    var found: [Export] = []
    for export in directories.flatMap(\.found) where !found.contains(where: { $0 === export }) {
      found.append(export)
    }
    // Only those that sessions keep: the reference in the table of the past is weak.
    let removed = changing.removed.compactMap(\.export)
    var status = registry.status(
      of: table, found: found, removed: removed, attachments: attachments, access: access,
      listeners: changing.listening, transportSessions: rnbd?.status() ?? [])
    status.version = programVersion
    status.seconds = MonotonicTime.now.milliseconds(since: start) / 1000
    status.reload = changing.reload
    return status
  }

  /// The status as `rootlinkd status` reads it.
  var json: [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let json = try? encoder.encode(status) else { return [] }
    return Array(json) + [0x0a]
  }

  var metrics: String { MetricsText(status, .own).text }
}

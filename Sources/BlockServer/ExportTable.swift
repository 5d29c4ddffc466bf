// SPDX-License-Identifier: Apache-2.0
// All exports that clients can name now. The table may be replaced while clients are there: what they
// have open stays theirs.

import Synchronization
import WireFormat

/// The exports that clients can name: see the head of this file. Any thread may call.
public final class ExportTable: Sendable {
  private struct Contents {
    var exports: [Export] = []
    var byName: [ByteString: Export] = [:]
    var defaultName: ByteString?

    init(_ exports: [Export], defaultName: ByteString?) {
      self.exports = exports
      self.defaultName = defaultName
      byName = Dictionary(
        exports.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }
  }
  private let contents: Mutex<Contents>

  /// In the order in which they are shown. Of two exports with one name the first counts; the
  /// configuration refuses that. `defaultName`: what a client gets that names none.
  public init(_ exports: [Export], defaultName: ByteString? = nil) {
    contents = Mutex(Contents(exports, defaultName: defaultName))
  }

  /// From now on. Whoever has one of the old exports open keeps it.
  public func replace(with exports: [Export], defaultName: ByteString?) {
    // What was there is let go of behind the lock: it may be the last reference to a medium.
    let old = contents.withLock { contents in
      let old = contents
      contents = Contents(exports, defaultName: defaultName)
      return old
    }
    withExtendedLifetime(old) {}
  }

  /// In the order in which they are shown.
  public var exports: [Export] { contents.withLock { $0.exports } }

  /// Those that a client may know of.
  public func exports(for client: ClientAddress) -> [Export] {
    exports.filter { $0.allow.allows(client) }
  }

  /// No name stands for another one.
  func exact(_ name: ByteString, for client: ClientAddress) -> Export? {
    guard let export = contents.withLock({ $0.byName[name] }), export.allow.allows(client) else {
      return nil
    }
    return export
  }

  /// Nil for what the client may not know of, as for what is not there. The empty name is the
  /// default export: the one called so, else the one that the configuration says, else the only
  /// one that there is for this client.
  public func export(named name: ByteString, for client: ClientAddress = .unknown) -> Export? {
    if let export = exact(name, for: client) { return export }
    guard name.isEmpty else { return nil }
    if let standard = contents.withLock({ $0.defaultName }) { return exact(standard, for: client) }
    let visible = exports(for: client)
    return visible.count == 1 ? visible[0] : nil
  }
}

// SPDX-License-Identifier: Apache-2.0
// All attachments of a server. One whose connections are all gone is kept for a time, for the
// client may come back for its layer; how many are kept has a limit, and the one that has been
// away longest makes room.

import BlockBackends
import LinuxSystem
import Synchronization
import WireFormat

/// What a client says of itself when it enters an export.
public struct AttachmentClaim: Equatable, Sendable {
  /// Which attachment the connection belongs to.
  public var token: AttachmentToken
  /// Of two connections in one slot the one with the larger number is the newer.
  public var generation: UInt64
  /// Which of the attachment's connections it is; two with one slot are one after the other.
  public var slot: UInt16
  /// The client was here before and counts on what it wrote.
  public var isResuming: Bool

  public init(token: AttachmentToken, generation: UInt64, slot: UInt16, isResuming: Bool) {
    self.token = token
    self.generation = generation
    self.slot = slot
    self.isResuming = isResuming
  }
}

/// All attachments of all exports of the server: see the head of this file. Any thread may call.
public final class Attachments: Sendable {
  /// For clients that have lost their connections.
  public struct Limits: Equatable, Sendable {
    /// How long an attachment without connections is kept.
    public var absentSeconds: UInt64 = 600
    /// How many attachments without connections are kept.
    public var absentCount = 2048

    /// Ten minutes, and 2048 of them.
    public init() {}
  }

  private struct Key: Hashable {
    var export: ByteString
    var token: AttachmentToken
  }
  private let currentLimits: Mutex<Limits>
  private let table = Mutex<[Key: Attachment]>([:])

  /// `limits` may be changed later.
  public init(limits: Limits = Limits()) { currentLimits = Mutex(limits) }

  /// May change while clients are there.
  public var limits: Limits {
    get { currentLimits.withLock { $0 } }
    set { currentLimits.withLock { $0 = newValue } }
  }

  /// Whether a connection with this claim would come too late for its slot, on any export.
  public func isStale(_ claim: AttachmentClaim, among exports: [Export]) -> Bool {
    let found = table.withLock { table in
      exports.compactMap { table[Key(export: $0.name, token: claim.token)] }
    }
    return found.contains { $0.isStale(slot: claim.slot, generation: claim.generation) }
  }

  /// Lets a connection in. Waits, until the deadline, for what the connection that it replaces is
  /// doing, and one that comes back for what its siblings have received. After `leave` nothing of
  /// `control` is called any more.
  public func enter(
    _ export: Export, _ claim: AttachmentClaim, until deadline: Deadline,
    control: ConnectionControl
  ) throws(AttachmentRefusal) -> AttachmentConnection {
    let key = Key(export: export.name, token: claim.token)
    while true {
      let attachment = table.withLock { table in
        if let attachment = table[key] { return attachment }
        let attachment = Attachment(export, claim.token)
        table[key] = attachment
        return attachment
      }
      do {
        let connection = try attachment.enter(
          claim, until: deadline,
          openLayer: { () throws(AttachmentRefusal) in try export.openLayer(for: claim) },
          control: control)
        if let connection { return connection }
        // It ended in between; the next round makes a new one.
      } catch {
        // An attachment that nobody ever entered is not kept.
        dropIfUnused(key, attachment)
        throw error
      }
    }
  }

  /// Takes over the layers that an earlier server has left for its clients; from now on they are
  /// absent, the one that was written to first for the longest time. However many they are, all of
  /// them stay until somebody else goes: their clients may be about to come back. Gives files that
  /// have the name of a layer and are none.
  public func adopt(_ export: Export, at now: MonotonicTime = .now) -> [ByteString] {
    let (tokens, foreign) = export.keptLayers()
    table.withLock { table in
      for (index, token) in tokens.enumerated() {
        let time = MonotonicTime(nanoseconds: now.nanoseconds &+ UInt64(index))
        let key = Key(export: export.name, token: token)
        // Its client may be here already, when the export is another one of the same name.
        if table[key] == nil { table[key] = Attachment(export, token, absentSince: time) }
      }
    }
    return foreign
  }

  /// The connection's socket may be closed afterwards. `saysGoodbye`: the client has detached its
  /// device; with the last connection its layer ends.
  public func leave(_ connection: AttachmentConnection, saysGoodbye: Bool) {
    connection.leave(saysGoodbye: saysGoodbye)
    end { _, hasSaidGoodbye in hasSaidGoodbye }
    makeRoom()
  }

  /// Ends what has been without connections for too long; call it about once a second.
  public func expire(at now: MonotonicTime = .now) {
    let seconds = limits.absentSeconds
    end { absentSince, _ in now.milliseconds(since: absentSince) / 1000 >= seconds }
  }

  /// Makes every layer durable, for the end of the server.
  public func flush() -> [BackendError] {
    let layers = table.withLock { $0.values.compactMap(\.sharedLayer) }
    var errors: [BackendError] = []
    for layer in layers {
      do { try layer.flush() } catch { errors.append(error) }
    }
    return errors
  }

  /// Connections that wait for others, for tests.
  public var waiters: Int {
    table.withLock { $0.values.reduce(0) { $0 + $1.waiters } }
  }
  /// With connections and without.
  public var count: Int { table.withLock { $0.count } }
  /// Clients that have lost their connections, by export.
  public func absentCount(of export: Export) -> Int {
    table.withLock { $0.count { $0.key.export == export.name && $0.value.absence != nil } }
  }
  /// Clients that have lost their connections, on all exports.
  public var absentCount: Int { table.withLock { $0.values.count { $0.absence != nil } } }

  private func end(if isDue: (MonotonicTime, Bool) -> Bool) {
    let layers = table.withLock { table in
      var layers: [OverlayBackend] = []
      for (key, attachment) in table {
        let (isOver, layer) = attachment.end(if: isDue)
        guard isOver else { continue }
        table[key] = nil
        if let layer { layers.append(layer) }
      }
      return layers
    }
    // Closed here: freeing a large file takes time, and clients come and go under the lock.
    _ = consume layers
  }

  private func makeRoom() {
    let absences = table.withLock { $0.values.compactMap(\.absence) }
    let countMaximum = limits.absentCount
    guard absences.count > countMaximum else { return }
    let oldestKept = absences.sorted()[absences.count - countMaximum]
    end { absentSince, _ in absentSince < oldestKept }
  }

  private func dropIfUnused(_ key: Key, _ attachment: Attachment) {
    table.withLock { table in
      guard table[key] === attachment, attachment.endIfUnused() else { return }
      table[key] = nil
    }
  }
}

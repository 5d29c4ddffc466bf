// SPDX-License-Identifier: Apache-2.0
// One attached device of a client, with all of its connections: who may write, and what they share.
//
// A slot is a place for one connection. When a newer connection takes a slot, the older one is
// fenced: it begins nothing more, and the newer one is let in when what the older had begun is done.
//
//   slot 3:  connection ──fenced──► (executing? waited for) ──► leaves
//                                         newer connection ──► enters ──► begin/end ... ──► leaves
//
//   1  A fenced connection never begins an operation.
//   2  A connection is entered when no fenced one of its slot is inside an operation.
//   3  Generations of a slot only grow.
//   4  A connection that comes back is entered when all that its siblings had received by then is
//      done: the client may have given one of them up, and repeated what was out on it.
//
// Every request of a connection passes `begin` and `end`. Neither takes a lock unless somebody waits:
// a connection says that it executes before it looks whether it is fenced, and whoever fences it
// looks at that afterwards; one of the two sees the other.

import BlockBackends
import Foundation
import LinuxSystem
import Synchronization
import WireFormat

/// Why a connection is not let in.
public enum AttachmentRefusal: Error, Equatable, Sendable {
  /// A connection that is as new or newer has, or had, the slot.
  case stale(slot: UInt16)
  /// What the older connection had begun is not done yet.
  case predecessorBusy(slot: UInt16)
  /// The client counts on a layer that is not there any more.
  case layerGone
  /// The layer's file is there, but it is damaged or belongs to something else.
  case layerUnusable(reason: String, advice: String)
  /// No file could be made for the layer, or somebody else has it open.
  case noLayer(reason: String, advice: String)

  /// What happened, for the log and the client, and what the administrator can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .stale(let slot):
      (
        "a newer connection of this attachment has slot \(slot)",
        "this one is late, or two machines use one attachment"
      )
    case .predecessorBusy(let slot):
      (
        "the connection that had slot \(slot) before is still writing; connect again",
        "look at the disk under the export if this repeats"
      )
    case .layerGone:
      (
        "the overlay of this attachment is gone, and what was written to it; boot the machine anew",
        "layers end with the server, or when a client has stayed away for too long; "
          + "see layers= and limits.absent_seconds"
      )
    case .layerUnusable(let reason, let advice), .noLayer(let reason, let advice): (reason, advice)
    }
  }
}

/// What an attachment does to a connection, or asks of it.
public struct ConnectionControl: Sendable {
  /// Shuts its socket down.
  public var interrupt: @Sendable () -> Void
  /// How many bytes of its stream have arrived, the handshake included; nil when that is not known.
  public var arrivedByteCount: @Sendable () -> UInt64?

  public init(
    interrupt: @escaping @Sendable () -> Void,
    arrivedByteCount: @escaping @Sendable () -> UInt64?
  ) {
    self.interrupt = interrupt
    self.arrivedByteCount = arrivedByteCount
  }
}

/// The connections of one client's device to one export: see the head of this file. Made and kept
/// by `Attachments`.
public final class Attachment: @unchecked Sendable {
  // Unchecked: whatever changes is atomic, or touched only while `condition` is locked.
  private struct Slot {
    var generation: UInt64
    var current: AttachmentConnection?
    /// Replaced, and not gone yet.
    var fenced: [AttachmentConnection] = []
  }
  private let condition = NSCondition()
  private var slots: [UInt16: Slot] = [:]
  private var connectionCount = 0
  private let fence = RequestFence()
  /// Changed under the lock, by those who wait for `condition` or are about to.
  private let waitingCount = Atomic<Int>(0)
  /// A goodbye was the last thing heard.
  private let hasSaidGoodbye = Atomic(false)
  private var isOver = false
  private var layer: OverlayBackend?
  private var absentSince: MonotonicTime?

  let export: Export
  let token: AttachmentToken

  /// `absentSince`: its layer is there, and a client may come for it.
  init(_ export: Export, _ token: AttachmentToken, absentSince: MonotonicTime? = nil) {
    self.export = export
    self.token = token
    self.absentSince = absentSince
  }

  private func locked<Value, Failure: Error>(
    _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    condition.lock()
    defer { condition.unlock() }
    return try body()
  }

  /// Lets a connection in when what it replaces is out; nil when the attachment has ended
  /// meanwhile. `control` is used under the lock, its `interrupt` at most once, when a newer
  /// connection takes the slot. `openLayer` is called once in the life of an attachment.
  func enter(
    _ claim: AttachmentClaim, until deadline: Deadline,
    openLayer: () throws(AttachmentRefusal) -> OverlayBackend?, control: ConnectionControl
  ) throws(AttachmentRefusal) -> AttachmentConnection? {
    let (number, generation) = (claim.slot, claim.generation)
    return try locked { () throws(AttachmentRefusal) in
      if isOver { return nil }
      if isStaleHere(slot: number, generation: generation) { throw .stale(slot: number) }
      if layer == nil { layer = try openLayer() }
      let connection = AttachmentConnection(
        of: self, slot: number, layer: layer, control: control)
      var slot = slots[number] ?? Slot(generation: generation)
      slot.generation = generation
      if let older = slot.current {
        older.isFenced.store(true, ordering: .sequentiallyConsistent)
        older.control.interrupt()
        slot.fenced.append(older)
      }
      slot.current = connection
      slots[number] = slot
      connectionCount += 1
      absentSince = nil
      hasSaidGoodbye.store(false, ordering: .relaxed)
      condition.broadcast()  // The older one may wait for a copy of its request.
      try waitForPredecessors(of: connection, until: deadline)
      if claim.isResuming { try waitForSiblings(of: connection, until: deadline) }
      if connection.isReplaced {
        removeLocked(connection)
        throw .stale(slot: number)
      }
      connection.isEntering = false
      return connection
    }
  }

  /// Until nothing is executed that came over the slot before.
  private func waitForPredecessors(
    of connection: AttachmentConnection, until deadline: Deadline
  ) throws(AttachmentRefusal) {
    let number = connection.slot
    waitingCount.add(1, ordering: .sequentiallyConsistent)
    defer { waitingCount.subtract(1, ordering: .sequentiallyConsistent) }
    while let slot = slots[number], slot.fenced.contains(where: { $0.isExecuting }) {
      // A newer one yet has come, or this one has waited for too long.
      guard !connection.isReplaced, !deadline.hasPassed else {
        let isStale = connection.isReplaced
        removeLocked(connection)
        throw isStale ? .stale(slot: number) : .predecessorBusy(slot: number)
      }
      _ = condition.wait(
        until: Date(timeIntervalSinceNow: Double(deadline.pollMilliseconds) / 1000))
    }
  }

  /// Until what lies in the sockets of the others is done; what comes later is theirs alone.
  private func waitForSiblings(
    of connection: AttachmentConnection, until deadline: Deadline
  ) throws(AttachmentRefusal) {
    var owed: [(sibling: AttachmentConnection, byteCount: UInt64)] = []
    for (number, slot) in slots where number != connection.slot {
      for sibling in slot.fenced where sibling.isExecuting { owed.append((sibling, .max)) }
      if let sibling = slot.current, !sibling.isEntering,
        let count = sibling.control.arrivedByteCount()
      {
        owed.append((sibling, count))
      }
    }
    waitingCount.add(1, ordering: .sequentiallyConsistent)
    defer { waitingCount.subtract(1, ordering: .sequentiallyConsistent) }
    while true {
      owed.removeAll { sibling, byteCount in
        sibling.hasLeft || sibling.servedByteCount.load(ordering: .acquiring) >= byteCount
          || sibling.isReplaced && !sibling.isExecuting
      }
      guard let first = owed.first else { return }
      if connection.isReplaced { return }
      for (sibling, _) in owed { sibling.awaited.store(true, ordering: .relaxed) }
      guard !deadline.hasPassed else {
        removeLocked(connection)
        throw .predecessorBusy(slot: first.sibling.slot)
      }
      // Nobody says when a connection is through: it would cost every request something.
      _ = condition.wait(until: Date(timeIntervalSinceNow: Self.siblingPollSeconds))
    }
  }

  private static let siblingPollSeconds = 0.002

  /// Whether `enter` would refuse such a connection.
  func isStale(slot: UInt16, generation: UInt64) -> Bool {
    locked { isStaleHere(slot: slot, generation: generation) }
  }

  private func isStaleHere(slot: UInt16, generation: UInt64) -> Bool {
    slots[slot].map { generation <= $0.generation } ?? false
  }

  private func removeLocked(_ connection: AttachmentConnection) {
    guard var slot = slots[connection.slot] else { return }
    connection.hasLeft = true
    if slot.current === connection { slot.current = nil }
    slot.fenced.removeAll { $0 === connection }
    slots[connection.slot] = slot
    connectionCount -= 1
    if connectionCount == 0 {
      absentSince = .now
      fence.reset()  // Nothing that was sent before can arrive any more.
    }
    condition.broadcast()
  }
}

// What a connection does with its attachment.
extension Attachment {
  /// Whether a request, or a part of one, may be executed; if so `end` is called after it.
  public enum Admission: Equatable, Sendable {
    /// It may: no newer copy has been seen, and no older one is being executed.
    case execute
    /// An older copy of the request is being executed; only when not told to wait.
    case mustWait
    /// A newer copy has been seen: no answer is wanted any more.
    case superseded
    /// Another connection has taken this one's place.
    case fenced
  }

  fileprivate func begin(
    _ connection: AttachmentConnection, _ mark: RequestMark?, mayWait: Bool
  ) -> Admission {
    if hasSaidGoodbye.load(ordering: .relaxed) { hasSaidGoodbye.store(false, ordering: .relaxed) }
    let admission = admit(connection, mark)
    // For a moment it was executing, and somebody may have seen that.
    if admission != .execute { tellWaiters() }
    guard admission == .mustWait, mayWait else { return admission }
    return locked {
      waitingCount.add(1, ordering: .sequentiallyConsistent)
      defer { waitingCount.subtract(1, ordering: .sequentiallyConsistent) }
      while true {
        // Once more: whoever was executing may have looked for waiters before there was one. Nobody
        // looks at this connection meanwhile.
        let admission = admit(connection, mark)
        guard admission == .mustWait else { return admission }
        condition.wait()
      }
    }
  }

  private func admit(_ connection: AttachmentConnection, _ mark: RequestMark?) -> Admission {
    connection.executingCount.add(1, ordering: .sequentiallyConsistent)
    var admission = Admission.execute
    if connection.isReplaced {
      admission = .fenced
    } else if let mark {
      switch fence.admit(mark) {
      case .proceed: break
      case .wait: admission = .mustWait
      case .superseded: admission = .superseded
      }
    }
    if admission != .execute {
      connection.executingCount.subtract(1, ordering: .sequentiallyConsistent)
    }
    return admission
  }

  /// False when a newer copy of the request will be answered instead.
  fileprivate func end(_ connection: AttachmentConnection, _ mark: RequestMark?) -> Bool {
    let isNewest = mark.map { fence.finished($0) } ?? true
    connection.executingCount.subtract(1, ordering: .sequentiallyConsistent)
    tellWaiters()
    return isNewest
  }

  /// Something has ended. Whoever is not seen to wait here sees for itself that it has.
  private func tellWaiters() {
    guard waitingCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
    locked { condition.broadcast() }
  }

  fileprivate func leave(_ connection: AttachmentConnection, saysGoodbye: Bool) {
    locked {
      if saysGoodbye { hasSaidGoodbye.store(true, ordering: .relaxed) }
      removeLocked(connection)
    }
  }
}

// What the table of attachments asks.
extension Attachment {
  /// Ends it for good if no connection is left and `condition` holds for the time since then and
  /// for whether the client said goodbye. What is in its layer is lost; the file goes when the
  /// caller lets go of what comes back, which may take a while.
  func end(
    if isDue: (_ absentSince: MonotonicTime, _ hasSaidGoodbye: Bool) -> Bool
  ) -> (isOver: Bool, layer: OverlayBackend?) {
    locked {
      guard !isOver, let absentSince,
        isDue(absentSince, hasSaidGoodbye.load(ordering: .relaxed))
      else { return (false, nil) }
      isOver = true
      export.discardLayer(of: token)
      defer { layer = nil }
      return (true, layer)
    }
  }

  /// Ends it if no connection ever was let in.
  func endIfUnused() -> Bool {
    locked {
      guard connectionCount == 0, absentSince == nil else { return false }
      isOver = true
      return true
    }
  }

  /// When its last connection left; nil while there is one.
  var absence: MonotonicTime? { locked { absentSince } }
  var sharedLayer: OverlayBackend? { locked { layer } }
  /// Connections that wait for another, for tests.
  var waiters: Int { waitingCount.load(ordering: .relaxed) }
}

/// One connection of an attachment, from its entry to `leave`.
public final class AttachmentConnection: @unchecked Sendable {
  // Unchecked: what changes is atomic, or guarded by the attachment's lock.
  private let attachment: Attachment
  fileprivate let slot: UInt16
  /// The overlay that all connections of the attachment share; nil for other exports.
  public let layer: OverlayBackend?
  fileprivate let control: ConnectionControl
  fileprivate let servedByteCount = Atomic<UInt64>(0)
  /// A newer connection has taken its slot; set under the lock.
  fileprivate let isFenced = Atomic(false)
  fileprivate var hasLeft = false
  /// Not let in yet: nothing of it is executed.
  fileprivate var isEntering = true
  /// Requests between `begin` and `end`.
  fileprivate let executingCount = Atomic<Int>(0)
  fileprivate let awaited = Atomic(false)

  fileprivate var isExecuting: Bool {
    executingCount.load(ordering: .sequentiallyConsistent) > 0
  }

  fileprivate init(
    of attachment: Attachment, slot: UInt16, layer: OverlayBackend?, control: ConnectionControl
  ) {
    self.attachment = attachment
    self.slot = slot
    self.layer = layer
    self.control = control
  }

  /// Asks to execute one request, or a part of one. `mark`: which request it is, nil for a client
  /// that does not count its requests, whose copies are not told apart. `mayWait`: block until an
  /// older copy is done, rather than `mustWait`.
  public func begin(_ mark: RequestMark?, mayWait: Bool) -> Attachment.Admission {
    attachment.begin(self, mark, mayWait: mayWait)
  }

  /// After each `begin` that said `execute`, with its mark. False when a newer copy of the request
  /// will be answered instead.
  public func end(_ mark: RequestMark?) -> Bool { attachment.end(self, mark) }

  /// When nothing of it is being executed, and before it waits for the client: all requests are done
  /// that are complete in the first so many bytes of its stream, the handshake included.
  public func hasServed(_ byteCount: UInt64) {
    servedByteCount.store(byteCount, ordering: .releasing)
    if isAwaited { awaited.store(false, ordering: .relaxed) }
  }

  /// A sibling waits until it calls `hasServed`: it should come to that, and not begin more before.
  public var isAwaited: Bool { awaited.load(ordering: .relaxed) }

  /// A newer connection has taken its slot.
  public var isReplaced: Bool { isFenced.load(ordering: .sequentiallyConsistent) }

  /// Once, before its socket is closed. `saysGoodbye`: the client has detached its device.
  func leave(saysGoodbye: Bool) { attachment.leave(self, saysGoodbye: saysGoodbye) }
}

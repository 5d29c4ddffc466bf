// SPDX-License-Identifier: Apache-2.0
// One connection, from its acceptance to its end. One thread owns it at a time: a reactor, which has
// many, or a thread of its own.
//
//   accepted ──► reactor: handshake ──► idle ◄──► busy ──► ended
//                          │ ▲                    │ ▲
//                   takes  ▼ │ done      worth it,▼ │ idle, or too many
//                   time   thread        or waits thread of its own

import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

final class Session: @unchecked Sendable {
  // Unchecked: whoever owns the session uses it; it is handed on under a lock.

  /// What the owner does next.
  enum Step {
    /// Waits until the socket can be read from.
    case input
    /// Waits until the socket can be written to.
    case output
    /// Hands it to a thread that may wait.
    case ownThread
    /// Hands it to a reactor.
    case turn
    /// Calls `end`, where that may take its time if `endsAtOnce` says no.
    case over
  }

  private let server: NBDServer
  private let descriptor: FileDescriptor
  private let client: ByteString
  private let number: UInt64
  private let statistics: SessionStatistics
  private var handshaking: Handshaking?
  private var transmission: Transmission?
  private var entry: Handshaking.Entry?
  private var ending: Ending?
  private var hasReceiveTimeout = false

  private enum Ending {
    case handshake(Handshaking.Outcome)
    case session(SessionEnding)
  }

  // The reactor's notes.
  /// What it waits for; 0 when the socket is not in its set.
  var awaitedEvents: UInt32 = 0
  /// It counts for `EngineState.addBusy`.
  var isBusy = false
  var hasHadTurn = false
  /// Since it began to be busy.
  var turnCount = 0

  init(
    _ server: NBDServer, _ descriptor: consuming FileDescriptor, client: ByteString,
    number: UInt64, statistics: SessionStatistics, handshaking: Handshaking
  ) {
    self.server = server
    self.descriptor = descriptor
    self.client = client
    self.number = number
    self.statistics = statistics
    self.handshaking = handshaking
  }

  var socket: CInt { descriptor.rawValue }
  var engine: Engine { server.engine }

  /// When the handshake must have ended; nil after it.
  var handshakeDeadline: Deadline? { handshaking?.deadline }

  /// Sends the greeting.
  func begin() -> Step { handshake(receives: false, waits: false) }

  /// Goes on in a reactor. `buffers` has memory to lend, and takes it back.
  func advance(_ buffers: inout ReactorBuffers) -> Step {
    if handshaking != nil {
      let step = handshake(receives: true, waits: false)
      guard case .turn = step else { return step }
      // Entered; what came with the last option is served at once.
      guard transmission?.needsBuffers == false else { return .input }
    }
    if transmission?.needsBuffers == true {
      do {
        transmission?.lend(try buffers.take())
      } catch {
        return end(.notSetUp(error))
      }
    }
    let step = transmit(waits: false)
    if let unused = transmission?.takeBackBuffers() { buffers.give(unused) }
    return step
  }

  private func handshake(receives: Bool, waits: Bool) -> Step {
    guard let step = handshaking?.advance(socket, receives: receives, waits: waits) else {
      return .turn
    }
    switch step {
    case .input: return .input
    case .output: return .output
    case .medium: return .ownThread
    case .over(.entered(let entry, let received)):
      handshaking = nil
      enter(entry)
      guard !received.isEmpty else { return .turn }
      do {
        transmission?.lend(try engine.buffers.take())
        transmission?.put(received)
      } catch {
        return end(.notSetUp(error))
      }
      return .turn
    case .over(let outcome):
      handshaking = nil
      ending = .handshake(outcome)
      return .over
    }
  }

  private func enter(_ entry: Handshaking.Entry) {
    self.entry = entry
    server.entered(number, client: client, entry)
    transmission = Transmission(
      socket: socket, isTCP: client.bytes.starts(with: "tcp:".utf8), entry: entry,
      statistics: statistics, engine: engine.state,
      isStopping: server.isStopping)
  }

  private func transmit(waits: Bool) -> Step {
    do {
      // In place: the value is large.
      switch try transmission!.advance(waits: waits) {
      case .input: return .input
      case .output: return .output
      case .medium: return .ownThread
      case .turn: return .turn
      }
    } catch {
      return end(error)
    }
  }

  private func end(_ reason: SessionEnding) -> Step {
    ending = .session(reason)
    return .over
  }
}

// In a thread of its own.
extension Session {
  /// How long a session that nothing comes from keeps its thread.
  private static let quietMilliseconds: UInt32 = 200
  /// How long a session that had to wait for its medium keeps its thread, however many others are
  /// busy: it will have to wait again.
  private static let waitingMilliseconds: UInt64 = 250

  /// Until the session goes back to its reactor, or is over.
  func runInOwnThread() {
    if handshaking != nil {
      switch handshakeInOwnThread() {
      case .over: return end()
      default: break
      }
    }
    if ending != nil { return end() }
    // A socket that waits in place saves a call for each request.
    _ = clinux_set_blocking(socket, 1)
    if !hasReceiveTimeout {
      hasReceiveTimeout = true
      _ = clinux_set_receive_timeout(socket, Self.quietMilliseconds)
    }
    if !isBusy {
      isBusy = true
      engine.state.addBusy(1)
    }
    let step = serveInOwnThread()
    transmission?.leaveThread()
    if let unused = transmission?.takeBackBuffers() { engine.buffers.give(unused) }
    if case .over = step { return end() }
    if case .input = step {
      isBusy = false
      engine.state.addBusy(-1)
    }
    _ = clinux_set_blocking(socket, 0)
    turnCount = 0
    engine.adopt(self)
  }

  private func serveInOwnThread() -> Step {
    if transmission?.needsBuffers == true {
      do {
        transmission?.lend(try engine.buffers.take())
      } catch {
        return end(.notSetUp(error))
      }
    }
    transmission?.stay(
      until: clinux_coarse_nanoseconds() &+ Self.waitingMilliseconds &* 1_000_000)
    while true {
      let step = transmit(waits: true)
      switch step {
      case .output, .ownThread: continue
      case .input, .turn, .over: return step
      }
    }
  }

  private func handshakeInOwnThread() -> Step {
    while true {
      let step = handshake(receives: true, waits: true)
      let events: CInt
      switch step {
      case .input: events = CInt(clinux_POLLIN)
      case .output: events = CInt(clinux_POLLOUT)
      default: return step
      }
      guard let deadline = handshakeDeadline, !deadline.hasPassed else { return endLateHandshake() }
      _ = clinux_poll(socket, CShort(events), deadline.pollMilliseconds)
    }
  }
}

// Its end.
extension Session {
  /// The handshake has taken too long.
  func endLateHandshake() -> Step {
    handshaking?.abandon()
    handshaking = nil
    ending = .handshake(Handshaking.lateness)
    return .over
  }

  /// Whether `end` returns soon: no layer to be removed, no client to be waited for.
  var endsAtOnce: Bool {
    guard let entry else { return true }
    return entry.attached == nil && entry.export.access != .overlay && !server.isStopping.isSet
  }

  /// The last thing that happens to it.
  func end() {
    let busy = isBusy
    isBusy = false
    if busy { engine.state.addBusy(-1) }
    switch ending {
    case .handshake(.notOpened(let export, let reason, let advice)):
      server.report(
        .notOpened(client: client, export: export, reason: reason, advice: advice))
    case .handshake(.ended(let reason)):
      server.report(.noSession(client: client, reason: reason))
    case .session(let reason):
      if let entry { endTransmission(entry, reason) }
    case .handshake(.entered): break
    case nil:
      // The system gave no thread for it.
      handshaking?.abandon()
      if let entry { endTransmission(entry, .notSetUp(.noMemory)) }
    }
    transmission = nil
    entry = nil  // Until here it has the right to write.
    // From here on nobody else shuts the socket down, so its number may be given up.
    server.registry.remove(number)
  }

  private func endTransmission(_ entry: Handshaking.Entry, _ ending: SessionEnding) {
    if let attached = entry.attached {
      server.attachments.leave(attached.connection, saysGoodbye: ending == .disconnected)
    }
    if server.isStopping.isSet { linger() }
    server.report(
      .closed(
        number: number, client: client, export: entry.export.name, reason: ending.reason,
        counters: statistics.snapshot))
  }

  /// Closing a TCP socket with unread requests would throw away replies on their way: the client
  /// gets a moment to see the end.
  private func linger() {
    _ = clinux_shutdown_writing(socket)
    let deadline = Deadline.milliseconds(500)
    var scratch = [UInt8](repeating: 0, count: 4096)
    while !deadline.hasPassed {
      guard clinux_poll(socket, CShort(clinux_POLLIN), deadline.pollMilliseconds) > 0 else {
        return
      }
      let count = unsafe scratch.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(socket, raw.baseAddress, raw.count, CInt(clinux_MSG_DONTWAIT))
      }
      if count <= 0 { return }
    }
  }
}

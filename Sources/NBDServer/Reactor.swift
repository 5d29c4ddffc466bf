// SPDX-License-Identifier: Apache-2.0
// A thread for many sessions: those in their handshake, those that nothing comes from, and the busy
// ones when there are more of them than threads are good for. Each gets a turn when its socket is
// ready, the turn is what one receive has brought, and nothing in it waits. It accepts them, too: a
// handshake takes less time than waking another thread for it.

import CLinux
import LinuxSystem
import Synchronization

final class Reactor: @unchecked Sendable {
  // Unchecked: what is not locked or atomic belongs to the reactor's thread.
  private let readiness: FileDescriptor
  private let wakeup: FileDescriptor
  private unowned let engine: Engine
  private let sessions = Mutex<[ObjectIdentifier: Session]>([:])
  /// Sessions for which time counts: in their handshake, or busy.
  private let timedCount = Atomic<Int>(0)
  /// Its thread waits without a limit of time, and has to be woken for a session that has one.
  private let sleepsForEver = Atomic(false)
  private let isOver = SharedFlag()
  private let tickMilliseconds: CInt
  private var buffers = ReactorBuffers()
  private var sweptAt: UInt64 = 0

  private struct Listening {
    var listeners: [Listener] = []
    var acceptance: Acceptance?
  }
  private let listening = Mutex(Listening())
  /// Nothing is accepted before, for want of descriptors or memory; nil: that is not so.
  private var acceptsAgainAt: UInt64?
  /// Others wait for their turn no longer than so many handshakes take to begin.
  private static let acceptedMaximum = 16
  private static let acceptPauseNanoseconds: UInt64 = 100_000_000
  /// What epoll says of a listener is its place in the list and one; of a session, its address.
  private static let listenerCountMaximum = 1024

  /// Those of its sessions that are busy get a thread of their own after so many turns, if there
  /// are not many.
  private static let turnCountForThread = 4
  private static let stackByteCount = 512 << 10
  /// So long it goes on looking at the time after the last session for which that counts.
  private static let lingerNanoseconds: UInt64 = 1_000_000_000

  init(_ engine: Engine, handshakeMilliseconds: UInt64) throws(SystemError) {
    self.engine = engine
    tickMilliseconds = CInt(min(max(handshakeMilliseconds / 4, 5), 250))
    readiness = FileDescriptor(owning: try checked(clinux_readiness_open()))
    wakeup = FileDescriptor(owning: try checked(clinux_event_descriptor()))
    _ = try checked(
      clinux_readiness_change(
        readiness.rawValue, CInt(clinux_EPOLL_CTL_ADD), wakeup.rawValue,
        UInt32(clinux_EPOLLIN), 0))
    let box = unsafe Unmanaged.passRetained(ReactorThread(self, engine))
    // SAFETY: the object is the thread's from here on.
    let result = unsafe clinux_start_thread(
      Self.stackByteCount,
      { argument in
        // SAFETY: retained above for this thread alone.
        guard let argument = unsafe argument else { return nil }
        let thread = unsafe Unmanaged<ReactorThread>.fromOpaque(argument).takeRetainedValue()
        withExtendedLifetime(thread) { thread.reactor.run() }
        return nil
      }, box.toOpaque())
    if result < 0 {
      unsafe box.release()  // SAFETY: the thread that would have taken it does not exist.
      throw SystemError(errno: -result)
    }
  }

  /// The thread ends when its sessions have.
  func stop() {
    isOver.set()
    stopListening()
    _ = clinux_event_signal(wakeup.rawValue)
  }

  /// Takes a session over from whoever calls, with what it waits for.
  func add(_ session: Session, awaiting events: UInt32) {
    let isTimed = session.isBusy || session.handshakeDeadline != nil
    session.awaitedEvents = events
    session.hasHadTurn = true
    let key = ObjectIdentifier(session)
    // SAFETY: the pointer comes back in `run`, while `sessions` has the object.
    let data = unsafe UInt64(UInt(bitPattern: Unmanaged.passUnretained(session).toOpaque()))
    // Under the lock, or the reactor might give it up before it is in the set.
    let isAdded = sessions.withLock { sessions in
      let result = clinux_readiness_change(
        readiness.rawValue, CInt(clinux_EPOLL_CTL_ADD), session.socket, events, data)
      if result == 0 { sessions[key] = session }
      return result == 0
    }
    // From here on it is the reactor's. Without memory there is no more to be done for it.
    guard isAdded else { return session.end() }
    guard isTimed else { return }
    // Either this sees that the thread sleeps, or the thread sees the count before it does.
    timedCount.add(1, ordering: .sequentiallyConsistent)
    if sleepsForEver.load(ordering: .sequentiallyConsistent) {
      _ = clinux_event_signal(wakeup.rawValue)
    }
  }

  fileprivate func run() {
    var ready = [clinux_readiness](repeating: clinux_readiness(), count: 64)
    var timedUntil: UInt64 = 0
    while true {
      var isTimed = hasTimed
      if isTimed {
        timedUntil = clinux_coarse_nanoseconds() &+ Self.lingerNanoseconds
      } else if clinux_coarse_nanoseconds() < timedUntil {
        // One handshake follows another: whoever brings the next need not wake this thread.
        isTimed = true
      } else {
        sleepsForEver.store(true, ordering: .sequentiallyConsistent)
        isTimed = hasTimed
      }
      let count = unsafe ready.withUnsafeMutableBufferPointer { ready in
        // SAFETY: the array's own storage.
        unsafe clinux_readiness_wait(
          readiness.rawValue, ready.baseAddress!, CInt(ready.count),
          isTimed ? tickMilliseconds : -1)
      }
      sleepsForEver.store(false, ordering: .relaxed)
      for index in 0..<max(0, Int(count)) {
        guard ready[index].data != 0 else {
          _ = clinux_event_clear(wakeup.rawValue)
          continue
        }
        if ready[index].data <= UInt64(Self.listenerCountMaximum) {
          accept(Int(ready[index].data) - 1)
          continue
        }
        // SAFETY: an object of `sessions`; it leaves them in its own turn or between the waits.
        let session = unsafe Unmanaged<Session>.fromOpaque(
          UnsafeRawPointer(bitPattern: UInt(ready[index].data))!
        ).takeUnretainedValue()
        giveTurn(session)
      }
      if isTimed { sweepIfDue() }
      if isOver.isSet, sessions.withLock({ $0.isEmpty }) { return }
    }
  }

  private var hasTimed: Bool { timedCount.load(ordering: .sequentiallyConsistent) > 0 }

  /// From any thread.
  func listen(on listeners: [Listener], _ acceptance: Acceptance) throws(SystemError) {
    precondition(listeners.count <= Self.listenerCountMaximum)
    listening.withLock { $0 = Listening(listeners: listeners, acceptance: acceptance) }
    try awaitConnections()
  }

  /// From any thread. A connection that is being accepted is still served.
  func stopListening() {
    let listeners = listening.withLock { listening in
      defer { listening = Listening() }
      return listening.listeners
    }
    ignoreConnections(listeners)
  }

  private func awaitConnections() throws(SystemError) {
    for (index, listener) in listening.withLock({ $0.listeners }).enumerated() {
      // Of several reactors one is woken.
      _ = try checked(
        clinux_readiness_change(
          readiness.rawValue, CInt(clinux_EPOLL_CTL_ADD), listener.pollNumber,
          UInt32(clinux_EPOLLIN) | clinux_EPOLLEXCLUSIVE, UInt64(index + 1)))
    }
  }

  private func ignoreConnections(_ listeners: [Listener]) {
    for listener in listeners {
      _ = clinux_readiness_change(
        readiness.rawValue, CInt(clinux_EPOLL_CTL_DEL), listener.pollNumber, 0, 0)
    }
  }

  private func accept(_ index: Int) {
    let (listeners, acceptance) = listening.withLock { ($0.listeners, $0.acceptance) }
    guard index < listeners.count, let acceptance else { return }
    do {
      for _ in 0..<Self.acceptedMaximum {
        guard let connection = try listeners[index].accept() else { return }
        acceptance.take(connection)
      }
    } catch {
      acceptance.failed(error)
      pauseAccepting()
    }
  }

  /// Those who wait are still there: the thread must not spin.
  private func pauseAccepting() {
    ignoreConnections(listening.withLock { $0.listeners })
    if acceptsAgainAt == nil { timedCount.add(1, ordering: .relaxed) }
    acceptsAgainAt = clinux_coarse_nanoseconds() &+ Self.acceptPauseNanoseconds
  }

  private func acceptAgainIfDue(_ now: UInt64) {
    guard let time = acceptsAgainAt, now >= time else { return }
    do {
      try awaitConnections()
      acceptsAgainAt = nil
      timedCount.subtract(1, ordering: .relaxed)
    } catch {
      pauseAccepting()
    }
  }

  private func giveTurn(_ session: Session) {
    let wasHandshaking = session.handshakeDeadline != nil
    let step = session.advance(&buffers)
    session.hasHadTurn = true
    let isHandshaking = session.handshakeDeadline != nil
    if wasHandshaking, !isHandshaking {
      timedCount.subtract(1, ordering: .relaxed)
    } else if !isHandshaking, !session.isBusy {
      session.isBusy = true
      session.turnCount = 0
      engine.state.addBusy(1)
      timedCount.add(1, ordering: .relaxed)
    }
    switch step {
    case .input, .turn:
      session.turnCount &+= 1
      if !isHandshaking, session.turnCount >= Self.turnCountForThread, engine.state.hasRoom {
        remove(session)
        return engine.giveThread(session)
      }
      wait(for: UInt32(clinux_EPOLLIN), session)
    case .output: wait(for: UInt32(clinux_EPOLLOUT), session)
    case .ownThread:
      remove(session)
      engine.giveThread(session)
    case .over:
      remove(session)
      engine.end(session)
    }
  }

  private func wait(for events: UInt32, _ session: Session) {
    guard session.awaitedEvents != events else { return }
    session.awaitedEvents = events
    // SAFETY: as in `add`.
    let data = unsafe UInt64(UInt(bitPattern: Unmanaged.passUnretained(session).toOpaque()))
    _ = clinux_readiness_change(
      readiness.rawValue, CInt(clinux_EPOLL_CTL_MOD), session.socket, events, data)
  }

  /// It is the caller's from here on.
  private func remove(_ session: Session) {
    if session.isBusy || session.handshakeDeadline != nil {
      timedCount.subtract(1, ordering: .relaxed)
    }
    _ = clinux_readiness_change(
      readiness.rawValue, CInt(clinux_EPOLL_CTL_DEL), session.socket, 0, 0)
    session.awaitedEvents = 0
    let key = ObjectIdentifier(session)
    sessions.withLock { $0[key] = nil }
  }

  /// Ends handshakes that are late, and sees who has gone quiet.
  private func sweepIfDue() {
    let now = clinux_coarse_nanoseconds()
    guard now &- sweptAt >= UInt64(tickMilliseconds) * 1_000_000 else { return }
    sweptAt = now
    acceptAgainIfDue(now)
    let all = sessions.withLock { Array($0.values) }
    for session in all {
      if let deadline = session.handshakeDeadline {
        guard deadline.hasPassed else { continue }
        remove(session)
        _ = session.endLateHandshake()
        engine.end(session)
      } else if session.isBusy {
        if !session.hasHadTurn {
          session.isBusy = false
          engine.state.addBusy(-1)
          timedCount.subtract(1, ordering: .relaxed)
        }
        session.hasHadTurn = false
      }
    }
    if timedCount.load(ordering: .relaxed) == 0 { buffers.trim() }
  }
}

/// What a reactor's thread keeps alive.
private final class ReactorThread: Sendable {
  let reactor: Reactor
  private let engine: Engine

  init(_ reactor: Reactor, _ engine: Engine) {
    self.reactor = reactor
    self.engine = engine
  }
}

/// Memory that the sessions of a reactor use in turn.
struct ReactorBuffers {
  private static let keptCount = 4
  private var free: [SessionBuffers] = []

  mutating func take() throws(SystemError) -> SessionBuffers {
    if let kept = free.popLast() { return kept }
    return try SessionBuffers()
  }

  mutating func give(_ buffers: SessionBuffers) {
    if free.count < Self.keptCount { free.append(buffers) }
  }

  func trim() {
    for buffers in free { buffers.trim() }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The threads of a server and what goes between them. There is a reactor for every two processors,
// made when it is needed, and threads for sessions that are better off alone. The other half of the
// processors has enough to do with what the kernel does for sockets, and with clients that are here:
// on two processors a second reactor cost a hundred streams a fifth of their throughput.

import BlockServer
import CLinux
import LinuxSystem
import Synchronization

final class Engine: Sendable {
  let state: EngineState
  let buffers = BufferPool()
  private let threads = SessionThreads()
  private let reactors = Mutex<[Reactor]>([])
  private let nextReactor = Atomic<Int>(0)
  private let handshakeMilliseconds: UInt64

  init(handshakeMilliseconds: UInt64) {
    self.handshakeMilliseconds = handshakeMilliseconds
    state = EngineState(
      ownThreadCountMaximum: max(16, 4 * Int(clinux_processor_count())))
  }

  /// The reactors' threads end when their sessions have.
  func stop() {
    let all = reactors.withLock { reactors in
      let all = reactors
      reactors = []
      return all
    }
    for reactor in all { reactor.stop() }
  }

  /// Accepts connections until `stopListening`.
  func listen(on listeners: [Listener], _ acceptance: Acceptance) throws(SystemError) {
    let all = reactors.withLock { reactors in
      makeReactors(&reactors)
      return reactors
    }
    // ENOMEM: what has prevented it was asked for one by one, and is not known here.
    guard !all.isEmpty else { throw SystemError(errno: 12) }
    for reactor in all { try reactor.listen(on: listeners, acceptance) }
  }

  func stopListening() {
    for reactor in reactors.withLock({ $0 }) { reactor.stopListening() }
  }

  /// Takes over a connection that has just been accepted.
  func take(_ session: Session) {
    switch session.begin() {
    case .input, .turn: add(session, awaiting: UInt32(clinux_EPOLLIN))
    case .output: add(session, awaiting: UInt32(clinux_EPOLLOUT))
    case .ownThread: giveThread(session)
    case .over: end(session)
    }
  }

  /// Takes back a session that had a thread of its own.
  func adopt(_ session: Session) { add(session, awaiting: UInt32(clinux_EPOLLIN)) }

  func giveThread(_ session: Session) {
    if !threads.run(session) { session.end() }
  }

  func end(_ session: Session) {
    if session.endsAtOnce { session.end() } else { giveThread(session) }
  }

  private func add(_ session: Session, awaiting events: UInt32) {
    guard let reactor = reactor() else { return session.end() }
    reactor.add(session, awaiting: events)
  }

  /// One after the other; nil when the system gives no thread or descriptor for any.
  private func reactor() -> Reactor? {
    reactors.withLock { reactors in
      makeReactors(&reactors)
      guard !reactors.isEmpty else { return nil }
      let turn = nextReactor.add(1, ordering: .relaxed).oldValue
      return reactors[Int(UInt(bitPattern: turn) % UInt(reactors.count))]
    }
  }

  private func makeReactors(_ reactors: inout [Reactor]) {
    guard reactors.isEmpty else { return }
    for _ in 0..<min(max(Int(clinux_processor_count()) / 2, 1), 16) {
      guard let reactor = try? Reactor(self, handshakeMilliseconds: handshakeMilliseconds)
      else { return }
      reactors.append(reactor)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// The server's RDMA half: listeners, and one thread that has all sessions.

public import BlockServer
import Foundation
import LinuxSystem
import RDMAVerbs
import Synchronization
public import WireFormat

/// Serves RNBD over RDMA on its own threads. Any thread may call.
public final class RNBDServer: Sendable {
  /// Why nothing can be listened on with RDMA.
  public struct StartError: Error, Equatable, Sendable {
    /// What happened, with the address if it is about one.
    public var reason: String
    /// What the administrator can do about it.
    public var advice: String
    /// Both, as other errors give them.
    public var report: (reason: String, advice: String) { (reason, advice) }
  }

  private let finished: FinishedJobs
  private let shared: EngineBox
  private let baton = Baton()
  private let hasEnded = Atomic(false)
  /// As they can be given to a client.
  public let addresses: [ByteString]

  /// The engine, for the thread that has it.
  private final class EngineBox: @unchecked Sendable {
    // Unchecked: used only by the thread that runs the engine, once it runs.
    let engine: Engine<VerbsTransport>
    var isOver = false
    init(_ engine: Engine<VerbsTransport>) { self.engine = engine }
  }

  /// Listens at once. `report` is called on the engine's thread.
  public init(
    listen: [(host: ByteString, port: UInt16)], limits: RNBDServerLimits,
    directory: DeviceDirectory, access: WriteAccess, attachments: Attachments,
    registry: SessionRegistry, report: @escaping @Sendable (RNBDEvent) -> Void
  ) throws(StartError) {
    let transport: VerbsTransport
    do { transport = try VerbsTransport() } catch {
      let report = error.report
      let shown = listen.first.map { Self.text($0.host, $0.port).printable } ?? "rdma"
      throw StartError(reason: "\(shown): \(report.reason)", advice: report.advice)
    }
    var addresses: [ByteString] = []
    for (host, port) in listen {
      addresses += try Self.listen(on: host, port, transport)
    }
    self.addresses = addresses
    let finished = FinishedJobs(waker: transport.waker)
    self.finished = finished
    do {
      shared = EngineBox(
        try Engine(
          transport, limits: limits,
          surroundings: EngineSurroundings(
            directory: directory, access: access, attachments: attachments, registry: registry,
            report: report),
          finished: finished))
    } catch {
      throw StartError(
        reason: "rdma.queue_depth and rdma.io_size do not go together: \(error.reason)",
        advice: "lower one of them")
    }
    shared.engine.baton = baton
    for isRunner in [true, false] {
      let thread = Thread { [self] in run(isRunner: isRunner) }
      thread.name = "rnbd"
      thread.start()
    }
  }

  /// Two threads do this; one of them has the engine, the other stands by.
  private func run(isRunner: Bool) {
    guard isRunner || baton.standBy() else { return }
    repeat {
      let isOver = shared.engine.run { shared.isOver && shared.engine.sessionCount == 0 }
      guard !isOver else {
        hasEnded.store(true, ordering: .releasing)
        return baton.end()
      }
    } while baton.standBy()
  }

  private static func text(_ host: ByteString, _ port: UInt16) -> ByteString {
    let isV6 = host.bytes.contains(UInt8(ascii: ":"))
    return "rdma:" + (isV6 ? "[" + host + "]" : host) + ByteString(":\(port)")
  }

  private static func listen(
    on host: ByteString, _ port: UInt16, _ transport: VerbsTransport
  ) throws(StartError) -> [ByteString] {
    let shown = text(host, port)
    var addresses: [ByteString] = []
    while addresses.count < 16 {
      let address: SocketAddress?
      do { address = try resolveListener(host: host, port: port, index: addresses.count) } catch {
        throw StartError(
          reason: error.errno == 99
            ? "this machine has no address for \(shown.printable)"
            : "\(shown.printable) cannot be looked up: \(error.text)",
          advice: "check the host of --listen")
      }
      guard let address else { break }
      do { try transport.listen(on: address, isWildcard: host == "::") } catch {
        let report = error.report
        throw StartError(reason: "\(shown.printable): \(report.reason)", advice: report.advice)
      }
      addresses.append("rdma:" + address.text)
    }
    return addresses
  }

  /// Sessions with their paths and devices; nil when the engine does not answer soon.
  public func status() -> [ServerStatus.TransportSession]? {
    let answer = Mutex<[ServerStatus.TransportSession]?>(nil)
    let box = AnswerBox(answer)
    let isThere = DispatchSemaphore(value: 0)
    let shared = shared
    finished.ask {
      box.value.withLock { $0 = shared.engine.status() }
      isThere.signal()
    }
    guard isThere.wait(timeout: .now() + 2) == .success else { return nil }
    return box.value.withLock { $0 }
  }

  private final class AnswerBox: Sendable {
    let value: Mutex<[ServerStatus.TransportSession]?>
    init(_ value: consuming Mutex<[ServerStatus.TransportSession]?>) { self.value = value }
  }

  /// Every path ends at once; what was begun is finished and answered to nobody.
  public func stop() {
    let shared = shared
    finished.ask {
      shared.isOver = true
      shared.engine.transport.stopListening()
      shared.engine.stop()
    }
  }

  /// After `stop`: nothing is executed any more.
  public var isOver: Bool { hasEnded.load(ordering: .acquiring) }
}

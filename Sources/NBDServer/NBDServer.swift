// SPDX-License-Identifier: Apache-2.0
// Sessions of the NBD protocol. A slow client holds up nobody but itself.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

/// What a client can make the server spend.
public struct NBDServerLimits: Equatable, Sendable {
  /// From the acceptance to the end of the negotiation.
  public var handshakeMilliseconds: UInt64 = 10_000
  /// Options that a client may send before it enters an export; one more ends the connection.
  public var optionCount = 64

  /// The defaults of the properties.
  public init() {}
}

/// One fact for the log.
public enum SessionEvent: Equatable, Sendable {
  /// The connection was not served, and closed without a word.
  case refused(client: ByteString, ConnectionRefusal)
  /// The connection ended before an export was entered.
  case noSession(client: ByteString, reason: String)
  /// The export is there and could not be opened for this session.
  case notOpened(client: ByteString, export: ByteString, reason: String, advice: String)
  /// The negotiation is over, and the export is open; `number` is that of the session registry.
  case opened(number: UInt64, client: ByteString, export: ByteString, access: AccessMode)
  /// The session is over; `counters` are all of its requests.
  case closed(
    number: UInt64, client: ByteString, export: ByteString, reason: String,
    counters: SessionCounters)
}

/// Serves NBD to any number of clients. Any thread may call.
public final class NBDServer: Sendable {
  private let directory: DeviceDirectory
  let registry: SessionRegistry
  let attachments: Attachments
  private let access: WriteAccess
  private let limits: NBDServerLimits
  let report: @Sendable (SessionEvent) -> Void
  let isStopping = SharedFlag()
  let engine: Engine

  /// `directory`: what is found beside the table's exports; nil: nothing. Limits that the registry
  /// has, too, are asked of it for each connection. `report` is called from many threads.
  public init(
    table: ExportTable, registry: SessionRegistry, attachments: Attachments = Attachments(),
    access: WriteAccess = WriteAccess(),
    limits: NBDServerLimits = NBDServerLimits(), directory: DeviceDirectory? = nil,
    report: @escaping @Sendable (SessionEvent) -> Void
  ) {
    self.directory = directory ?? DeviceDirectory(table: table)
    self.registry = registry
    self.attachments = attachments
    self.access = access
    self.limits = limits
    self.report = report
    engine = Engine(handshakeMilliseconds: limits.handshakeMilliseconds)
  }

  deinit { engine.stop() }

  /// Serves whoever connects, until `stopListening`. `failed` is called when connections cannot be
  /// accepted: for want of descriptors or memory, and about ten times a second while that lasts.
  public func listen(
    on listeners: [Listener], failed: @escaping @Sendable (SystemError) -> Void
  ) throws(SystemError) {
    let acceptance = Acceptance(failed: failed) { [weak self] connection in
      let client = connection.client
      self?.serve(connection.takeDescriptor(), client: client)
    }
    try engine.listen(on: listeners, acceptance)
  }

  /// Nobody new is served; the listeners are closed when their owner has given them up, too.
  public func stopListening() { engine.stopListening() }

  /// Takes over an accepted, non-blocking connection and returns at once.
  public func serve(_ connection: consuming FileDescriptor, client: ByteString) {
    let socket = connection.rawValue
    let statistics = SessionStatistics()
    let bounds = registry.limits
    let number: UInt64
    do {
      number = try registry.admit(
        client: client, protocolName: "nbd", statistics: statistics,
        bufferByteCount: SessionBuffers.byteCount(requests: bounds.requestByteCountMaximum),
        stop: { isNow in
          _ = isNow ? clinux_shutdown(socket) : clinux_shutdown_reading(socket)
        })
    } catch { return report(.refused(client: client, error)) }
    let handshaking = Handshaking(
      view: ClientView(directory, access, client: client), attachments: attachments,
      deadline: .milliseconds(min(limits.handshakeMilliseconds, bounds.handshakeMilliseconds)),
      requestByteCountMaximum: bounds.requestByteCountMaximum,
      optionCountMaximum: limits.optionCount, isStopping: isStopping,
      control: ConnectionControl(
        interrupt: { _ = clinux_shutdown(socket) },
        arrivedByteCount: {
          var (acknowledged, received) = (UInt64(0), UInt64(0))
          // SAFETY: two integers of ours.
          return unsafe clinux_tcp_byte_counts(socket, &acknowledged, &received) < 0
            ? nil : received
        }))
    engine.take(
      Session(
        self, connection, client: client, number: number, statistics: statistics,
        handshaking: handshaking))
  }

  /// Makes every session end: what has been asked and has arrived is answered first.
  public func stop() {
    isStopping.set()
    registry.stopAll(isNow: false)
  }

  /// An export has been entered.
  func entered(_ number: UInt64, client: ByteString, _ entry: Handshaking.Entry) {
    let name = entry.export.name
    registry.entered(number, export: name)
    report(.opened(number: number, client: client, export: name, access: entry.export.access))
  }
}

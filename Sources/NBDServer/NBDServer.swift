// SPDX-License-Identifier: Apache-2.0
// Sessions of the NBD protocol: one thread for each connection, from the first byte of the
// handshake to the last reply. A slow client holds up nobody but itself.

import BlockBackends
import BlockServer
import CLinux
import Foundation
import LinuxSystem
import NBDProtocol
import WireFormat

/// What a client can make the server spend.
public struct NBDServerLimits: Equatable, Sendable {
  /// From the acceptance to the end of the negotiation.
  public var handshakeMilliseconds: UInt64 = 10_000
  public var optionCount = 64

  public init() {}
}

/// One fact for the log.
public enum SessionEvent: Equatable, Sendable {
  case refused(client: ByteString, connectionCountMaximum: Int)
  /// The connection ended before an export was entered.
  case noSession(client: ByteString, reason: String)
  /// The export is there and could not be opened for this session.
  case notOpened(client: ByteString, export: ByteString, reason: String, advice: String)
  case opened(number: UInt64, client: ByteString, export: ByteString, access: AccessMode)
  case closed(
    number: UInt64, client: ByteString, export: ByteString, reason: String,
    counters: SessionCounters)
}

public final class NBDServer: Sendable {
  private let table: ExportTable
  private let registry: SessionRegistry
  private let attachments: Attachments
  private let access: WriteAccess
  private let limits: NBDServerLimits
  private let report: @Sendable (SessionEvent) -> Void
  private let isStopping = SharedFlag()

  /// `report` is called from many threads.
  public init(
    table: ExportTable, registry: SessionRegistry, attachments: Attachments = Attachments(),
    access: WriteAccess = WriteAccess(),
    limits: NBDServerLimits = NBDServerLimits(),
    report: @escaping @Sendable (SessionEvent) -> Void
  ) {
    self.table = table
    self.registry = registry
    self.attachments = attachments
    self.access = access
    self.limits = limits
    self.report = report
  }

  /// Takes over an accepted, non-blocking connection and returns at once.
  public func serve(_ connection: consuming FileDescriptor, client: ByteString) {
    let number = connection.rawValue
    let statistics = SessionStatistics()
    let session = registry.add(
      client: client, protocolName: "nbd", statistics: statistics,
      stop: { isNow in
        _ = isNow ? clinux_shutdown(number) : clinux_shutdown_reading(number)
      })
    guard let session else {
      report(
        .refused(client: client, connectionCountMaximum: registry.connectionCountMaximum))
      return
    }
    let owned = connection.release()
    let thread = Thread { [self] in
      let socket = StreamSocket(owning: FileDescriptor(owning: owned))
      run(socket, session: session, client: client, statistics: statistics)
    }
    thread.stackSize = 512 << 10
    thread.start()
  }

  /// Makes every session end: what has been asked and has arrived is answered first.
  public func stop() {
    isStopping.set()
    registry.stopAll(isNow: false)
  }

  private func run(
    _ socket: consuming StreamSocket, session: UInt64, client: ByteString,
    statistics: SessionStatistics
  ) {
    let number = socket.descriptor.rawValue
    var connection = Handshaking(
      table: table, attachments: attachments, access: access,
      deadline: .milliseconds(limits.handshakeMilliseconds),
      optionCountMaximum: limits.optionCount, isStopping: isStopping,
      control: ConnectionControl(
        interrupt: { _ = clinux_shutdown(number) },
        arrivedByteCount: {
          var (acknowledged, received) = (UInt64(0), UInt64(0))
          // SAFETY: two integers of ours.
          return unsafe clinux_tcp_byte_counts(number, &acknowledged, &received) < 0
            ? nil : received
        }))
    switch connection.run(socket) {
    case .ended(let reason):
      report(.noSession(client: client, reason: reason))
    case .notOpened(let export, let reason, let advice):
      report(.notOpened(client: client, export: export, reason: reason, advice: advice))
    case .entered(let entry, let received):
      let name = entry.export.name
      registry.entered(session, export: name)
      report(.opened(number: session, client: client, export: name, access: entry.export.access))
      let ending = transmit(number, entry: entry, received: received, statistics: statistics)
      if let attached = entry.attached {
        attachments.leave(attached.connection, saysGoodbye: ending == .disconnected)
      }
      if isStopping.isSet { linger(number) }
      report(
        .closed(
          number: session, client: client, export: name, reason: ending.reason,
          counters: statistics.snapshot))
      withExtendedLifetime(entry) {}  // Until here it has the right to write.
    }
    // From here on nobody else shuts the socket down, so its number may be given up.
    registry.remove(session)
    _ = consume socket
  }

  private func transmit(
    _ number: CInt, entry: Handshaking.Entry, received: [UInt8], statistics: SessionStatistics
  ) -> SessionEnding {
    do {
      _ = try checked(clinux_set_blocking(number, 1))
      var transmission = try Transmission(
        socket: number, entry: entry, received: received, statistics: statistics,
        isStopping: isStopping)
      return transmission.run()
    } catch {
      return .notSetUp(error)
    }
  }

  /// Closing a TCP socket with unread requests would throw away replies on their way: the client
  /// gets a moment to see the end.
  private func linger(_ number: CInt) {
    _ = clinux_shutdown_writing(number)
    let deadline = Deadline.milliseconds(500)
    var scratch = [UInt8](repeating: 0, count: 4096)
    while !deadline.hasPassed {
      guard clinux_poll(number, CShort(clinux_POLLIN), deadline.pollMilliseconds) > 0 else {
        return
      }
      let count = unsafe scratch.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(number, raw.baseAddress, raw.count, 0)
      }
      if count <= 0 { return }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// A server from its start to its end: opens the media, listens, accepts, and on SIGTERM or SIGINT
// lets every session finish what has arrived.

import BlockBackends
import BlockServer
import CLinux
import Foundation
import LinuxSystem
import Logging
import NBDServer
import RNBDServer
import WireFormat

struct RunningServer {
  private let logger: Logger
  private let table: ExportTable
  private let registry: SessionRegistry
  private let attachments: Attachments
  private let housekeepingMilliseconds: CInt
  /// How long sessions may take to end by themselves.
  private let drainMilliseconds: UInt64
  private let nbd: NBDServer
  /// Nil when nothing is listened on with RDMA.
  private let rnbd: RNBDServer?
  private let devices: DeviceDirectory
  private let signals: FileDescriptorBox
  private var listeners: [Listener]
  private let control: Listener?

  init(_ configuration: ServerConfiguration) throws {
    LoggingSystem.bootstrap { _ in LogOutput() }
    let logger = Logger(label: "rootlinkd")
    self.logger = logger

    // Before the first thread: threads inherit what is blocked.
    clinux_ignore_signal(SIGPIPE)
    // A session has up to two descriptors, and the usual soft limit is 1024. Where it cannot be
    // raised the accepting says so when it is reached.
    _ = clinux_raise_open_file_limit()
    do {
      signals = FileDescriptorBox(
        FileDescriptor(owning: try checked(clinux_signal_descriptor())))
    } catch {
      throw Failure.couldNot(("signals cannot be received: \(error.text)", "check the system"))
    }

    var exports: [Export] = []
    for definition in configuration.exports {
      do {
        exports.append(
          try Export(definition, overlayDirectory: configuration.overlayDirectory))
      } catch {
        throw Failure.couldNot(
          ("export '\(definition.name.printable)': " + error.report.reason, error.report.advice))
      }
      // A layer that cannot be made is found out now rather than by the first client.
      if definition.access == .overlay { try Self.tryLayer(exports[exports.count - 1]) }
    }
    table = ExportTable(exports)
    registry = SessionRegistry(connectionCountMaximum: configuration.connectionCountMaximum)
    attachments = Attachments(limits: configuration.attachmentLimits)
    // Often enough that nothing is kept much longer than it should be.
    housekeepingMilliseconds = CInt(min(max(configuration.absentSeconds, 1), 10)) * 1000
    drainMilliseconds = configuration.drainSeconds * 1000
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = configuration.handshakeSeconds * 1000
    let access = WriteAccess()
    devices = DeviceDirectory(table: table, searchPath: configuration.rdma.searchPath)
    nbd = NBDServer(
      table: table, registry: registry, attachments: attachments, access: access, limits: limits
    ) { event in
      logger.log(level: event.level, "\(event.line)")
    }

    let addresses = configuration.listen.isEmpty ? [.standard] : configuration.listen
    listeners = []
    var rdma: [(host: ByteString, port: UInt16)] = []
    for address in addresses {
      if case .rdma(let host, let port) = address {
        rdma.append((host, port))
        continue
      }
      do {
        listeners += try Listener.listen(
          on: address, silenceSeconds: configuration.silenceSeconds)
      } catch {
        throw Failure.couldNot(error.report)
      }
    }
    guard !rdma.isEmpty else {
      rnbd = nil
      control = try Self.control(configuration, logger)
      return
    }
    do {
      rnbd = try RNBDServer(
        listen: rdma, limits: RNBDServerLimits(configuration.rdma), directory: devices,
        access: access, attachments: attachments, registry: registry
      ) { event in
        logger.log(level: event.level, "\(event.line)")
      }
    } catch { throw Failure.couldNot(error.report) }
    control = try Self.control(configuration, logger)
  }

  private static func tryLayer(_ export: Export) throws {
    do {
      try export.checkLayers()
    } catch {
      throw Failure.couldNot(
        ("export '\(export.name.printable)': " + error.report.reason, error.report.advice))
    }
  }

  /// A path that was asked for must work; the standard one may be somebody else's.
  private static func control(
    _ configuration: ServerConfiguration, _ logger: Logger
  ) throws -> Listener? {
    let path = configuration.controlPath ?? ServerConfiguration.standardControlPath
    do {
      return try Listener.unix(path, isPrivate: true)
    } catch {
      if configuration.controlPath != nil { throw Failure.couldNot(error.report) }
      logger.warning(
        "\(error.report.reason); 'rootlinkd status' will not reach this server without --control")
      return nil
    }
  }

  mutating func run() throws {
    for export in table.exports {
      logger.info(
        """
        export '\(export.name.printable)' \(export.access.rawValue), \
        \(export.geometry().byteCount) bytes from \(export.path.printable)
        """)
    }
    for export in table.exports {
      for path in attachments.adopt(export) {
        logger.warning("\(path.printable) is no layer of this export; remove it if nobody needs it")
      }
    }
    for address in addresses { logger.info("listening on \(address.printable)") }
    while try acceptOnce() {}
    drain()
    try flush()
  }

  private var addresses: [ByteString] { listeners.map(\.address) + (rnbd?.addresses ?? []) }

  /// What clients were told is written is durable when the server has ended well.
  private func flush() throws {
    var isDone = true
    for export in table.exports {
      do { try export.flush() } catch {
        logger.error("export '\(export.name.printable)' cannot be flushed: \(error)")
        isDone = false
      }
    }
    for error in attachments.flush() {
      logger.error("a layer cannot be flushed: \(error)")
      isDone = false
    }
    guard isDone else {
      throw Failure.couldNot(("not everything was made durable", "look at the disk"))
    }
    logger.info("stopped")
  }

  /// Waits for connections and signals, and takes what has come; false when the server is to end.
  private func acceptOnce() throws -> Bool {
    let all = listeners + (control.map { [$0] } ?? [])
    let numbers = [signals.rawValue] + all.map(\.pollNumber)
    let ready = try Self.readable(numbers, within: housekeepingMilliseconds)
    attachments.expire()
    if ready[0], let signal = nextSignal() {
      if signal == SIGHUP {
        logger.info("SIGHUP: the configuration is read at the start only; restart to change it")
      } else {
        logger.info("stopping on \(signal == SIGINT ? "SIGINT" : "SIGTERM")")
        return false
      }
    }
    for (index, listener) in all.enumerated() where ready[index + 1] {
      do {
        guard let connection = try listener.accept() else { continue }
        let client = connection.client
        let descriptor = connection.takeDescriptor()
        if index < listeners.count {
          nbd.serve(descriptor, client: client)
        } else {
          answerStatus(descriptor)
        }
      } catch {
        logger.error("no connection can be accepted: \(error.text); raise the limit on open files")
        pause(milliseconds: 100)  // The connection is still there: do not spin.
      }
    }
    return true
  }

  private func nextSignal() -> Int32? {
    let number = clinux_next_signal(signals.rawValue)
    return number == 0 ? nil : number
  }

  private static func readable(_ numbers: [CInt], within milliseconds: CInt) throws -> [Bool] {
    var ready = [UInt8](repeating: 0, count: numbers.count)
    do {
      _ = try retryingInterrupts {
        unsafe numbers.withUnsafeBufferPointer { numbers in
          unsafe ready.withUnsafeMutableBufferPointer { ready in
            // SAFETY: both arrays have `numbers.count` elements.
            unsafe clinux_poll_readable(
              numbers.baseAddress!, ready.baseAddress!, numbers.count, milliseconds)
          }
        }
      }
    } catch {
      throw Failure.couldNot(("poll failed: \(error.text)", "give fewer --listen addresses"))
    }
    return ready.map { $0 != 0 }
  }

  /// On a thread of its own: whoever asks may read slowly.
  private func answerStatus(_ descriptor: consuming FileDescriptor) {
    let (registry, table, devices, attachments) = (registry, table, devices, attachments)
    let (addresses, rnbd) = (addresses, rnbd)
    let number = descriptor.release()
    let thread = Thread {
      let status = registry.status(
        of: table, found: devices.found, attachments: attachments, listeners: addresses,
        transportSessions: rnbd?.status() ?? [])
      let socket = StreamSocket(owning: FileDescriptor(owning: number))
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      guard let json = try? encoder.encode(status) else { return }
      try? socket.send(Array(json) + [0x0a], until: .milliseconds(5000))
    }
    thread.start()
  }

  private mutating func drain() {
    listeners = []  // From here on nobody new can connect.
    nbd.stop()
    rnbd?.stop()
    let deadline = Deadline.milliseconds(drainMilliseconds)
    var isNow = false
    while registry.connectionCount > 0 || rnbd?.isOver == false {
      if !isNow, deadline.hasPassed || nextSignal() != nil {
        logger.warning("\(registry.connectionCount) sessions did not end and are cut off")
        isNow = true
        registry.stopAll(isNow: true)
      }
      if isNow, deadline.time.advanced(byMilliseconds: 2000) < .now { break }
      pause(milliseconds: 5)
    }
  }
}

/// Lets a descriptor be a member of a copyable type.
final class FileDescriptorBox: Sendable {
  private let descriptor: FileDescriptor
  init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  var rawValue: CInt { descriptor.rawValue }
}

extension SessionEvent {
  var level: Logger.Level {
    switch self {
    case .refused, .notOpened: .warning
    case .noSession, .opened, .closed: .info
    }
  }

  var line: String {
    switch self {
    case .refused(let client, let maximum):
      "\(client.printable): refused, there are \(maximum) connections; raise limits.connections"
    case .noSession(let client, let reason):
      "\(client.printable): no session: \(reason)"
    case .notOpened(let client, let export, let reason, let advice):
      "\(client.printable): export '\(export.printable)' was not opened: \(reason); \(advice)"
    case .opened(let number, let client, let export, let access):
      "session \(number): \(client.printable) opened '\(export.printable)' \(access.rawValue)"
    case .closed(let number, let client, let export, let reason, let counters):
      "session \(number): \(client.printable) left '\(export.printable)': \(reason); "
        + counters.text
    }
  }
}

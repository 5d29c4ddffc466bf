// SPDX-License-Identifier: Apache-2.0
// A server from its start to its end: opens the media, listens, accepts, reads its configuration again
// on SIGHUP, and on SIGTERM or SIGINT lets every session finish what has arrived.

import BlockBackends
import BlockServer
import CLinux
import Foundation
import LinuxSystem
import Logging
import NBDServer
import RNBDServer
import ServerOperation
import WireFormat

/// Used by one thread, that of `run`.
final class RunningServer {
  /// The configuration that is in force.
  var configuration: ServerConfiguration
  /// Reads it again.
  let load: () throws -> ServerConfiguration
  let logger: Logger
  let table: ExportTable
  let registry: SessionRegistry
  let attachments: Attachments
  let nbdDevices: DeviceDirectory
  let rdmaDevices: DeviceDirectory
  let report: ServerReport
  let manager: ServiceManager
  private let nbd: NBDServer
  /// Nil when nothing is listened on with RDMA.
  private let rnbd: RNBDServer?
  private let signals: FileDescriptorBox
  private var listeners: [Listener]
  private let control: Listener?
  private let metrics: Listener?
  private let metricsAnswerer: MetricsAnswerer
  private var nextHousekeeping = MonotonicTime(nanoseconds: 0)
  private var nextSignOfLife = MonotonicTime(nanoseconds: 0)
  private var progress = ProgressReporter()

  private static let housekeepingMilliseconds: UInt64 = 1000

  init(
    _ configuration: ServerConfiguration, log: ServerLog,
    load: @escaping () throws -> ServerConfiguration
  ) throws {
    let environment = ServiceEnvironment.takeOwn()
    manager = ServiceManager(environment)
    let logger = log.logger
    self.logger = logger
    self.configuration = configuration
    self.load = load

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

    table = ExportTable(
      try OpenedExports(configuration, logger).exports, defaultName: configuration.defaultExport)
    registry = SessionRegistry(limits: configuration.limits)
    attachments = Attachments(limits: configuration.attachmentLimits)
    var limits = NBDServerLimits()
    // The registry has the limit that is in force: it may change.
    limits.handshakeMilliseconds = ServerConfiguration.handshakeSecondsLimit * 1000
    let access = WriteAccess()
    nbdDevices = DeviceDirectory(table: table, search: configuration.nbdSearch)
    rdmaDevices = DeviceDirectory(table: table, search: configuration.rdma.search)
    nbd = NBDServer(
      table: table, registry: registry, attachments: attachments, access: access, limits: limits,
      directory: nbdDevices
    ) { event in
      log.add(event)
    }

    let sockets = try ServerSockets(configuration, environment, logger)
    listeners = sockets.listeners
    control = sockets.control
    metrics = sockets.metrics
    if sockets.rdma.isEmpty {
      rnbd = nil
    } else {
      do {
        rnbd = try RNBDServer(
          listen: sockets.rdma, limits: RNBDServerLimits(configuration.rdma),
          directory: rdmaDevices, access: access, attachments: attachments, registry: registry
        ) { event in
          log.add(event)
        }
      } catch { throw Failure.couldNot(error.report) }
    }
    let report = ServerReport(
      table: table, registry: registry, attachments: attachments, access: access,
      directories: [nbdDevices, rdmaDevices], rnbd: rnbd)
    self.report = report
    metricsAnswerer = MetricsAnswerer { report.metrics }
  }

  func run() throws {
    for export in table.exports { tell(of: export) }
    adopt(table.exports)
    if let metrics { logger.info("metrics on \(metrics.address.printable)") }
    for address in addresses { logger.info("listening on \(address.printable)") }
    try serveClients()
    report.setListening(addresses)
    manager.send(.ready, .status(summary))
    while try turn(within: CInt(Self.housekeepingMilliseconds), isRunning: true) {}
    try drain()
    try flush()
  }

  private var addresses: [ByteString] { listeners.map(\.address) + (rnbd?.addresses ?? []) }

  private func serveClients() throws {
    do {
      try nbd.listen(on: listeners) { [logger] error in
        logger.error("no connection can be accepted: \(error.text); raise the limit on open files")
      }
    } catch {
      throw Failure.couldNot(
        ("nobody can be waited for: \(error.text)", "check the limits on memory and threads"))
    }
  }

  /// One line for whoever looks at the service.
  var summary: String {
    "\(table.exports.count) exports, \(registry.connectionCount) connections"
  }

  func tell(of export: Export) {
    let path = export.path.printable
    logger.info(
      """
      export '\(export.name.printable)' \(export.access.rawValue), \
      \(export.geometry().byteCount) bytes from \(path)
      """,
      metadata: ["event": "export", "export": "\(export.name.printable)", "path": "\(path)"])
    if export.isAsync {
      logger.warning(
        "export '\(export.name.printable)' \(AsyncBackend.remark.printable)")
    }
  }

  /// Takes over what an earlier server has left for its clients.
  func adopt(_ exports: [Export]) {
    for export in exports {
      for path in attachments.adopt(export) {
        logger.warning("\(path.printable) is no layer of this export; remove it if nobody needs it")
      }
    }
  }

  /// What clients were told is written is durable when the server has ended well.
  private func flush() throws {
    var isDone = true
    for export in table.exports + report.removed {
      do { try export.flush() } catch {
        logger.error("export '\(export.name.printable)' cannot be flushed: \(error)")
        isDone = false
      }
    }
    for error in attachments.flush() {
      logger.error("a layer cannot be flushed: \(error)")
      isDone = false
    }
    for export in table.exports + report.removed { export.close() }
    guard isDone else {
      throw Failure.couldNot(("not everything was made durable", "look at the disk"))
    }
    logger.info("stopped")
  }
}

// One thread waits for all that may come.
extension RunningServer {
  /// Waits for signals and for those who ask for status or metrics, and takes what has come; false when
  /// the server is to end.
  private func turn(within milliseconds: CInt, isRunning: Bool) throws -> Bool {
    let own = [control, metrics].compactMap { $0 }
    let numbers = [signals.rawValue] + own.map(\.pollNumber)
    let ready = try Self.readable(numbers, within: milliseconds)
    keepHouse()
    var isToEnd = false
    while ready[0], let signal = nextSignal() {
      if signal != SIGHUP {
        if isRunning { logger.info("stopping on \(signal == SIGINT ? "SIGINT" : "SIGTERM")") }
        isToEnd = true
      } else if isRunning, !isToEnd {
        reload()
      }
    }
    for (index, listener) in own.enumerated() where ready[index + 1] { accept(listener) }
    return !isToEnd
  }

  /// Signals wait no longer than this many take.
  private static let acceptedMaximum = 64

  private func accept(_ listener: Listener) {
    do {
      for _ in 0..<Self.acceptedMaximum {
        guard let connection = try listener.accept() else { return }
        let descriptor = connection.takeDescriptor()
        if listener === control {
          answerStatus(descriptor)
        } else {
          metricsAnswerer.serve(descriptor)
        }
      }
    } catch {
      logger.error("nobody can be answered: \(error.text); raise the limit on open files")
      pause(milliseconds: 100)  // The connection is still there: do not spin.
    }
  }

  /// What is due once a second, whoever comes and goes.
  private func keepHouse() {
    let now = MonotonicTime.now
    if let period = manager.aliveMilliseconds, now >= nextSignOfLife {
      manager.send(.alive)
      nextSignOfLife = now.advanced(byMilliseconds: min(period, 10_000))
    }
    guard now >= nextHousekeeping else { return }
    nextHousekeeping = now.advanced(byMilliseconds: Self.housekeepingMilliseconds)
    attachments.expire(at: now)
    registry.sample(at: now)
    for (number, client) in registry.endIdle(at: now) {
      logger.info(
        "session \(number): \(client.printable) did nothing for limits.idle_seconds and is ended",
        metadata: ["event": "idle", "session": .stringConvertible(number)])
    }
    let work = table.exports.flatMap { export in
      export.work.map { (export: export.name.printable, work: $0) }
    }
    for line in progress.lines(for: work, nanoseconds: now.nanoseconds) {
      logger.info("\(line)", metadata: ["event": "work"])
      manager.send(.status(line))
    }
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
    let report = report
    let number = descriptor.release()
    let thread = Thread {
      let socket = StreamSocket(owning: FileDescriptor(owning: number))
      try? socket.send(report.json, until: .milliseconds(5000))
    }
    thread.start()
  }

  /// Lets every session end. Who asks for the status or for metrics is still answered.
  private func drain() throws {
    nbd.stopListening()
    listeners = []  // From here on nobody new can connect.
    report.setListening([])
    let milliseconds = configuration.drainSeconds * 1000
    manager.send(
      .stopping, .extendTimeout(microseconds: (milliseconds + 5000) * 1000),
      .status("stopping, \(registry.connectionCount) connections are left"))
    nbd.stop()
    rnbd?.stop()
    let deadline = Deadline.milliseconds(milliseconds)
    var isNow = false
    while registry.connectionCount > 0 || rnbd?.isOver == false {
      let goesOn = try turn(within: 5, isRunning: false)
      if !isNow, deadline.hasPassed || !goesOn {
        logger.warning("\(registry.connectionCount) sessions did not end and are cut off")
        isNow = true
        registry.stopAll(isNow: true)
      }
      if isNow, deadline.time.advanced(byMilliseconds: 2000) < .now { break }
    }
  }
}

/// Lets a descriptor be a member of a copyable type.
final class FileDescriptorBox: Sendable {
  private let descriptor: FileDescriptor
  init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  var rawValue: CInt { descriptor.rawValue }
}

// SPDX-License-Identifier: Apache-2.0
// What the halves report of their sessions, and NBD's half in words: a sentence for people, and the
// same in keys and values.

import BlockServer
import Dispatch
import Logging
import NBDServer
import Synchronization
import WireFormat

/// Events come from threads that serve clients. They are put into words and written elsewhere: a
/// handshake costs less than its two lines, and a log that nobody reads holds up nobody.
final class EventLog: Sendable {
  /// A sentence or two each; what comes while so many wait is counted instead.
  private static let waitingMaximum = 10_000

  private let logger: Logger
  private let queue = DispatchQueue(label: "rootlinkd.events")
  private let waitingCount = Atomic(0)
  private let lostCount = Atomic(0)

  init(_ logger: Logger) { self.logger = logger }

  func add<Event: Sendable>(
    _ event: Event, _ log: @escaping @Sendable (Logger, Event) -> Void
  ) {
    guard waitingCount.wrappingAdd(1, ordering: .relaxed).newValue <= Self.waitingMaximum else {
      waitingCount.wrappingSubtract(1, ordering: .relaxed)
      lostCount.wrappingAdd(1, ordering: .relaxed)
      return
    }
    queue.async { [self] in
      let lost = lostCount.exchange(0, ordering: .relaxed)
      if lost > 0 { logger.warning("\(lost) events are not in the log: it was not taken in time") }
      log(logger, event)
      waitingCount.wrappingSubtract(1, ordering: .relaxed)
    }
  }

  /// Returns when what was added before is written, or nobody takes it.
  func flush(milliseconds: Int) {
    let isDone = DispatchSemaphore(value: 0)
    queue.async { isDone.signal() }
    _ = isDone.wait(timeout: .now() + .milliseconds(milliseconds))
  }
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
    case .refused(let client, let refusal):
      "\(client.printable): refused, \(refusal.report.reason); \(refusal.report.advice)"
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

  var metadata: Logger.Metadata {
    switch self {
    case .refused(let client, let refusal):
      [
        "event": "refused", "client": "\(client.printable)", "reason": "\(refusal.report.reason)",
      ]
    case .noSession(let client, let reason):
      ["event": "no-session", "client": "\(client.printable)", "reason": "\(reason)"]
    case .notOpened(let client, let export, let reason, _):
      [
        "event": "not-opened", "client": "\(client.printable)", "export": "\(export.printable)",
        "reason": "\(reason)",
      ]
    case .opened(let number, let client, let export, let access):
      [
        "event": "opened", "session": .stringConvertible(number), "client": "\(client.printable)",
        "export": "\(export.printable)", "access": "\(access.rawValue)",
      ]
    case .closed(let number, let client, let export, let reason, let counters):
      [
        "event": "closed", "session": .stringConvertible(number), "client": "\(client.printable)",
        "export": "\(export.printable)", "reason": "\(reason)",
        "reads": .stringConvertible(counters.reads),
        "read_bytes": .stringConvertible(counters.readBytes),
        "writes": .stringConvertible(counters.writes),
        "written_bytes": .stringConvertible(counters.writtenBytes),
        "errors": .stringConvertible(counters.errors),
      ]
    }
  }
}

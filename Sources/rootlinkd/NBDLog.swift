// SPDX-License-Identifier: Apache-2.0
// NBD's half in words: a sentence for people, and the same in keys and values.

import BlockServer
import Logging
import NBDServer
import WireFormat

extension SessionEvent: LoggedEvent {
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

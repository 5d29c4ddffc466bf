// SPDX-License-Identifier: Apache-2.0
// What the RDMA half reports, as lines of the log; and its limits as the configuration has them.

import BlockServer
import Logging
import RNBDProtocol
import RNBDServer
import RTRSProtocol
import WireFormat

extension RNBDServerLimits {
  init(_ settings: RDMASettings) {
    self.init()
    if let depth = settings.queueDepth { queueDepth = UInt16(depth) }
    if let count = settings.dataByteCountMaximum { dataByteCountMaximum = UInt32(count) }
    if let count = settings.sessionCountMaximum { sessionCountMaximum = count }
    if let count = settings.memoryByteCountMaximum { memoryByteCountMaximum = count }
    if let seconds = settings.silenceSeconds { silenceSeconds = seconds }
  }
}

extension RNBDEvent: LoggedEvent {
  var level: Logger.Level {
    switch self {
    case .refused, .notOpened, .takenOver: .warning
    case .pathLost(_, _, let loss): loss == .disconnected ? .info : .warning
    case .pathUp, .opened, .closed, .sessionEnded: .info
    }
  }

  var line: String {
    switch self {
    case .refused(let client, let reason, let advice):
      "\(client.printable): refused over RDMA: \(reason); \(advice)"
    case .pathUp(let session, let client, let server, let device):
      "rdma session '\(session.printable)': path from \(client.printable) to \(server.printable) "
        + "on \(device.printable) is up"
    case .pathLost(let session, let client, let loss):
      "rdma session '\(session.printable)': path from \(client.printable) ended: "
        + "\(loss.report.reason); \(loss.report.advice)"
    case .takenOver(let session, let client):
      "rdma session '\(session.printable)': its client does not answer, and \(client.printable) "
        + "takes it over"
    case .opened(let session, let device, let export, let mode):
      "rdma session '\(session.printable)' opened '\(device.printable)' \(mode.name): export "
        + "'\(export.printable)'"
    case .notOpened(let session, let device, let reason, let advice):
      "rdma session '\(session.printable)': '\(device.printable)' was not opened: \(reason); \(advice)"
    case .closed(let session, let device, let counters):
      "rdma session '\(session.printable)' closed '\(device.printable)'; \(counters.text)"
    case .sessionEnded(let session): "rdma session '\(session.printable)' ended"
    }
  }

  var metadata: Logger.Metadata {
    switch self {
    case .refused(let client, let reason, _):
      ["event": "refused", "client": "\(client.printable)", "reason": "\(reason)"]
    case .pathUp(let session, let client, _, let device):
      [
        "event": "path-up", "session": "\(session.printable)", "client": "\(client.printable)",
        "device": "\(device.printable)",
      ]
    case .pathLost(let session, let client, let loss):
      [
        "event": "path-lost", "session": "\(session.printable)", "client": "\(client.printable)",
        "reason": "\(loss.report.reason)",
      ]
    case .takenOver(let session, let client):
      [
        "event": "taken-over", "session": "\(session.printable)", "client": "\(client.printable)",
      ]
    case .opened(let session, let device, let export, let mode):
      [
        "event": "opened", "session": "\(session.printable)", "device": "\(device.printable)",
        "export": "\(export.printable)", "access": "\(mode.name)",
      ]
    case .notOpened(let session, let device, let reason, _):
      [
        "event": "not-opened", "session": "\(session.printable)",
        "device": "\(device.printable)", "reason": "\(reason)",
      ]
    case .closed(let session, let device, _):
      [
        "event": "closed", "session": "\(session.printable)", "device": "\(device.printable)",
      ]
    case .sessionEnded(let session):
      ["event": "session-ended", "session": "\(session.printable)"]
    }
  }
}

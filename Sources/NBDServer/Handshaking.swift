// SPDX-License-Identifier: Apache-2.0
// Carries a `ServerHandshake` out on a socket: reads, writes, looks exports up, keeps the time.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import WireFormat

struct Handshaking {
  enum Outcome {
    case entered(Export, any BlockBackend, received: [UInt8])
    case notOpened(export: ByteString, reason: String, advice: String)
    case ended(reason: String)
  }

  private let table: ExportTable
  private let deadline: Deadline
  private let isStopping: SharedFlag
  private var machine: ServerHandshake
  private var entry: (export: Export, backend: any BlockBackend)?
  private var failure: Outcome?

  init(
    table: ExportTable, deadline: Deadline, optionCountMaximum: Int, isStopping: SharedFlag
  ) {
    self.table = table
    self.deadline = deadline
    self.isStopping = isStopping
    machine = ServerHandshake(optionCountMaximum: optionCountMaximum)
  }

  mutating func run(_ socket: borrowing StreamSocket) -> Outcome {
    do {
      while true {
        machine.isStopping = isStopping.isSet
        switch machine.next() {
        case .receive:
          var bytes: [UInt8] = []
          try socket.receive(into: &bytes, maximum: 4096, until: deadline)
          guard !bytes.isEmpty else {
            return failure ?? .ended(reason: "the client left before it entered an export")
          }
          machine.receive(bytes.span)
        case .send(let bytes):
          try socket.send(bytes, until: deadline)
        case .findExport(let name, let isEntry):
          find(name, isEntry: isEntry)
        case .listExports:
          machine.answer(
            listing: table.exports.map {
              ListedExport(name: $0.name, description: $0.description)
            })
        case .enter(let received):
          guard let entry else { return .ended(reason: "no export was opened") }
          return .entered(entry.export, entry.backend, received: received)
        case .close(let ending):
          return failure ?? .ended(reason: ending.reason)
        }
      }
    } catch .timedOut {
      return .ended(reason: "the client did not finish the negotiation in time")
    } catch  where error == .connectionReset || error.errno == 32 {
      // EPIPE: after a LIST or an INFO, many clients just leave.
      return failure ?? .ended(reason: "the client left before it entered an export")
    } catch {
      return .ended(reason: "the connection failed in the negotiation: \(error.text)")
    }
  }

  private mutating func find(_ name: ByteString, isEntry: Bool) {
    guard let export = table.export(named: name) else {
      let text = "there is no export '\(name.printable)'; list them with nbdinfo --list"
      failure = .ended(reason: "the client asked for the unknown export '\(name.printable)'")
      return machine.answer(refusing: .errUnknown, text: ByteString(text))
    }
    if isEntry {
      do {
        entry = (export, try export.open())
      } catch {
        let report = error.report
        failure = .notOpened(export: export.name, reason: report.reason, advice: report.advice)
        return machine.answer(
          refusing: .errPlatform,
          text: "the export cannot be opened now; ask whoever runs the server")
      }
    }
    machine.answer(found: ExportFacts(export))
  }
}

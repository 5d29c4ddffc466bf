// SPDX-License-Identifier: Apache-2.0
// SIGHUP: the configuration is read again. Either all of it is in force afterwards, for clients that
// come from then on, or nothing has changed and the log says why. Sessions are never touched.

import BlockServer
import Foundation
import LinuxSystem
import Logging
import ServerOperation
import WireFormat

extension RunningServer {
  func reload() {
    manager.send(
      .reloading(microseconds: MonotonicTime.now.nanoseconds / 1000),
      .status("reading the configuration"))
    do {
      let new = try load()
      let opened = try OpenedExports(new, present: table.exports, logger)
      // From here on nothing can fail.
      apply(new, opened)
      report.reloaded(refusedBecause: nil)
    } catch let failure as Failure {
      refuse(failure.reason, failure.advice)
    } catch {
      refuse("\(error)", "look at the configuration")
    }
    manager.send(.ready, .status(summary))
  }

  /// What clients wrote before they left is not lost with the server's knowledge of it. Takes its
  /// time on a thread of its own.
  private func flush(_ removed: [Export]) {
    guard !removed.isEmpty else { return }
    let logger = logger
    let thread = Thread {
      for export in removed {
        do { try export.flush() } catch {
          logger.error("export '\(export.name.printable)' cannot be flushed: \(error)")
        }
      }
    }
    thread.start()
  }

  private func refuse(_ reason: String, _ advice: String) {
    logger.error(
      "SIGHUP: nothing has changed: \(reason); \(advice)", metadata: ["event": "reload-refused"])
    report.reloaded(refusedBecause: reason)
  }

  private func apply(_ new: ServerConfiguration, _ opened: OpenedExports) {
    let old = configuration
    let names = Set(table.exports.map(\.name))
    table.replace(with: opened.exports, defaultName: new.defaultExport)
    report.addRemoved(opened.removed)
    flush(opened.removed)
    registry.limits = new.limits
    attachments.limits = new.attachmentLimits
    nbdDevices.replace(new.nbdSearch)
    rdmaDevices.replace(new.rdma.search)
    configuration = new

    let newNames = Set(opened.exports.map(\.name))
    for name in opened.removed.map(\.name) where !newNames.contains(name) {
      logger.info(
        "export '\(name.printable)' is not offered any more; its sessions go on",
        metadata: ["event": "removed", "export": "\(name.printable)"])
    }
    for export in opened.opened {
      if names.contains(export.name) {
        logger.info("export '\(export.name.printable)' has changed; older sessions go on as it was")
      }
      tell(of: export)
    }
    adopt(opened.opened)
    for key in new.keysForStart(differingFrom: old) {
      logger.warning("SIGHUP: \(key) has changed, which takes a restart")
    }
    logger.info(
      """
      SIGHUP: the configuration was read: \(opened.exports.count) exports, \
      \(opened.opened.count) opened, \(opened.removed.count) given up
      """, metadata: ["event": "reloaded"])
  }
}

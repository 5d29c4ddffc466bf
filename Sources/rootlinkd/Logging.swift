// SPDX-License-Identifier: Apache-2.0
// The server's log, written by a thread of its own.

import BlockServer
import CLinux
import Dispatch
import Foundation
import Logging
import ServerOperation
import Synchronization
import WireFormat

/// Lines come from the thread that accepts clients and from those that serve them. They are put into
/// words and written elsewhere: a handshake costs less than its two lines, and a log that nobody
/// reads holds up nobody.
final class ServerLog: Sendable {
  /// A sentence or two each; what comes while so many wait is counted instead.
  private static let waitingMaximum = 10_000
  private static let label = "rootlinkd"

  private let queue = DispatchQueue(label: "rootlinkd.log")
  private let isWriter = DispatchSpecificKey<Bool>()
  private let waitingCount = Atomic(0)
  private let lostCount = Atomic(0)

  /// Once, before anything is logged.
  init(_ settings: LogSettings) {
    queue.setSpecific(key: isWriter, value: true)
    let isToJournal = standardErrorIsJournal()
    LoggingSystem.bootstrap { [self] _ in
      LogOutput(
        settings, isToJournal: isToJournal,
        time: { Date.now.ISO8601Format(.init(includingFractionalSeconds: true)) },
        write: { [self] in write($0) })
    }
  }

  /// What it is given, it writes in the order in which it came.
  var logger: Logger { Logger(label: Self.label) }

  /// Like `logger`, and the words are found by the log's own thread.
  func add<Event: Sendable>(
    _ event: Event, _ log: @escaping @Sendable (Logger, Event) -> Void
  ) {
    add { log(Logger(label: Self.label), event) }
  }

  private func write(_ line: String) {
    if DispatchQueue.getSpecific(key: isWriter) == true {
      writeLine(line)
    } else {
      add { writeLine(line) }
    }
  }

  private func add(_ write: @escaping @Sendable () -> Void) {
    guard waitingCount.wrappingAdd(1, ordering: .relaxed).newValue <= Self.waitingMaximum else {
      waitingCount.wrappingSubtract(1, ordering: .relaxed)
      lostCount.wrappingAdd(1, ordering: .relaxed)
      return
    }
    queue.async { [self] in
      let lost = lostCount.exchange(0, ordering: .relaxed)
      if lost > 0 { logger.warning("\(lost) lines are not in the log: it was not taken in time") }
      write()
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

/// Source: systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream that leads there.
private func standardErrorIsJournal() -> Bool {
  guard
    let (device, inode) = environmentVariable("JOURNAL_STREAM")?.cut(at: UInt8(ascii: ":")),
    let wantedDevice = device.decimal(), let wantedInode = inode.decimal()
  else { return false }
  var (actualDevice, actualInode) = (UInt64(0), UInt64(0))
  // SAFETY: two integers of ours.
  guard unsafe clinux_file_identity(2, &actualDevice, &actualInode) == 0 else { return false }
  return actualDevice == wantedDevice && actualInode == wantedInode
}

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

/// What the log tells of: a sentence for people, and the same in keys and values.
protocol LoggedEvent: Sendable {
  var level: Logger.Level { get }
  var line: String { get }
  var metadata: Logger.Metadata { get }
}

/// Lines come from the program's own thread and from those that serve clients. They are put into words
/// and written elsewhere, all that have come within a moment at once: a handshake costs less than its
/// two lines, and a log that nobody reads holds up nobody.
final class ServerLog: Sendable {
  private typealias Line = @Sendable (Logger) -> Void
  private struct Waiting {
    var lines: [Line] = []
    var lostCount = 0
  }

  /// A sentence or two each; what comes while so many wait is counted instead.
  private static let waitingMaximum = 10_000
  /// From the first line that waits until all are written.
  private static let gatheringMilliseconds = 5
  private static let label = "rootlinkd"

  private let queue = DispatchQueue(label: "rootlinkd.log")
  private let isWriter = DispatchSpecificKey<Bool>()
  /// Sentences alone are written, without keys and values.
  private let isText: Bool
  private let waiting = Mutex(Waiting())
  /// What the writer is about to write.
  private let text = Mutex("")

  /// Once, before anything is logged.
  init(_ settings: LogSettings) {
    isText = settings.format == .text
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
  func add(_ event: some LoggedEvent) {
    add { [isText] in
      $0.log(level: event.level, "\(event.line)", metadata: isText ? nil : event.metadata)
    }
  }

  private func write(_ line: String) {
    if DispatchQueue.getSpecific(key: isWriter) == true {
      text.withLock { $0 += line + "\n" }
    } else {
      add { [self] _ in text.withLock { $0 += line + "\n" } }
    }
  }

  private func add(_ line: @escaping Line) {
    let isFirst = waiting.withLock { waiting in
      guard waiting.lines.count < Self.waitingMaximum else {
        waiting.lostCount += 1
        return false
      }
      waiting.lines.append(line)
      return waiting.lines.count == 1
    }
    guard isFirst else { return }
    queue.asyncAfter(deadline: .now() + .milliseconds(Self.gatheringMilliseconds)) { [self] in
      writeWaiting()
    }
  }

  /// By the writer.
  private func writeWaiting() {
    let taken = waiting.withLock { waiting in
      defer { waiting = Waiting() }
      return waiting
    }
    let logger = logger
    for line in taken.lines { line(logger) }
    if taken.lostCount > 0 {
      logger.warning("\(taken.lostCount) lines are not in the log: it was not taken in time")
    }
    let text = text.withLock { text in
      defer { text = "" }
      return text
    }
    if !text.isEmpty { writeText(text) }
  }

  /// Returns when what was added before is written, or nobody takes it.
  func flush(milliseconds: Int) {
    let isDone = DispatchSemaphore(value: 0)
    queue.async { [self] in
      writeWaiting()
      isDone.signal()
    }
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

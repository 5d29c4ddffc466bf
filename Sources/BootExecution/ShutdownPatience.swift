// SPDX-License-Identifier: Apache-2.0
// How long a system that goes down waits for a server that is away. Requests wait for ever while
// the system lives; when it ends they would keep it from ending.
//
//   server away and system going down ──30 s──► refuse every request ──90 s──► end the machine
//                                      (10 s when nobody else is left who would do that)
//
// Reads no clock and no file.

import LinuxSystem
import WireFormat

struct ShutdownPatience: Equatable, Sendable {
  enum Order: Equatable {
    case nothing
    /// Said once, when both hold for the first time.
    case warn
    /// Said once: from here on nothing is waited for, not even when the server comes back. Some
    /// requests have failed, and the file system must not go on as if they had not.
    case refuse
    /// Said at each look from then on.
    case endMachine
  }

  /// Source: rootlink(8), "SHUTDOWN". The second is systemd's DefaultTimeoutStopSec=: what other
  /// services need for their own disks they have had by then.
  static let absenceSecondsDefault: UInt64 = 30
  static let lastSecondsDefault: UInt64 = 90
  static let abandonedSeconds: UInt64 = 10

  /// 0 is for ever.
  let absenceSeconds: UInt64
  let lastSeconds: UInt64
  private var since: MonotonicTime?
  private var refusedSince: MonotonicTime?

  init(
    absenceSeconds: UInt64 = absenceSecondsDefault, lastSeconds: UInt64 = lastSecondsDefault
  ) {
    self.absenceSeconds = absenceSeconds
    self.lastSeconds = lastSeconds
  }

  mutating func order(
    isServed: Bool, isGoingDown: Bool, isAbandoned: Bool = false, at now: MonotonicTime
  ) -> Order {
    if let refusedSince {
      let limit = isAbandoned ? min(lastSeconds, Self.abandonedSeconds) : lastSeconds
      return now.milliseconds(since: refusedSince) >= limit * 1000 ? .endMachine : .nothing
    }
    guard !isServed, isGoingDown, absenceSeconds > 0 else {
      since = nil
      return .nothing
    }
    guard let since else {
      since = now
      return .warn
    }
    guard now.milliseconds(since: since) >= absenceSeconds * 1000 else { return .nothing }
    refusedSince = now
    return .refuse
  }
}

/// How the machine was asked to end.
enum MachineEnd: Equatable, Sendable {
  case powerOff
  case restart
  case halt

  /// From the words of the first process, which say it when that is systemd-shutdown, dracut's
  /// shutdown script or sysvinit; else from the sign that systemd gives for restarts.
  /// Sources: systemd `shutdown.c`, dracut `shutdown.sh`, sysvinit `init.c` (setproctitle).
  init(firstProcess words: Span<UInt8>, isRestart: Bool) {
    var start = 0
    while start < words.count {
      var end = start
      while end < words.count, words[end] != 0 { end += 1 }
      let word = words.extracting(start..<end)
      if isEqual(word, "poweroff") || hasSuffix(word, "[0]") {
        self = .powerOff
        return
      }
      if isEqual(word, "reboot") || isEqual(word, "kexec") || hasSuffix(word, "[6]") {
        self = .restart
        return
      }
      if isEqual(word, "halt") {
        self = .halt
        return
      }
      start = end + 1
    }
    self = isRestart ? .restart : .powerOff
  }

  var text: StaticString {
    switch self {
    case .powerOff: "powering off"
    case .restart: "restarting"
    case .halt: "halting"
    }
  }
}

/// Without an allocation.
func isEqual(_ bytes: Span<UInt8>, _ text: StaticString) -> Bool {
  bytes.count == text.utf8CodeUnitCount && hasSuffix(bytes, text)
}

private func hasSuffix(_ bytes: Span<UInt8>, _ text: StaticString) -> Bool {
  let skipped = bytes.count - text.utf8CodeUnitCount
  guard skipped >= 0 else { return false }
  return text.withUTF8Buffer { wanted in
    for index in 0..<wanted.count {
      // SAFETY: the text's own bytes.
      guard bytes[skipped + index] == (unsafe wanted[index]) else { return false }
    }
    return true
  }
}

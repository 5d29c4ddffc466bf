// SPDX-License-Identifier: Apache-2.0
import BlockServer
import CLinux
import Foundation
import Logging
import ServerOperation
import WireFormat

/// Once, before anything is logged.
func startLogging(_ settings: LogSettings) -> Logger {
  let isToJournal = standardErrorIsJournal()
  LoggingSystem.bootstrap { _ in
    LogOutput(
      settings, isToJournal: isToJournal,
      time: { Date.now.ISO8601Format(.init(includingFractionalSeconds: true)) }, write: writeLine)
  }
  return Logger(label: "rootlinkd")
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

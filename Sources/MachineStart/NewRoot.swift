// SPDX-License-Identifier: Apache-2.0
// The last steps on the old root: what the new one starts with, what it takes over, what is freed.

import CLinux
import LinuxSystem
import WireFormat

enum NewRoot {
  /// Source: Linux `init/main.c`, `kernel_init()`.
  static let usualPrograms: [ByteString] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"]
  /// Where the kernel's file systems are mounted, on both sides.
  static let carriedOver: [ByteString] = ["/dev", "/proc", "/sys", "/run"]

  /// The program to be started: `asked`, or the first of the usual ones.
  static func program(_ asked: ByteString?) throws(StartError) -> ByteString {
    for path in asked.map({ [$0] }) ?? usualPrograms where mayExecute(path) { return path }
    throw .noInit(asked ?? usualPrograms[0])
  }

  /// Looked at from within, where links of the root lead where they will lead.
  private static func mayExecute(_ path: ByteString) -> Bool {
    let child = clinux_fork()
    if child == 0 {
      var isExecutable = false
      if (try? unsafe withCString(RootMount.place, { unsafe clinux_chroot($0) })) != nil,
        (try? unsafe withCString(path, { unsafe clinux_may_execute($0) })) != nil
      {
        isExecutable = true
      }
      clinux_exit_now(isExecutable ? 0 : 1)
    }
    return child > 0 && clinux_wait(child) == 0
  }

  /// Moves what both sides need, and removes the files of the image from memory. Nothing can be
  /// said in the kernel's log any more behind this.
  static func takeOver(_ log: Log) throws(StartError) {
    for place in carriedOver {
      do {
        try mountFileSystem(
          place, on: RootMount.place + place, type: "", flags: UInt(clinux_MS_MOVE))
      } catch {
        log.write(
          .warning, "\(place.printable) cannot be carried over to the root: \(error.text)",
          next: place == "/run"
            ? "the root needs a directory /run, or its network may be taken down" : nil)
      }
    }
    do {
      _ = try unsafe withCString("/") { unsafe clinux_remove_contents($0) }
    } catch { throw .system(step: "freeing the initramfs", error) }
  }
}

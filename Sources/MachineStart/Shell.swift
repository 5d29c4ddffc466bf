// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem
import WireFormat

/// A shell on the console, for images that hold one.
enum Shell {
  static let path: ByteString = "/bin/sh"
  static var isThere: Bool { fileExists(path) }

  /// Until it ends; false when there is none.
  @discardableResult
  static func run() -> Bool {
    guard isThere else { return false }
    let child = clinux_fork()
    if child == 0 {
      clinux_default_signal(13)  // SIGPIPE, which this program ignores.
      _ = try? unsafe withCString("/dev/console") { unsafe clinux_take_terminal($0) }
      execute([path])
      clinux_exit_now(127)
    }
    guard child > 0 else { return false }
    return clinux_wait(child) != 127
  }
}

/// Replaces this program; comes back only when that cannot be done.
@discardableResult
func execute(_ words: [ByteString]) -> SystemError {
  var block: [UInt8] = []
  for word in words {
    if word.bytes.contains(0) { return .invalidArgument }
    block += word.bytes + [0]
  }
  let result = unsafe block.withUnsafeBytes { raw in
    // SAFETY: as many terminated words as the count says.
    unsafe clinux_execute(raw.baseAddress?.assumingMemoryBound(to: CChar.self), words.count)
  }
  return SystemError(errno: 0 &- result)
}

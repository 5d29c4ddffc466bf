// SPDX-License-Identifier: Apache-2.0
import CLinux
public import WireFormat

func copyText(_ pointer: UnsafePointer<CChar>) -> ByteString {
  var bytes: [UInt8] = []
  var index = 0
  while unsafe pointer[index] != 0 {  // SAFETY: the text of libc is NUL-terminated.
    bytes.append(UInt8(bitPattern: unsafe pointer[index]))
    index += 1
  }
  return ByteString(bytes)
}

/// The words of this program's command line, its own name first.
public func commandLineArguments() -> [ByteString] {
  var words: [ByteString] = []
  for index in 0..<clinux_argument_count() {
    guard let word = unsafe clinux_argument(index) else { break }
    words.append(unsafe copyText(word))  // SAFETY: argv lives as long as the process.
  }
  return words
}

/// Writes results to standard output. False when nobody takes them.
public func writeStandardOutput(_ text: ByteString) -> Bool {
  let output = FileDescriptor(owning: 1)
  var isWritten = true
  do { try output.write(text.bytes) } catch { isWritten = false }
  _ = output.release()  // It stays open: it is the process's, not ours.
  return isWritten
}

/// Runs a program (the first word is its path) and waits: its exit status, 127 when it cannot be
/// executed, 256 + the signal that ended it. At most 63 words.
public func runProgram(_ words: [ByteString]) throws(SystemError) -> CInt {
  var block: [UInt8] = []
  for word in words {
    guard !word.bytes.contains(0) else { throw .invalidArgument }
    block += word.bytes + [0]
  }
  return try checked(
    unsafe block.withUnsafeBytes { raw in
      // SAFETY: as many terminated words as the count says, alive until the child has ended.
      unsafe clinux_run(raw.baseAddress?.assumingMemoryBound(to: CChar.self), words.count)
    })
}

/// A peer that hangs up, or a reader of our output that does, is an error and not the end.
public func ignoreBrokenPipes() { clinux_ignore_signal(13) }  // SIGPIPE on every Linux.

/// Ends the process at once: nothing is flushed, nothing that was registered for the end is called.
public func exitProcess(_ status: CInt) -> Never {
  clinux_exit_now(status)
}

/// Has a module of the kernel loaded, where there is who can do it. Whether it is there then is seen by
/// what it brings.
public func loadModule(_ name: ByteString) {
  guard fileExists("/sbin/modprobe") else { return }
  do { _ = try runProgram(["/sbin/modprobe", "-q", name]) } catch {}
}

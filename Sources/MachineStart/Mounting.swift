// SPDX-License-Identifier: Apache-2.0
// mount(2), and the options that are flags of it: the others are the file system's own.

import CLinux
import LinuxSystem
import WireFormat

/// `type` and `data` may be empty.
func mountFileSystem(
  _ source: ByteString, on target: ByteString, type: ByteString, flags: UInt = 0,
  data: ByteString = ByteString()
) throws(SystemError) {
  for text in [source, target, type, data] where text.bytes.contains(0) {
    throw .invalidArgument
  }
  let words = [source.bytes + [0], target.bytes + [0], type.bytes + [0], data.bytes + [0]]
  let result = unsafe withPointer(words[0]) { source in
    unsafe withPointer(words[1]) { target in
      unsafe withPointer(words[2]) { kind in
        unsafe withPointer(words[3]) { options in
          // SAFETY: four NUL-terminated copies that outlive the call.
          unsafe clinux_mount(
            source, target, type.isEmpty ? nil : kind, flags, data.isEmpty ? nil : options)
        }
      }
    }
  }
  _ = try checked(result)
}

private func withPointer(
  _ bytes: [UInt8], _ body: (UnsafePointer<CChar>) -> CInt
) -> CInt {
  unsafe bytes.withUnsafeBytes { raw in
    // SAFETY: never empty; CChar and UInt8 have one layout.
    unsafe body(raw.baseAddress!.assumingMemoryBound(to: CChar.self))
  }
}

/// Makes the directory first. What is mounted there already stays: the boot may begin anew.
func mountEarly(
  _ type: ByteString, on target: ByteString, flags: UInt = 0, data: ByteString = ByteString()
) throws(SystemError) {
  try makeDirectories(target)
  if try fileStatus(target).device != fileStatus("/").device { return }
  try mountFileSystem(type, on: target, type: type, flags: flags, data: data)
}

/// Takes away everything that is mounted on `target`, also what is busy.
func unmountAll(_ target: ByteString) {
  // A mount over a mount over a mount; no more than that is ours.
  for _ in 0..<8 {
    guard (try? unsafe withCString(target, { unsafe clinux_detach_mount($0) })) != nil else {
      return
    }
  }
}

struct MountOptions: Equatable {
  var flags: UInt = 0
  var data = ByteString()

  /// `text` as fstab(5) has it. Of two words that say the opposite the later counts.
  init(_ text: ByteString) {
    for word in text.fields(separatedBy: 0x2c) where !word.isEmpty {
      if !takeFlag(word) { data += (data.isEmpty ? "" : ",") + word }
    }
  }

  /// Source: mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".
  private mutating func takeFlag(_ word: ByteString) -> Bool {
    let flags: [(String, UInt)] = [
      ("ro", UInt(clinux_MS_RDONLY)), ("nosuid", UInt(clinux_MS_NOSUID)),
      ("nodev", UInt(clinux_MS_NODEV)), ("noexec", UInt(clinux_MS_NOEXEC)),
      ("sync", UInt(clinux_MS_SYNCHRONOUS)), ("dirsync", UInt(clinux_MS_DIRSYNC)),
      ("noatime", UInt(clinux_MS_NOATIME)), ("nodiratime", UInt(clinux_MS_NODIRATIME)),
      ("relatime", UInt(clinux_MS_RELATIME)), ("strictatime", UInt(clinux_MS_STRICTATIME)),
      ("lazytime", UInt(clinux_MS_LAZYTIME)), ("silent", UInt(clinux_MS_SILENT)),
    ]
    let opposites: [(String, UInt)] = [
      ("rw", UInt(clinux_MS_RDONLY)), ("suid", UInt(clinux_MS_NOSUID)),
      ("dev", UInt(clinux_MS_NODEV)), ("exec", UInt(clinux_MS_NOEXEC)),
      ("async", UInt(clinux_MS_SYNCHRONOUS)), ("atime", UInt(clinux_MS_NOATIME)),
      ("diratime", UInt(clinux_MS_NODIRATIME)), ("norelatime", UInt(clinux_MS_RELATIME)),
      ("nostrictatime", UInt(clinux_MS_STRICTATIME)), ("nolazytime", UInt(clinux_MS_LAZYTIME)),
      ("loud", UInt(clinux_MS_SILENT)),
    ]
    if word == "defaults" || word == "auto" || word == "noauto" { return true }
    for (name, flag) in flags where word == ByteString(name) {
      self.flags |= flag
      return true
    }
    for (name, flag) in opposites where word == ByteString(name) {
      self.flags &= ~flag
      return true
    }
    return false
  }
}

// SPDX-License-Identifier: Apache-2.0
// Lines for people. In the initramfs they go to /dev/kmsg, which reaches the console and stays in
// the log; elsewhere to standard error. Nothing is buffered: a line is written before the next
// step, because the next step may be the last.

import CLinux
import WireFormat

/// How loud a line is. Raw values are the kernel's log levels. Source: linux/kern_levels.h.
public enum LogLevel: UInt8, Sendable {
  case error = 3  // KERN_ERR
  case warning = 4  // KERN_WARNING
  case notice = 5  // KERN_NOTICE
  case info = 6  // KERN_INFO
}

/// Where the lines of one program go; see the head of this file.
public struct Log: Sendable {
  /// `kernel`: /dev/kmsg, and standard error besides where the console would not show the line.
  public enum Destination: Equatable, Sendable { case standardError, kernel }
  /// The longest line, program name and all: /dev/kmsg takes 1024 bytes less its own prefix.
  public static let lineByteCountMaximum = 900

  public let destination: Destination
  public init(_ destination: Destination) { self.destination = destination }

  /// The kernel's log while the root is still the initramfs, else standard error.
  public static var ofThisMachine: Log { Log(rootIsInitramfs ? .kernel : .standardError) }

  /// Whether nothing is mounted over the file system that the kernel began with.
  public static var rootIsInitramfs: Bool {
    let mounts = try? readFile("/proc/self/mounts", limit: 1 << 20)
    for line in mounts?.fields(separatedBy: 0x0a) ?? [] {
      let words = line.fields(separatedBy: 0x20)
      if words.count > 2, words[1] == "/", words[2] != "rootfs" { return false }
    }
    return mounts != nil
  }

  /// One fact, then what to do next. Control characters become `?`, long lines are cut.
  public func write(_ level: LogLevel, _ fact: String, next: String? = nil) {
    var text = fact
    if let next { text += "; " + next }
    var line = Array("rootlink: ".utf8)
    for byte in text.utf8.prefix(Self.lineByteCountMaximum - line.count) {
      line.append(byte >= 0x20 && byte != 0x7f ? byte : 0x3f)
    }
    line.append(0x0a)
    switch destination {
    case .standardError:
      emit(line, to: 2)
    case .kernel:
      let prefixed = Array("<\(level.rawValue)>".utf8) + line
      if let kernel = try? FileDescriptor.open("/dev/kmsg", .writeOnly) {
        emit(prefixed, to: kernel.rawValue)
        // `quiet` and Debian's default hide notices from the console; a person waits before it.
        if level.rawValue > Self.consoleLevel { emit(line, to: 2) }
      } else {
        emit(line, to: 2)
      }
    }
  }

  /// Messages of a lower number than this reach the console by themselves: the first field of
  /// /proc/sys/kernel/printk, less one.
  private static var consoleLevel: UInt8 {
    guard let text = try? readFile("/proc/sys/kernel/printk", limit: 256),
      let first = text.bytes.first, first >= 0x31, first <= 0x39
    else { return 0 }
    return first - 0x31
  }

  private func emit(_ bytes: [UInt8], to descriptor: CInt) {
    _ = unsafe bytes.withUnsafeBytes { raw in
      // SAFETY: the array's own storage. A line that cannot be written is lost: nobody to tell.
      unsafe clinux_write(descriptor, raw.baseAddress, raw.count)
    }
  }
}

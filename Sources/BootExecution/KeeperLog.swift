// SPDX-License-Identifier: Apache-2.0
// Lines of a process that must not allocate: put together in memory taken beforehand, written to
// a descriptor opened beforehand.

import CLinux
import LinuxSystem
import WireFormat

/// Its buffer is its own and never handed out.
@safe struct KeeperLog: ~Copyable {
  private let buffer: UnsafeMutableBufferPointer<UInt8>
  private var count = 0
  private let descriptor: CInt
  private let hasLevel: Bool

  /// `descriptor`: /dev/kmsg, or standard error.
  init(descriptor: CInt, isKernelLog: Bool) {
    // For as long as the process lives.
    unsafe buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 1024)
    self.descriptor = descriptor
    hasLevel = isKernelLog
  }

  mutating func begin(_ level: LogLevel, _ device: borrowing [UInt8]) {
    count = 0
    if hasLevel {
      add("<")
      add(UInt64(level.rawValue))
      add(">")
    }
    add("rootlink: ")
    add(device)
    add(": ")
  }

  mutating func add(_ text: StaticString) {
    text.withUTF8Buffer { bytes in
      // SAFETY: the text's own bytes.
      for index in 0..<bytes.count { add(byte: unsafe bytes[index]) }
    }
  }

  mutating func add(_ bytes: borrowing [UInt8]) {
    for index in 0..<bytes.count { add(byte: bytes[index]) }
  }

  mutating func add(_ number: UInt64) {
    var divisor: UInt64 = 1
    while number / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      add(byte: 0x30 + UInt8(number / divisor % 10))
      divisor /= 10
    }
  }

  /// Seconds with a tenth.
  mutating func add(milliseconds: UInt64) {
    add(milliseconds / 1000)
    add(".")
    add(milliseconds / 100 % 10)
    add(" s")
  }

  mutating func end() {
    add(byte: 0x0a)
    // SAFETY: the first `count` bytes were written. A line that cannot be written is lost.
    _ = unsafe clinux_write(descriptor, buffer.baseAddress!, count)
    count = 0
  }

  /// What was put together, for somebody who asked.
  mutating func send(to number: CInt) {
    // SAFETY: the first `count` bytes were written.
    _ = unsafe clinux_send(number, buffer.baseAddress!, count, 0)
    count = 0
  }

  mutating func beginAnswer() { count = 0 }

  private mutating func add(byte: UInt8) {
    guard count < 1023 || byte == 0x0a, count < 1024 else { return }
    unsafe buffer[count] = byte
    count += 1
  }
}

extension Keeper {
  /// Before it allocates nothing.
  mutating func warn(_ what: String, _ error: SystemError) {
    log.begin(.warning, deviceName)
    log.add(Array("its keeper: \(what) (\(error.text))".utf8))
    log.end()
  }
}

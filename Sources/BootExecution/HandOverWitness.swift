// SPDX-License-Identifier: Apache-2.0
// Whether the kernel has taken a socket. RECONFIGURE drops one and answers with success when no
// connection is marked as dead, and that of a connection just called dead (LINK_DEAD) may be yet to
// be marked: the event is sent first. What the driver says when it takes one is in the kernel's log.
//
//   seek to the end ──► RECONFIGURE ──► read what has been logged since
//
// Source: Linux `drivers/block/nbd.c`, nbd_genl_reconfigure, nbd_reconnect_socket and
// nbd_mark_nsock_dead.

import CLinux
import LinuxSystem

/// Allocates nothing but at its beginning.
struct HandOverWitness {
  enum Verdict: Equatable {
    case taken
    /// The socket can be offered again.
    case dropped
    /// The log cannot be read, or has run ahead.
    case unknown
  }

  /// /dev/kmsg for reading, without waiting; or -1.
  private let descriptor: CInt
  private let sentence: [UInt8]

  init(descriptor: CInt, device: [UInt8]) {
    self.descriptor = descriptor
    sentence = device + Array(": reconnected socket".utf8)
  }

  /// Called before a socket is handed over.
  func begin() {
    if descriptor >= 0 { _ = clinux_lseek(descriptor, 0, CInt(clinux_SEEK_END)) }
  }

  /// Called when the kernel has answered. `memory` has room for a record of the log, 8 KiB.
  func verdict(_ memory: UnsafeMutableBufferPointer<UInt8>) -> Verdict {
    guard descriptor >= 0 else { return .unknown }
    var verdict = Verdict.dropped
    while true {
      // SAFETY: the memory's own bounds.
      let count = unsafe clinux_read(descriptor, memory.baseAddress!, memory.count)
      if count == -Int(SystemError.interrupted.errno) { continue }
      if count == -Int(SystemError.tryAgain.errno) { return verdict }
      guard count > 0, count <= memory.count else { return .unknown }
      // SAFETY: `count` bytes were read.
      let record = unsafe memory.span.extracting(first: count)
      if contains(sentence, record) { verdict = .taken }
    }
  }
}

/// Whether `record` has `sentence` in it, with no digit or letter before it: nbd1 is not nbd11's end.
func contains(_ sentence: borrowing [UInt8], _ record: Span<UInt8>) -> Bool {
  guard !sentence.isEmpty, record.count >= sentence.count else { return false }
  for start in 0...(record.count - sentence.count) {
    var length = 0
    while length < sentence.count, record[start + length] == sentence[length] { length += 1 }
    if length == sentence.count, start == 0 || record[start - 1] == 0x20 { return true }
  }
  return false
}

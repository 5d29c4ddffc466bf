// SPDX-License-Identifier: Apache-2.0
// What the child tells process 1 through a pipe: records of one letter, NUL-terminated words and
// an empty word. R: seconds before a restart. S: the program to start and its arguments.

import CLinux
import LinuxSystem
import WireFormat

struct StartMessages {
  /// The pipe's capacity; nobody reads while the child writes. Source: pipe(7).
  static let byteCountMaximum = 65_536 - 4096

  let descriptor: CInt

  func restart(afterSeconds seconds: UInt32?) {
    guard let seconds else { return }
    send(0x52, [ByteString("\(seconds)")])
  }

  func start(_ words: [ByteString]) { send(0x53, words) }

  private func send(_ kind: UInt8, _ words: [ByteString]) {
    var bytes = [kind]
    for word in words where !word.isEmpty { bytes += word.bytes + [0] }
    bytes.append(0)
    guard bytes.count <= Self.byteCountMaximum else { return }
    _ = unsafe bytes.withUnsafeBytes { raw in
      // SAFETY: the array's own storage. Shorter than the pipe: written whole.
      unsafe clinux_write(descriptor, raw.baseAddress, raw.count)
    }
  }

  /// Everything that was told; the child has ended.
  static func read(from descriptor: CInt) -> (words: [ByteString], restartSeconds: UInt32?) {
    var bytes = [UInt8](repeating: 0, count: 65_536)
    _ = clinux_set_blocking(descriptor, 0)
    let count = unsafe bytes.withUnsafeMutableBytes { raw in
      // SAFETY: the array's own storage.
      unsafe clinux_read(descriptor, raw.baseAddress, raw.count)
    }
    guard count > 0, count <= bytes.count else { return ([], nil) }
    return decode(Array(bytes[..<count]))
  }

  static func decode(_ bytes: [UInt8]) -> (words: [ByteString], restartSeconds: UInt32?) {
    var told: (words: [ByteString], restartSeconds: UInt32?) = ([], nil)
    var rest = bytes[...]
    while let kind = rest.popFirst() {
      var words: [ByteString] = []
      while let end = rest.firstIndex(of: 0) {
        let word = ByteString(rest[..<end])
        rest = rest[(end + 1)...]
        if word.isEmpty { break }
        words.append(word)
      }
      if kind == 0x52 {
        told.restartSeconds = words.first?.decimal(maximum: UInt64(UInt32.max)).map {
          UInt32(truncatingIfNeeded: $0)
        }
      } else if kind == 0x53 {
        told.words = words
      }
    }
    return told
  }
}

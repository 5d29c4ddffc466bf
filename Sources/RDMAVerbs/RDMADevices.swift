// SPDX-License-Identifier: Apache-2.0
// The devices of this machine. A program asks for them once before anything else here: in a static
// one librdmacm finds no device otherwise.

import CVerbs
public import WireFormat

public enum RDMADevices {
  /// How many there are now. Makes the providers known: call it first. Allocates.
  public static func find() throws(VerbsError) -> Int {
    let count = cverbs_begin()
    // ENOSYS and ENOENT: the kernel has no RDMA, or nothing that shows it to programs.
    if count == -38 || count == -2 { throw .noDevice }
    try verbs(.listDevices, count)
    return Int(count)
  }

  /// Opens each of them, until the process ends: a path that first comes up later opens no file.
  public static func openAll() throws(VerbsError) {
    try verbs(.listDevices, cverbs_open_devices())
  }

  /// Their names, as `rxe0`, at most 64. Allocates.
  public static func names() -> [ByteString] {
    var names: [ByteString] = []
    for index in 0..<UInt32(64) {
      var buffer = [UInt8](repeating: 0, count: 64)
      let result = unsafe buffer.withUnsafeMutableBytes { bytes in
        // SAFETY: the array's own bytes; the call ends what it writes with a NUL.
        unsafe cverbs_device_name(
          index, bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
      }
      guard result == 0 else { break }
      names.append(ByteString(buffer[..<(buffer.firstIndex(of: 0) ?? 0)]))
    }
    return names
  }
}

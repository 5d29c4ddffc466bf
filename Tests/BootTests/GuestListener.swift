// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A Unix socket for one `stream` back end of QEMU, in the place of what an earlier one has left.
func listenToGuest(on path: String) throws -> Int32 {
  unsafe unlink(path)
  let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
  var address = sockaddr_un()
  address.sun_family = sa_family_t(AF_UNIX)
  // SAFETY: paths of a temporary directory are shorter than the 108 bytes of the structure, which
  // is zero behind them.
  unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
  let status = unsafe withUnsafePointer(to: &address) { pointer in
    unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      unsafe bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
  }
  guard listener >= 0, status == 0, Glibc.listen(listener, 1) == 0 else {
    throw TinyGuest.Failure(description: "no socket \(path): errno \(errno)")
  }
  return listener
}

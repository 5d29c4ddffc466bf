// SPDX-License-Identifier: Apache-2.0
import CLinux
import LinuxSystem
import WireFormat

/// The address number `index` of a host to listen on; nil behind the last one. EADDRNOTAVAIL: this
/// machine has no such host.
public func resolveListener(
  host: ByteString, port: UInt16, index: Int
) throws(SystemError) -> SocketAddress? {
  var raw = clinux_address()
  // SAFETY: a terminated copy, and a structure of ours that the call fills.
  let result = try unsafe withCString(host) {
    unsafe clinux_resolve_listener($0, port, UInt32(index), &raw)
  }
  return result == 0 ? SocketAddress(raw: raw) : nil
}

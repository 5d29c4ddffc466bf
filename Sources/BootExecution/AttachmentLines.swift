// SPDX-License-Identifier: Apache-2.0
// The lines that say what is about to be attached and what it took.

import BootPlanning
import LinuxSystem
import NBDDriver
import NBDProtocol
import WireFormat

#if ROOTLINK_RDMA
  import RDMAVerbs
#endif

extension AttachmentTarget {
  /// `plan: nbd://192.0.2.10:10809/root as /dev/nbd0, from nbdroot=`
  var line: String {
    var text = "plan: "
    for (index, path) in paths.enumerated() {
      if index > 0 { text += ", " }
      text += blockProtocol == .nbd ? "nbd" : "rnbd"
      switch path.server {
      case .unixSocket(let socket): text += "+unix:" + socket.printable
      case .ipv6(let address, let scope):
        text += "://[" + address.text + (scope.isEmpty ? "" : "%" + scope.printable) + "]"
      default: text += "://" + (path.server.text?.printable ?? "?")
      }
      if path.server.needsNetwork { text += ":\(path.port)" }
    }
    for (index, export) in exports.enumerated() {
      text += (index == 0 ? " export '" : " or '") + export.printable + "'"
    }
    text += " as " + (device?.path ?? "any free device") + ", from " + origin.printable
    if case .lease(let interface, let field, let path) = serverOrigin {
      text +=
        ", server from the lease of \(interface.printable) "
        + "(\(field.printable) in \(path.printable))"
    }
    return text
  }

  /// Whether `text`, as an attachment record has it, can be a server of this target. Names are
  /// taken to be: what they resolve to may change.
  func mayBeServed(by text: ByteString) -> Bool {
    for path in paths + replicas {
      switch path.server {
      case .hostName, .unixSocket: return true
      case .ipv4(let address):
        if text == ByteString("\(address.text):\(path.port)") { return true }
      case .ipv6(let address, _):
        if text.hasPrefix(ByteString("[\(address.text)")) { return true }
      #if ROOTLINK_RDMA
        case .gid(let identifier):
          if text == SocketAddress(gid: identifier.bytes, port: path.port).text { return true }
        case .pending: break
      #else
        case .gid, .pending: break
      #endif
      }
    }
    return false
  }
}

extension AttachedTarget {
  /// What is attached, and the milliseconds of each step.
  func line(leaseMilliseconds: UInt64) -> String {
    let isReadOnly = export.flags.contains(.readOnly)
    var text = "\(device.node.printable) is attached: \(sizeText(export.byteCount)), "
    text += isReadOnly ? "read-only, " : "read-write, "
    text += connectionCount == 1 ? "1 connection" : "\(connectionCount) connections"
    text += " to \(server.text.printable)"
    if !partitions.isEmpty { text += ", \(partitions.count) partitions" }
    text += "; lease \(leaseMilliseconds) ms, connect \(connectMilliseconds) ms, negotiate "
    text += "\(negotiateMilliseconds) ms, attach \(attachMilliseconds) ms, first read "
    return text + "\(firstReadMilliseconds) ms"
  }
}

/// In the largest unit that loses nothing.
private func sizeText(_ byteCount: UInt64) -> String {
  if byteCount > 0, byteCount % (1 << 30) == 0 { return "\(byteCount >> 30) GiB" }
  if byteCount > 0, byteCount % (1 << 20) == 0 { return "\(byteCount >> 20) MiB" }
  return "\(byteCount) bytes"
}

// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// Where a server, or the local end of a path, is to be found.
public enum ServerAddress: Hashable, Sendable {
  case ipv4(IPv4Address)
  /// `scope` is the interface of a link-local address, empty when none was given.
  case ipv6(IPv6Address, scope: ByteString)
  /// To be resolved with the plan's `resolver`.
  case hostName(ByteString)
  /// A path; a leading NUL means the abstract name that follows it.
  case unixSocket(ByteString)
  /// An InfiniBand port.
  case gid(IPv6Address)
  /// A lease is to name it, and there is none yet: ask again when the network is up.
  case pending
}

extension ServerAddress {
  /// As people and the JSON of `rootlink plan` have it; nil while it is pending.
  public var text: ByteString? {
    switch self {
    case .ipv4(let address): ByteString(address.text)
    case .ipv6(let address, let scope):
      scope.isEmpty ? ByteString(address.text) : ByteString(address.text) + "%" + scope
    case .hostName(let name): name
    case .unixSocket(let path):
      path.bytes.first == 0 ? "@" + ByteString(path.bytes.dropFirst()) : path
    case .gid(let identifier): "gid:" + ByteString(identifier.text)
    case .pending: nil
    }
  }

  /// False for a Unix socket alone; true while it is pending.
  public var needsNetwork: Bool {
    if case .unixSocket = self { false } else { true }
  }
}

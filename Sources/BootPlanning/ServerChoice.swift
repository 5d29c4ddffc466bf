// SPDX-License-Identifier: Apache-2.0
// Which server is meant when a parameter leaves it to the network. The first usable one of:
// the server inside the root-path, next-server, the second field of a static `ip=`, option 66 or
// sname, the DHCP server itself. The root-path goes first because next-server belongs to the first
// boot stage and is often another machine; the DHCP server goes last because it may be a relay.

import WireFormat

struct ServerChoice {
  var server: ServerAddress
  var origin: ServerOrigin
  var warning: PlanWarning?
}

extension ServerChoice {
  /// Nil when nothing usable was found; `lookedAt` then says what there was.
  static func choose(
    lease: Lease?, network: NetworkParameters, lookedAt: inout [ServerSource]
  ) -> ServerChoice? {
    lookedAt.removeAll()
    if let choice = fromRootPath(lease, &lookedAt) { return choice }
    if let choice = fromNextServer(lease, &lookedAt) { return choice }
    if let address = network.staticServer {
      return ServerChoice(server: .ipv4(address), origin: .ipParameter)
    }
    lookedAt.append(ServerSource(place: .ipParameter, content: nil))
    if let choice = fromServerName(lease, &lookedAt) { return choice }
    return fromDHCPServer(lease, &lookedAt)
  }

  private static func fromRootPath(
    _ lease: Lease?, _ lookedAt: inout [ServerSource]
  ) -> ServerChoice? {
    lookedAt.append(ServerSource(place: .rootPath, content: lease?.rootPath?.value))
    guard let lease, let path = lease.rootPath,
      let request = RootPath(path.value).request, let server = request.server,
      server.needsNetwork
    else { return nil }
    return ServerChoice(
      server: server,
      origin: .lease(
        interface: lease.interface, field: "root-path in " + path.key, path: path.path))
  }

  private static func fromNextServer(
    _ lease: Lease?, _ lookedAt: inout [ServerSource]
  ) -> ServerChoice? {
    let content = (lease?.nextServer?.value.text).map { ByteString($0) }
    lookedAt.append(ServerSource(place: .nextServer, content: content))
    guard let lease, let next = lease.nextServer, isOther(next.value, than: lease) else {
      return nil
    }
    return ServerChoice(
      server: .ipv4(next.value),
      origin: .lease(interface: lease.interface, field: next.key, path: next.path))
  }

  /// A host name counts only if somebody can be asked for its address.
  private static func fromServerName(
    _ lease: Lease?, _ lookedAt: inout [ServerSource]
  ) -> ServerChoice? {
    lookedAt.append(ServerSource(place: .serverName, content: lease?.serverName?.value))
    guard let lease, let name = lease.serverName else { return nil }
    let text = name.value.bytes[...]
    let server: ServerAddress
    if let address = IPv4Address(text) {
      guard isOther(address, than: lease) else { return nil }
      server = .ipv4(address)
    } else if let address = ServerGrammar.ipv6(text) {
      server = address
    } else if let host = ServerGrammar.strictHostName(text), !lease.nameServers.isEmpty {
      server = .hostName(host)
    } else {
      return nil
    }
    return ServerChoice(
      server: server,
      origin: .lease(interface: lease.interface, field: name.key, path: name.path))
  }

  private static func fromDHCPServer(
    _ lease: Lease?, _ lookedAt: inout [ServerSource]
  ) -> ServerChoice? {
    let content = (lease?.dhcpServer?.value.text).map { ByteString($0) }
    lookedAt.append(ServerSource(place: .dhcpServer, content: content))
    guard let lease, let dhcp = lease.dhcpServer, isOther(dhcp.value, than: lease) else {
      return nil
    }
    return ServerChoice(
      server: .ipv4(dhcp.value),
      origin: .lease(interface: lease.interface, field: dhcp.key, path: dhcp.path),
      warning: .serverIsDHCPServer(ByteString(dhcp.value.text), interface: lease.interface))
  }

  private static func isOther(_ address: IPv4Address, than lease: Lease) -> Bool {
    address.namesAHost && address != lease.address
  }
}

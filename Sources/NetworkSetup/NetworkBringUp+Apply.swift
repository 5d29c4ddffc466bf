// SPDX-License-Identifier: Apache-2.0
// Puts a configuration in place: MTU, addresses, routes, the machine's name; and leaves it in /run
// for those who look there.

import BootPlanning
import CLinux
import DHCPProtocol
import LinuxSystem
import NetlinkProtocol
import WireFormat

extension InterfaceConfiguration {
  /// What a router says of the link.
  mutating func take(_ advertisement: RouterAdvertisement?) {
    guard let advertisement else { return }
    if nameServers.isEmpty {
      for server in advertisement.nameServers { nameServers.append(.ipv6(server, scope: "")) }
    }
    if searchDomains.isEmpty { searchDomains = advertisement.searchDomains }
  }
}

extension NetworkBringUp {
  /// An address of IPv6 is checked before it counts.
  mutating func apply(
    _ given: InterfaceConfiguration, to index: Int
  ) throws(NetworkError) {
    var configuration = given
    if !parameters.nameServers.isEmpty { configuration.nameServers = parameters.nameServers }
    let link = candidates[index].link
    if let count = configuration.mtuByteCount {
      do {
        try routes.make(
          .change(index: link.index, isUp: nil, mtuByteCount: count, hardwareAddress: nil))
      } catch {
        log.write(.warning, "\(link.name.printable) takes no MTU of \(count): \(error.reason)")
      }
    }
    if let own = configuration.address {
      var address = AddressDescription(
        interfaceIndex: link.index, octets: own.bytes, prefixLength: configuration.prefixLength)
      address.broadcast = configuration.broadcast?.bytes
      do { try routes.add(address) } catch { throw .netlink(step: "address", error) }
    }
    if let own = configuration.address6 {
      let address = AddressDescription(
        interfaceIndex: link.index, octets: own.bytes,
        prefixLength: configuration.prefixLength6)
      do { try routes.add(address) } catch { throw .netlink(step: "address", error) }
    }
    for route in configuration.routes {
      add(
        RouteRequest(
          interfaceIndex: link.index, destination: route.destination.bytes,
          prefixLength: route.prefixLength, gateway: route.gateway?.bytes), link)
    }
    if let gateway = configuration.gateway6 {
      add(
        RouteRequest(
          interfaceIndex: link.index, destination: [UInt8](repeating: 0, count: 16),
          prefixLength: 0, gateway: gateway.bytes), link)
    }
    if let name = parameters.hostName ?? configuration.hostName, !name.isEmpty, name.count <= 64 {
      unsafe name.bytes.withUnsafeBytes { raw in
        // SAFETY: the array's own storage, as bytes.
        _ = unsafe clinux_set_host_name(
          raw.baseAddress!.assumingMemoryBound(to: CChar.self), raw.count)
      }
    }
    candidates[index].configuration = configuration
    if configuration.address6 == nil {
      settle(index, configuration)
    } else {
      candidates[index].stage = .checking
    }
  }

  /// A gateway that no route leads to is taken for a neighbour, which is what servers mean that
  /// lease an address without a network around it.
  private mutating func add(_ route: RouteRequest, _ link: LinkDescription) {
    do {
      try routes.add(route)
    } catch {
      var route = route
      route.isGatewayOnLink = true
      do { try routes.add(route) } catch {
        log.write(.warning, "\(link.name.printable): a route is refused: \(error.reason)")
      }
    }
  }

  /// Looks whether addresses of IPv6 have come, and whether they may be used.
  mutating func check() throws(NetworkError) {
    var isAsked = false
    for candidate in candidates {
      if candidate.stage == .checking || (candidate.stage == .asking && candidate.routers != nil) {
        isAsked = true
      }
    }
    guard isAsked else { return }
    let addresses: [AddressDescription]
    do { addresses = try routes.addresses() } catch { throw .netlink(step: "addresses", error) }
    for index in candidates.indices { check(index, addresses) }
  }

  private mutating func check(_ index: Int, _ addresses: [AddressDescription]) {
    let candidate = candidates[index]
    let isFromRouter = candidate.stage == .asking && candidate.client6 == nil
    guard candidate.stage == .checking || (isFromRouter && candidate.advertisement != nil) else {
      return
    }
    for address in addresses
    where address.interfaceIndex == candidate.link.index && address.octets.count == 16 {
      if candidate.stage == .checking, var configuration = candidate.configuration {
        if let own = configuration.address6 {
          guard own.bytes == address.octets else { continue }
        } else if address.isGlobal {
          continue  // A link-local one is waited for.
        }
        if address.isDuplicate {
          log.write(
            .error,
            "\(candidate.link.name.printable): another machine has \(configuration.addressText)",
            next: "give this one another address")
          candidates[index].stage = .abandoned
          return
        }
        guard !address.isTentative else { continue }
        if configuration.address6 == nil {
          configuration.address6 = IPv6Address(address.octets)
          configuration.prefixLength6 = address.prefixLength
        }
        return settle(index, configuration)
      }
      guard isFromRouter, address.isGlobal, !address.isTentative, !address.isDuplicate else {
        continue
      }
      var configuration = InterfaceConfiguration(candidate.link.name, isLeased: true)
      configuration.address6 = IPv6Address(address.octets)
      configuration.prefixLength6 = address.prefixLength
      configuration.take(candidate.advertisement)
      configuration.override(with: wishes[candidate.wish].request)
      return settle(index, configuration)
    }
  }

  /// What cannot be written is said: the root would not know of its network.
  func leaveLease(_ configuration: InterfaceConfiguration, _ link: LinkDescription) {
    let uptime = clinux_boottime_nanoseconds() / 1_000_000_000
    var files = [
      (
        ByteString("/run/systemd/netif/leases/"), ByteString("\(link.index)"),
        configuration.networkdText
      )
    ]
    // klibc's form knows no IPv6.
    if configuration.address != nil {
      files.append(
        ("/run/", "net-" + link.name + ".conf", configuration.klibcText(uptimeSeconds: uptime)))
    }
    for (directory, name, text) in files {
      do {
        try makeDirectories(ByteString(directory.bytes.dropLast()))
        try replaceFile(directory + name, with: text)
      } catch {
        log.write(.warning, "cannot write \((directory + name).printable): \(error.text)")
      }
    }
  }
}

extension IPv6Address {
  /// Sixteen octets in network order.
  init(_ octets: [UInt8]) {
    let span = octets.span
    self.init(high: span.bigEndian(UInt64.self, at: 0), low: span.bigEndian(UInt64.self, at: 8))
  }
}

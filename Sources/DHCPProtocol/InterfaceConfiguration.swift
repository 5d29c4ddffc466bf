// SPDX-License-Identifier: Apache-2.0
// How an interface is configured, wherever that came from: a lease, the command line, a router.

import BootPlanning
import WireFormat

public struct InterfaceConfiguration: Equatable, Sendable {
  public var interface: ByteString
  /// From DHCP; false for what the command line says.
  public var isLeased: Bool

  public var address: IPv4Address?
  public var prefixLength: UInt8 = 0
  public var broadcast: IPv4Address?
  /// In the order in which they are to be made.
  public var routes: [DHCPRoute] = []
  public var address6: IPv6Address?
  public var prefixLength6: UInt8 = 0
  public var gateway6: IPv6Address?
  /// Of both families.
  public var nameServers: [ServerAddress] = []
  public var timeServers: [IPv4Address] = []
  public var domainName: ByteString?
  public var searchDomains: [ByteString] = []
  public var hostName: ByteString?
  public var mtuByteCount: UInt32?
  public var rootPath: ByteString?
  /// `siaddr`, or the second field of `ip=`.
  public var nextServer: IPv4Address?
  public var bootFile: ByteString?
  public var serverIdentifier: IPv4Address?
  public var leaseSeconds: UInt32?
  public var renewalSeconds: UInt32?
  public var rebindingSeconds: UInt32?
  public var clientIdentifier: [UInt8] = []

  public init(_ interface: ByteString, isLeased: Bool) {
    self.interface = interface
    self.isLeased = isLeased
  }

  public init(_ interface: ByteString, _ lease: DHCPLease, clientIdentifier: [UInt8] = []) {
    self.init(interface, isLeased: true)
    address = lease.address
    prefixLength = lease.prefixLength
    broadcast = lease.broadcast
    // A gateway may have to be reached by a route that stands behind its own.
    for route in lease.routes where route.gateway == nil { routes.append(route) }
    for route in lease.routes where route.gateway != nil { routes.append(route) }
    for server in lease.nameServers { nameServers.append(.ipv4(server)) }
    domainName = lease.domainName
    searchDomains = lease.searchDomains
    hostName = lease.hostName
    mtuByteCount = lease.mtuByteCount.map { UInt32($0) }
    rootPath = lease.rootPath
    nextServer = lease.nextServer
    bootFile = lease.bootFile
    serverIdentifier = lease.serverIdentifier
    leaseSeconds = lease.seconds
    renewalSeconds = lease.renewalSeconds
    rebindingSeconds = lease.rebindingSeconds
    self.clientIdentifier = clientIdentifier
  }

  public init(_ interface: ByteString, _ lease: DHCPv6Lease) {
    self.init(interface, isLeased: true)
    address6 = lease.address
    // What else is on the link, a router says.
    prefixLength6 = 128
    for server in lease.nameServers { nameServers.append(.ipv6(server, scope: "")) }
    searchDomains = lease.searchDomains
    rootPath = lease.bootFileURL
    leaseSeconds = lease.validSeconds
  }

  /// What an `ip=` with an address says; what goes with `.dhcp` is added by `override`.
  public init(_ interface: ByteString, fixed request: InterfaceRequest) {
    self.init(interface, isLeased: false)
    if case .fixed(let fixed) = request.method {
      switch fixed.address {
      case .ipv4(let own):
        address = own
        prefixLength = fixed.prefixLength
      case .ipv6(let own, _):
        address6 = own
        prefixLength6 = fixed.prefixLength
      default: break
      }
    }
    switch request.gateway {
    case .ipv4(let gateway):
      routes = [
        DHCPRoute(destination: IPv4Address(rawValue: 0), prefixLength: 0, gateway: gateway)
      ]
    case .ipv6(let gateway, _): gateway6 = gateway
    default: break
    }
    override(with: request)
  }

  /// What the command line says goes before what a lease says.
  public mutating func override(with request: InterfaceRequest) {
    if let server = request.server { nextServer = server }
    if let name = request.hostName { hostName = name }
    if !request.nameServers.isEmpty { nameServers = request.nameServers }
    if !request.timeServers.isEmpty { timeServers = request.timeServers }
    if let count = request.mtuByteCount { mtuByteCount = count }
  }

  /// The first gateway of a default route.
  public var gateway: IPv4Address? {
    for route in routes where route.prefixLength == 0 && route.gateway != nil {
      return route.gateway
    }
    return nil
  }

  /// `10.0.2.15/24`, or both with a comma; empty without any.
  public var addressText: String {
    var text = address.map { "\($0.text)/\(prefixLength)" } ?? ""
    if let address6 {
      if !text.isEmpty { text += ", " }
      text += address6.text
      if prefixLength6 > 0 { text += "/\(prefixLength6)" }
    }
    return text
  }
}

// SPDX-License-Identifier: Apache-2.0
// How an interface is configured, wherever that came from: a lease, the command line, a router.

import BootPlanning
import WireFormat

/// What one interface is to be given, or has. Nil and empty: nobody said so, and it is left alone.
public struct InterfaceConfiguration: Equatable, Sendable {
  /// The name that the kernel has for it: `eth0`.
  public var interface: ByteString
  /// From DHCP; false for what the command line says.
  public var isLeased: Bool

  /// Nil when the interface has IPv6 alone.
  public var address: IPv4Address?
  /// Of `address`, 1 to 32; 0 without one.
  public var prefixLength: UInt8 = 0
  /// As the lease has it. Nil: none is set, and the file for klibc has what the prefix says.
  public var broadcast: IPv4Address?
  /// In the order in which they are to be made.
  public var routes: [DHCPRoute] = []
  /// Nil also while the link-local one is awaited that the kernel makes.
  public var address6: IPv6Address?
  /// Of `address6`, up to 128, and 128 for DHCPv6, which knows no network; 0 without one.
  public var prefixLength6: UInt8 = 0
  /// From `ip=` alone: routers tell the kernel by themselves.
  public var gateway6: IPv6Address?
  /// Of both families.
  public var nameServers: [ServerAddress] = []
  /// From `ip=` alone: no lease is asked for them.
  public var timeServers: [IPv4Address] = []
  /// Option 15: one name, or several with spaces between.
  public var domainName: ByteString?
  /// Without a dot at the end.
  public var searchDomains: [ByteString] = []
  /// Of the machine: from `ip=`, else option 12. More than 64 bytes are not set.
  public var hostName: ByteString?
  /// One that the driver refuses is logged, and the old one stays.
  public var mtuByteCount: UInt32?
  /// Option 17, or the boot file URL of DHCPv6.
  public var rootPath: ByteString?
  /// `siaddr`, or the second field of `ip=`.
  public var nextServer: IPv4Address?
  /// Option 67, else `file`.
  public var bootFile: ByteString?
  /// Option 54; nil with DHCPv6.
  public var serverIdentifier: IPv4Address?
  /// From the acknowledgement on; `UInt32.max` never ends. Nil without a lease.
  public var leaseSeconds: UInt32?
  /// For the file of networkd: nobody here renews. Nil with DHCPv6 and without a lease.
  public var renewalSeconds: UInt32?
  /// The same for any server, after the first was asked in vain.
  public var rebindingSeconds: UInt32?
  /// Option 61 as it was sent, its type in front; empty with DHCPv6 and without a lease.
  public var clientIdentifier: [UInt8] = []

  public init(_ interface: ByteString, isLeased: Bool) {
    self.interface = interface
    self.isLeased = isLeased
  }

  /// All of the lease, routes on the link itself first. `clientIdentifier` is what was sent for it.
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

  /// The address with a prefix of 128 bits, and what serves names; the boot file URL becomes the
  /// root path.
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

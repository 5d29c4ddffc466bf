// SPDX-License-Identifier: Apache-2.0
// What a DHCP client, or the kernel, learnt from the network: one producer's file, or several of
// one interface laid over each other, best first.

import WireFormat

/// A value and where it was read, for the plan's account of itself.
public struct LeaseValue<Value: Equatable & Sendable>: Equatable, Sendable {
  public let value: Value
  /// The key in that file, such as `ROOTSERVER`.
  public let key: ByteString
  /// Of the file.
  public let path: ByteString

  public init(_ value: Value, key: ByteString, path: ByteString) {
    self.value = value
    self.key = key
    self.path = path
  }
}

/// What one file says of one interface, or several of them. A field that is missing or malformed in
/// all of them is nil or empty.
public struct Lease: Equatable, Sendable {
  /// Who wrote the file.
  public enum Producer: Equatable, Sendable {
    case klibc, kernel, udhcpc, dhclient, dracut, networkManager, networkd, dhcpcd
  }

  /// Of the best file, when there were several; so are `path` and `modificationTime`.
  public var producer: Producer
  /// Empty when the file does not say; the kernel's never does.
  public var interface: ByteString
  /// Without the `--root` prefix.
  public var path: ByteString
  /// Seconds since 1970.
  public var modificationTime: Int64
  /// The address is not from DHCP; `nextServer` is then the second field of `ip=`.
  public var isStatic = false

  public var address: IPv4Address?
  /// Of `address`, up to 32.
  public var prefixLength: UInt8?
  /// The first, when there are several.
  public var gateway: IPv4Address?
  /// The header's `siaddr`.
  public var nextServer: LeaseValue<IPv4Address>?
  /// Option 17.
  public var rootPath: LeaseValue<ByteString>?
  /// Option 66, else the header's `sname`.
  public var serverName: LeaseValue<ByteString>?
  /// Option 54.
  public var dhcpServer: LeaseValue<IPv4Address>?
  /// Of both families, in the file's order; `nameServerCountMaximum` at most.
  public var nameServers: [ServerAddress] = []
  /// Without a dot at the end, none twice; `searchDomainCountMaximum` at most.
  public var searchDomains: [ByteString] = []
  public var hostName: ByteString?
  /// 68 to 65,535.
  public var mtuByteCount: UInt32?
  /// As the file has it, from whenever the lease began; `UInt32.max` never ends.
  public var leaseSeconds: UInt32?
  /// When the lease ends, in seconds since 1970.
  public var expiry: Int64?

  /// The first so many of a file count; a resolver asks three, and searches in six.
  public static let nameServerCountMaximum = 8
  public static let searchDomainCountMaximum = 16

  public init(
    producer: Producer, interface: ByteString, path: ByteString, modificationTime: Int64
  ) {
    self.producer = producer
    self.interface = interface
    self.path = path
    self.modificationTime = modificationTime
  }

  /// Takes from `other` what is missing here.
  public mutating func fillGaps(from other: Lease) {
    if interface.isEmpty { interface = other.interface }
    address = address ?? other.address
    prefixLength = prefixLength ?? other.prefixLength
    gateway = gateway ?? other.gateway
    nextServer = nextServer ?? other.nextServer
    rootPath = rootPath ?? other.rootPath
    serverName = serverName ?? other.serverName
    dhcpServer = dhcpServer ?? other.dhcpServer
    if nameServers.isEmpty { nameServers = other.nameServers }
    if searchDomains.isEmpty { searchDomains = other.searchDomains }
    hostName = hostName ?? other.hostName
    mtuByteCount = mtuByteCount ?? other.mtuByteCount
    leaseSeconds = leaseSeconds ?? other.leaseSeconds
    expiry = expiry ?? other.expiry
  }
}

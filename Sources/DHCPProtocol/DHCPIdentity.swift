// SPDX-License-Identifier: Apache-2.0
// Who asks, and what every message of one client says of it.

import BootPlanning
import WireFormat

public struct DHCPIdentity: Equatable, Sendable {
  /// As in ARP; 1 is Ethernet, 32 InfiniBand, whose addresses do not fit and are left out.
  public var hardwareType: UInt8
  public var hardwareAddress: [UInt8]
  /// Option 61. A server gives one lease to one identifier: whoever runs the interface later must
  /// send the same, or gets another address.
  public var clientIdentifier: [UInt8]
  /// Option 60; empty: not sent.
  public var vendorClass: ByteString = "rootlink"
  /// Option 12.
  public var hostName: ByteString?
  /// Answers are to be sent to all: for a link that cannot take a datagram to an address that it
  /// has not got yet. A packet socket can. InfiniBand needs it (RFC 4390, section 2.1).
  public var wantsBroadcast = false

  /// An Ethernet interface, identified as most boot programs do it: by its address.
  /// Source: RFC 2132, section 9.14.
  public init(ethernetAddress: [UInt8]) {
    hardwareType = 1
    hardwareAddress = ethernetAddress
    clientIdentifier = [1] + ethernetAddress
  }

  /// Identified by `duid`, which belongs to the machine, and `interface`, which tells its
  /// interfaces apart: what systemd-networkd sends. Source: RFC 4361, section 6.1.
  public init(ethernetAddress: [UInt8], duid: [UInt8], interface: UInt32) {
    self.init(ethernetAddress: ethernetAddress)
    clientIdentifier = [255]
    clientIdentifier.append(bigEndian: interface)
    clientIdentifier += duid
  }

  /// What is asked for with every discover and request; servers may send only that.
  static let requestedOptions: [DHCPOption.Code] = [
    .subnetMask, .classlessRoutes, .routers, .nameServers, .hostName, .domainName, .rootPath, .mtu,
    .broadcastAddress, .leaseTime, .serverIdentifier, .renewalTime, .rebindingTime, .serverName,
    .bootFile, .searchDomains,
  ]
  /// What an Ethernet frame carries without being cut.
  static let messageByteCountMaximum: UInt16 = 1472

  func message(_ type: DHCPMessageType, transaction: UInt32, seconds: UInt16) -> DHCPMessage {
    var message = DHCPMessage(.request)
    message.hardwareType = hardwareType
    message.hardwareAddress = hardwareAddress
    message.transaction = transaction
    message.seconds = seconds
    message.wantsBroadcast = wantsBroadcast
    message.options = [
      DHCPOption(.messageType, [type.rawValue]),
      DHCPOption(.clientIdentifier, clientIdentifier),
    ]
    guard type == .discover || type == .request else { return message }
    var maximum: [UInt8] = []
    maximum.append(bigEndian: Self.messageByteCountMaximum)
    message.options.append(DHCPOption(.messageByteCountMaximum, maximum))
    var codes: [UInt8] = []
    for code in Self.requestedOptions { codes.append(code.rawValue) }
    message.options.append(DHCPOption(.parameterRequests, codes))
    if !vendorClass.isEmpty { message.options.append(DHCPOption(.vendorClass, vendorClass.bytes)) }
    if let hostName { message.options.append(DHCPOption(.hostName, hostName.bytes)) }
    return message
  }
}

/// A message to be sent, and to whom.
public struct DHCPTransmission: Equatable, Sendable {
  public static let serverPort: UInt16 = 67
  public static let clientPort: UInt16 = 68

  public var message: DHCPMessage
  public var source: IPv4Address
  /// 255.255.255.255, or a server, to which the kernel knows the way by now.
  public var destination: IPv4Address

  public var isBroadcast: Bool { destination.rawValue == .max }

  /// With the headers of IPv4 and UDP, for a packet socket.
  public var datagram: [UInt8]? {
    UDPDatagram(
      source: source, sourcePort: Self.clientPort, destination: destination,
      destinationPort: Self.serverPort, payload: message.encoded
    ).encoded
  }
}

// SPDX-License-Identifier: Apache-2.0
// Who asks, and what every message of one client says of it.

import BootPlanning
import WireFormat

/// An Ethernet interface that asks for its address.
public struct DHCPIdentity: Equatable, Sendable {
  /// Option 60. Source: RFC 2132, section 9.13.
  static let vendorClass: ByteString = "rootlink"

  /// `chaddr`: six bytes.
  public var hardwareAddress: [UInt8]
  /// Option 61. A server gives one lease to one identifier: whoever runs the interface later must
  /// send the same, or gets another address.
  public var clientIdentifier: [UInt8]
  /// Option 12; nil: not sent.
  public var hostName: ByteString?

  /// Identified as most boot programs do it: by its address. Source: RFC 2132, section 9.14.
  public init(ethernetAddress: [UInt8]) {
    hardwareAddress = ethernetAddress
    clientIdentifier = [1] + ethernetAddress
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
    message.hardwareAddress = hardwareAddress
    message.transaction = transaction
    message.seconds = seconds
    message.options = [
      DHCPOption(.messageType, [type.rawValue]),
      DHCPOption(.clientIdentifier, clientIdentifier),
    ]
    var maximum: [UInt8] = []
    maximum.append(bigEndian: Self.messageByteCountMaximum)
    message.options.append(DHCPOption(.messageByteCountMaximum, maximum))
    var codes: [UInt8] = []
    for code in Self.requestedOptions { codes.append(code.rawValue) }
    message.options.append(DHCPOption(.parameterRequests, codes))
    message.options.append(DHCPOption(.vendorClass, Self.vendorClass.bytes))
    if let hostName { message.options.append(DHCPOption(.hostName, hostName.bytes)) }
    return message
  }
}

/// A message to be broadcast by a machine without an address.
public struct DHCPTransmission: Equatable, Sendable {
  /// Source: RFC 2131, section 4.1.
  public static let serverPort: UInt16 = 67
  public static let clientPort: UInt16 = 68

  public var message: DHCPMessage

  /// With the headers of IPv4 and UDP, for a packet socket: from 0.0.0.0 to 255.255.255.255. Nil
  /// when the message is longer than a datagram may be.
  public var datagram: [UInt8]? {
    UDPDatagram(
      source: IPv4Address(rawValue: 0), sourcePort: Self.clientPort,
      destination: IPv4Address(rawValue: .max), destinationPort: Self.serverPort,
      payload: message.encoded
    ).encoded
  }
}

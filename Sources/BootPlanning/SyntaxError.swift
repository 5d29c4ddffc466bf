// SPDX-License-Identifier: Apache-2.0
// Where and why a value does not follow its grammar.

import WireFormat

/// The first place where a value leaves its grammar.
public struct SyntaxError: Error, Equatable, Sendable {
  /// What a grammar would have taken at this place.
  public enum Expectation: Equatable, Sendable {
    case port, hostName, server, hostNotNumber, ipv4, ipv6, closingBracket, afterBracket
    case bracketedIPv6, serverWithoutPort
    case exportWithinLimit(maximum: Int)
    case exportWithoutNUL, exportName
    case device, anyScheme, percentEncoding, socketKey, socketPath, noSocketKey, uriKey
    case emptyAuthority, noFragment
    case zeroOrOne, tlsType, blockSize, driver
    case count(minimum: UInt64, maximum: UInt64)
    case keyAndValue, knownKey, keyOnce, value
    case textWithinLimit(maximum: Int)
    case noNUL
    case accessMode, ioMode, address, atMostTwoAddresses, samePathFamily
    case atMostPaths(Int)
    case devicePath, macAddress
    case softDevice, interfaceName, pathPolicy
    case addressMethod, netmask, vlan, overlay, endOfValue
  }

  /// In bytes from 0, in the value.
  public let offset: Int
  /// What stands there, cut after `foundLimit` bytes; empty at the end of the value.
  public let found: ByteString
  public let expected: Expectation

  static let foundLimit = 64

  /// `found` is a part of the value, whose indices are offsets in it.
  init(at found: ArraySlice<UInt8>, expected: Expectation) {
    offset = found.startIndex
    self.found = ByteString(found.prefix(Self.foundLimit))
    self.expected = expected
  }
}

extension SyntaxError.Expectation {
  public var text: String {
    switch self {
    case .port: "a port from 1 to 65535"
    case .hostName: "a host name of letters, digits, '-', '_' and '.'"
    case .server: "an address or a host name"
    case .hostNotNumber: "a host, which cannot be a bare number here"
    case .ipv4: "an IPv4 address of four numbers from 0 to 255"
    case .ipv6: "an IPv6 address"
    case .closingBracket: "an IPv6 address that ends with ']'"
    case .afterBracket: "':', '/' or nothing after ']'"
    case .bracketedIPv6: "brackets around an IPv6 address"
    case .serverWithoutPort: "a server without a port before the comma"
    case .exportWithinLimit(let maximum): "an export name of at most \(maximum) bytes"
    case .exportWithoutNUL: "an export name without a NUL byte"
    case .exportName: "an export name"
    case .device: "a device such as nbd0 or nbd0p1"
    case .anyScheme: "nbd://, nbds://, nbd+unix:// or nbds+unix://"
    case .percentEncoding: "two hexadecimal digits after '%'"
    case .socketKey: "the key socket= with the path of the Unix socket"
    case .socketPath: "the path of a Unix socket, 1 to 107 bytes, without NUL but as first byte"
    case .noSocketKey: "no socket= in a URI that names a host"
    case .uriKey: "a known key (socket, tls-type, tls-hostname, tls-verify-peer, x-...)"
    case .emptyAuthority: "no host in a URI of a Unix socket"
    case .noFragment: "'%23' for '#'"
    case .zeroOrOne: "0 or 1"
    case .driver: "nbd or ublk"
    case .tlsType: "anon, x509 or psk"
    case .blockSize: "a power of two from 512 to 65536"
    case .count(let minimum, let maximum): "a number from \(minimum) to \(maximum)"
    case .keyAndValue: "key=value"
    case .knownKey:
      "one of sessname, path, device_path, access_mode, io_mode, port, queues, dev"
    case .keyOnce: "a key that was not given before"
    case .value: "a value after '='"
    case .textWithinLimit(let maximum): "1 to \(maximum) bytes"
    case .noNUL: "no NUL byte"
    case .accessMode: "ro, rw or migration"
    case .ioMode: "blockio or fileio"
    case .address: "ip:ADDRESS, gid:GID or dhcp"
    case .atMostTwoAddresses: "at most two addresses in a path"
    case .samePathFamily: "a source of the same kind as the destination"
    case .atMostPaths(let maximum): "at most \(maximum) paths"
    case .devicePath: "device_path=, which must be given"
    case .macAddress: "an Ethernet address"
    case .pathPolicy: "round-robin, min-inflight or min-latency"
    case .softDevice: "rxe:INTERFACE or siw:INTERFACE"
    case .interfaceName: "the name of a network interface"
    case .addressMethod:
      "an address or one of dhcp, on, any, off, none, dhcp6, auto6, either6, link6"
    case .netmask: "a netmask such as 255.255.255.0, or the length of a prefix"
    case .vlan: "NAME:INTERFACE, where NAME ends with a number from 1 to 4094"
    case .overlay: "tmpfs or tmpfs,size=SIZE, where SIZE is a number with k, m, g or %"
    case .endOfValue: "nothing more"
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// A planned server to the addresses that can be connected to: literals as they are, names through
// the name servers of the lease, link-local addresses with their interface.

import BootPlanning
import LinuxSystem
import NBDClient
import WireFormat

struct AddressBook {
  private let lookup: HostLookup
  /// What was resolved, so that several devices of one server cost one question.
  private var known: [(name: ByteString, addresses: [[UInt8]])] = []

  /// The plan's name servers; without any, those of /etc/resolv.conf.
  init(_ resolver: BootPlanning.ResolverConfiguration) {
    var servers: [SocketAddress] = []
    for server in resolver.nameServers {
      switch server {
      case .ipv4(let address): servers.append(SocketAddress(ipv4: address.bytes, port: 53))
      case .ipv6(let address, let scope):
        let index = interfaceIndex(named: scope) ?? 0
        servers.append(SocketAddress(ipv6: address.bytes, port: 53, scope: index))
      default: break
      }
    }
    var domains = resolver.searchDomains
    if servers.isEmpty, let text = try? readFile("/etc/resolv.conf", limit: 65_536) {
      for words in wordLines(text) where words.count >= 2 {
        if words[0] == "nameserver", let octets = addressOctets(words[1]) {
          servers.append(socketAddress(octets, port: 53))
        } else if words[0] == "search" || words[0] == "domain" {
          domains = Array(words.dropFirst())
        }
      }
    }
    var hosts: [KnownHost] = []
    if let text = try? readFile("/etc/hosts", limit: 65_536) {
      for words in wordLines(text) where words.count >= 2 {
        guard let octets = addressOctets(words[0]) else { continue }
        for name in words.dropFirst() { hosts.append(KnownHost(name: name, octets: octets)) }
      }
    }
    lookup = HostLookup(nameServers: servers, searchDomains: domains, knownHosts: hosts)
  }

  /// Never empty.
  mutating func addresses(
    of server: ServerAddress, port: UInt16, until deadline: Deadline
  ) throws(AttemptError) -> [SocketAddress] {
    switch server {
    case .ipv4(let address):
      return [SocketAddress(ipv4: address.bytes, port: port)]
    case .ipv6(let address, let scope):
      if scope.isEmpty { return [SocketAddress(ipv6: address.bytes, port: port, scope: 0)] }
      guard let index = interfaceIndex(named: scope) else { throw .unknownInterface(scope) }
      return [SocketAddress(ipv6: address.bytes, port: port, scope: index)]
    case .unixSocket(let path):
      do {
        return [try SocketAddress(unixPath: path)]
      } catch { throw .unusableAddress(path, error) }
    case .hostName(let name):
      var found: [SocketAddress] = []
      for octets in try resolve(name, until: deadline) {
        found.append(socketAddress(octets, port: port))
      }
      guard !found.isEmpty else { throw .unresolved(.noAddress(name)) }
      return found
    case .gid, .pending:
      throw .protocolMissing
    }
  }

  private mutating func resolve(
    _ name: ByteString, until deadline: Deadline
  ) throws(AttemptError) -> [[UInt8]] {
    for one in known where one.name == name { return one.addresses }
    do throws(ResolutionError) {
      let addresses = try resolveHost(name, with: lookup, until: deadline)
      known.append((name, addresses))
      return addresses
    } catch { throw .unresolved(error) }
  }
}

private func socketAddress(_ octets: [UInt8], port: UInt16) -> SocketAddress {
  octets.count == 4
    ? SocketAddress(ipv4: octets, port: port) : SocketAddress(ipv6: octets, port: port, scope: 0)
}

private func addressOctets(_ text: ByteString) -> [UInt8]? {
  IPv4Address(text.bytes[...])?.bytes ?? IPv6Address(text.bytes[...])?.bytes
}

/// The words of each line; comments (`#` and what follows) are left out.
private func wordLines(_ text: ByteString) -> [[ByteString]] {
  var lines: [[ByteString]] = []
  for line in text.fields(separatedBy: 0x0a) {
    let content = line.cut(at: 0x23)?.head ?? line
    var words: [ByteString] = []
    for word in content.bytes.split(whereSeparator: { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }) {
      words.append(ByteString(word))
    }
    if !words.isEmpty { lines.append(words) }
  }
  return lines
}

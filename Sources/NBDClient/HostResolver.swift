// SPDX-License-Identifier: Apache-2.0
// Host names to addresses: /etc/hosts, then the name servers of the lease (or /etc/resolv.conf),
// each asked for IPv4 and IPv6 at once. A name without a dot is tried under each search domain
// first. IPv4 addresses come first: the lease that gave the name server is one of IPv4.

import DNSProtocol
public import LinuxSystem
public import WireFormat

/// Where names are looked up.
public struct HostLookup: Sendable {
  /// At most this many servers are asked, as resolv.conf(5) has it.
  public static let serverCountMaximum = 3
  /// At most this many are tried for one name.
  public static let searchDomainCountMaximum = 6

  /// In the order in which they are asked.
  public var nameServers: [SocketAddress]
  /// In the order in which they are tried, for names without a dot.
  public var searchDomains: [ByteString]
  /// What hosts(5) says: names and their addresses.
  public var knownHosts: [KnownHost]
  /// How long one server may take for one name; each is asked twice.
  public var answerMilliseconds: UInt64 = 2_000

  /// Cuts both lists to their limits.
  public init(
    nameServers: [SocketAddress], searchDomains: [ByteString] = [], knownHosts: [KnownHost] = []
  ) {
    self.nameServers = Array(nameServers.prefix(Self.serverCountMaximum))
    self.searchDomains = Array(searchDomains.prefix(Self.searchDomainCountMaximum))
    self.knownHosts = knownHosts
  }
}

/// A name with its address, 4 or 16 octets.
public struct KnownHost: Sendable {
  /// Compared without regard to the case of ASCII letters.
  public let name: ByteString
  /// In network order.
  public let octets: [UInt8]
  /// `octets`: 4 or 16; not looked at here.
  public init(name: ByteString, octets: [UInt8]) {
    self.name = name
    self.octets = octets
  }
}

/// Why a name has no address.
public enum ResolutionError: Error, Equatable, Sendable {
  /// Neither an address nor what DNS takes for a name.
  case notAName(ByteString)
  /// Not in `knownHosts`, and there is nobody to ask.
  case noNameServer(ByteString)
  /// A name server says that there is none.
  case noSuchName(ByteString)
  /// Known, but with addresses of neither kind.
  case noAddress(ByteString)
  /// None of the `servers` that were asked said anything of use in time.
  case noAnswer(ByteString, servers: Int)

  /// What happened, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notAName(let name):
      ("'\(name.printable)' is neither an address nor a host name", "check its spelling")
    case .noNameServer(let name):
      (
        "no name server to look up '\(name.printable)'",
        "give its address instead, nameserver=ADDRESS, or DHCP option 6"
      )
    case .noSuchName(let name):
      ("the host name '\(name.printable)' does not exist", "check its spelling and its domain")
    case .noAddress(let name):
      ("the host '\(name.printable)' has no address", "check its DNS records")
    case .noAnswer(let name, let servers):
      (
        "none of \(servers) name servers answered for '\(name.printable)'",
        "check the name servers of the lease, or give the server's address"
      )
    }
  }
}

/// The octets (4 or 16 each) of every address of a host.
public func resolveHost(
  _ name: ByteString, with configuration: HostLookup, until deadline: Deadline
) throws(ResolutionError) -> [[UInt8]] {
  guard DNSName(name) != nil else { throw .notAName(name) }
  let wanted = name.lowercasedASCII
  var known: [[UInt8]] = []
  for host in configuration.knownHosts where host.name.lowercasedASCII == wanted {
    known.append(host.octets)
  }
  if !known.isEmpty { return known }
  guard !configuration.nameServers.isEmpty else { throw .noNameServer(name) }
  var candidates: [ByteString] = []
  if !name.bytes.contains(0x2e) {
    for domain in configuration.searchDomains { candidates.append(name + "." + domain) }
  }
  candidates.append(name)
  var lastError = ResolutionError.noSuchName(name)
  for candidate in candidates {
    guard let question = DNSName(candidate) else { continue }
    do {
      return try ask(question, name: candidate, configuration, until: deadline)
    } catch { lastError = error }
  }
  throw lastError
}

private func ask(
  _ question: DNSName, name: ByteString, _ configuration: HostLookup,
  until deadline: Deadline
) throws(ResolutionError) -> [[UInt8]] {
  for _ in 0..<2 {
    for server in configuration.nameServers where !deadline.hasPassed {
      let end = deadline.earlier(of: .milliseconds(configuration.answerMilliseconds))
      switch exchange(question, with: server, until: end) {
      case .addresses(let found) where !found.isEmpty: return found
      case .addresses: throw .noAddress(name)
      case .noSuchName: throw .noSuchName(name)
      case .failed, nil: continue
      }
    }
  }
  throw .noAnswer(name, servers: configuration.nameServers.count)
}

/// Nil when the server gave no usable answer in time.
private func exchange(
  _ name: DNSName, with server: SocketAddress, until deadline: Deadline
) -> DNSAnswer? {
  guard let socket = try? DatagramSocket.connect(to: server) else { return nil }
  let identifier = UInt16(truncatingIfNeeded: randomValue(below: 1 << 15))
  let types: [(UInt16, DNSRecordType)] = [(identifier, .ipv4), (identifier | 0x8000, .ipv6)]
  for (number, type) in types {
    let question = encodeDNSQuestion(identifier: number, name: name, type: type)
    do { try socket.send(question) } catch { return nil }
  }
  var answers: [DNSAnswer?] = [nil, nil]
  while answers[0] == nil || answers[1] == nil {
    guard let datagram = try? socket.receive(maximum: 4096, until: deadline) else { break }
    for (index, (number, type)) in types.enumerated() where answers[index] == nil {
      answers[index] = try? decodeDNSAnswer(datagram, identifier: number, name: name, type: type)
    }
  }
  return combined(answers[0], answers[1])
}

/// Addresses of both kinds, IPv4 first; without any, the more telling of the two answers.
private func combined(_ ipv4: DNSAnswer?, _ ipv6: DNSAnswer?) -> DNSAnswer? {
  switch (ipv4, ipv6) {
  case (.addresses(let four), .addresses(let six)): .addresses(four + six)
  case (.addresses(let four), _) where !four.isEmpty: .addresses(four)
  case (_, .addresses(let six)) where !six.isEmpty: .addresses(six)
  case (.noSuchName, _), (_, .noSuchName): .noSuchName
  default: nil
  }
}

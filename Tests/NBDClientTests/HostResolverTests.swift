// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import NBDClient
import TestSupport
import Testing
import WireFormat

@Suite("The resolver of host names")
struct HostResolverTests {
  static let records: [String: [[UInt8]]] = [
    "boot.lab.example": [[192, 0, 2, 7], [UInt8](repeating: 0xfe, count: 16)],
    "six.example": [[UInt8](repeating: 0x20, count: 16)],
    "empty.example": [],
  ]

  func resolve(
    _ name: ByteString, with servers: [ScriptedNameServer], search: [ByteString] = [],
    hosts: [KnownHost] = []
  ) throws(ResolutionError) -> [[UInt8]] {
    defer { withExtendedLifetime(servers) {} }
    var lookup = HostLookup(
      nameServers: servers.map { SocketAddress(ipv4: [127, 0, 0, 1], port: $0.port) },
      searchDomains: search, knownHosts: hosts)
    lookup.answerMilliseconds = 300
    return try resolveHost(name, with: lookup, until: .milliseconds(20_000))
  }

  @Test("gives addresses of both kinds, IPv4 first")
  func both() throws {
    let server = try ScriptedNameServer(Self.records)
    let found = try resolve("Boot.Lab.example", with: [server])
    #expect(found.map(\.count) == [4, 16])
    #expect(try resolve("six.example", with: [server]).count == 1)
  }

  @Test("tries the search domains for a name without a dot")
  func search() throws {
    let server = try ScriptedNameServer(Self.records)
    let found = try resolve("boot", with: [server], search: ["other.example", "lab.example"])
    #expect(found.first == [192, 0, 2, 7])
  }

  @Test("asks the next server when one does not answer")
  func silentServer() throws {
    let servers = [try ScriptedNameServer(nil), try ScriptedNameServer(Self.records)]
    #expect(try resolve("boot.lab.example", with: servers).first == [192, 0, 2, 7])
  }

  @Test("takes what hosts(5) says without asking anybody")
  func hosts() throws {
    let host = KnownHost(name: "server", octets: [192, 0, 2, 9])
    #expect(try resolve("SERVER", with: [], hosts: [host]) == [[192, 0, 2, 9]])
  }

  @Test("says why a name has no address")
  func failures() throws {
    let server = try ScriptedNameServer(Self.records)
    #expect(throws: ResolutionError.noSuchName("gone.example")) {
      try resolve("gone.example", with: [server])
    }
    #expect(throws: ResolutionError.noAddress("empty.example")) {
      try resolve("empty.example", with: [server])
    }
    #expect(throws: ResolutionError.noNameServer("boot")) { try resolve("boot", with: []) }
    #expect(throws: ResolutionError.notAName("a..b")) { try resolve("a..b", with: [server]) }
    #expect(throws: ResolutionError.noAnswer("boot.lab.example", servers: 1)) {
      try resolve("boot.lab.example", with: [try ScriptedNameServer(nil)])
    }
  }
}

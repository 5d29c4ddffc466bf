// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import NBDClient
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A connection to a server")
struct NBDConnectionTests {
  static let greeting = ServerGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded
  static func reply(_ type: OptionReplyType, _ data: [UInt8] = []) -> [UInt8] {
    OptionReplyHeader(option: .go, type: type, dataByteCount: UInt32(data.count)).encoded + data
  }
  static let accepted =
    reply(.info, InformationItem.export(byteCount: 4096, flags: [.hasFlags]).encoded) + reply(.ack)
  /// Client flags, option header, and GO of a name of one byte with one item.
  static let requestByteCount = 4 + 16 + 9

  static func limits(_ milliseconds: UInt64) -> ConnectionLimits {
    var limits = ConnectionLimits()
    limits.connectMilliseconds = milliseconds
    limits.negotiateMilliseconds = milliseconds
    return limits
  }

  func open(
    _ server: ScriptedServer, names: [ByteString] = ["a"], milliseconds: UInt64 = 10_000
  ) throws(ConnectionError) -> ByteString {
    defer { withExtendedLifetime(server) {} }
    let address = SocketAddress(ipv4: [127, 0, 0, 1], port: server.port)
    let connection = try NBDConnection.open(
      to: address, names: names, limits: Self.limits(milliseconds))
    return connection.export.name
  }

  @Test("reaches the export, and leaves what follows the handshake in the socket")
  func success() throws {
    let server = try ScriptedServer([
      [
        .send(Self.greeting), .receive(Self.requestByteCount), .send(Self.accepted + [1, 2, 3]),
        .staySilent,
      ]
    ])
    let address = SocketAddress(ipv4: [127, 0, 0, 1], port: server.port)
    let connection = try NBDConnection.open(to: address, names: ["a"])
    #expect(connection.export.byteCount == 4096)
    var rest: [UInt8] = []
    try connection.socket.receive(into: &rest, maximum: 16, until: .milliseconds(10_000))
    #expect(rest == [1, 2, 3])
    withExtendedLifetime(server) {}
  }

  @Test("says which attachment it belongs to")
  func identity() throws {
    let accepted = OptionReplyHeader(option: .session, type: .ack, dataByteCount: 0).encoded
    let server = try ScriptedServer([
      [
        .send(Self.greeting), .receive(4 + OptionHeader.byteCount + SessionIdentity.byteCount),
        .send(accepted), .receive(Self.requestByteCount - 4), .send(Self.accepted), .staySilent,
      ]
    ])
    let connection = try NBDConnection.open(
      to: SocketAddress(ipv4: [127, 0, 0, 1], port: server.port), names: ["a"],
      identity: SessionIdentity(token: SessionToken(high: 1, low: 2), generation: 3))
    #expect(connection.export.isSessionAccepted)
    withExtendedLifetime(server) {}
  }

  @Test("takes a handshake that arrives a byte at a time")
  func bytewise() throws {
    let steps =
      (Self.greeting.map { ScriptedServer.Step.send([$0]) })
      + [.receive(Self.requestByteCount)] + Self.accepted.map { .send([$0]) } + [.staySilent]
    #expect(try open(ScriptedServer([steps])) == "a")
  }

  @Test("asks an old server for the second name over a second connection")
  func oldServer() throws {
    let answer = ExportNameAnswer(exportByteCount: 512, flags: [.hasFlags]).encoded
    let unsupported = [ScriptedServer.Step.send(Self.greeting), .receive(Self.requestByteCount)]
    let server = try ScriptedServer([
      unsupported + [.send(Self.reply(.errUnsup)), .receive(17)],
      unsupported + [.send(Self.reply(.errUnsup)), .receive(17), .send(answer), .staySilent],
    ])
    #expect(try open(server, names: ["a", "b"]) == "b")
  }

  static let silences: [(String, [ScriptedServer.Step], NegotiationStage)] = [
    ("a web server, which waits for us", [.staySilent], .greeting),
    ("half a greeting", [.send(Array(greeting.prefix(10))), .staySilent], .greeting),
    ("no answer to GO", [.send(greeting), .staySilent], .options),
    (
      "half an answer to GO",
      [.send(greeting), .send(Array(accepted.prefix(25))), .staySilent], .options
    ),
  ]

  @Test("ends by its deadline when the peer goes silent", arguments: silences)
  func silence(name: String, script: [ScriptedServer.Step], stage: NegotiationStage) throws {
    let server = try ScriptedServer([script])
    let address: ByteString = ByteString("127.0.0.1:\(server.port)")
    #expect(throws: ConnectionError.silent(address: address, stage, seconds: 0)) {
      try open(server, milliseconds: 100)
    }
  }

  @Test("says so when the peer speaks another protocol, or hangs up")
  func foreign() throws {
    let ssh = try ScriptedServer([[.send(Array("SSH-2.0-OpenSSH_9.2p1\r\n".utf8)), .staySilent]])
    #expect(throws: ConnectionError.self) { try open(ssh) }
    let closing = try ScriptedServer([[]])
    let address = ByteString("127.0.0.1:\(closing.port)")
    #expect(throws: ConnectionError.notNegotiated(address: address, .closed(.greeting))) {
      try open(closing)
    }
  }

  @Test("is refused where nothing listens")
  func refused() throws {
    let port: UInt16
    do {
      let server = try ScriptedServer([[]])
      port = server.port
    }
    let address = SocketAddress(ipv4: [127, 0, 0, 1], port: port)
    #expect(throws: ConnectionError.notConnected(address: address.text, .connectionRefused)) {
      _ = try NBDConnection.open(to: address, names: ["a"])
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A DHCP client")
struct DHCPClientTests {
  static let identity = DHCPIdentity(ethernetAddress: ethernetAddress)

  func client(_ rule: DHCPOfferRule = .first, seed: UInt64 = 1) -> DHCPClient {
    DHCPClient(Self.identity, rule: rule, seed: seed, at: 0)
  }

  /// The message that the client sends now.
  func sent(_ client: inout DHCPClient, at now: UInt64) throws -> DHCPTransmission {
    guard case .send(let transmission) = client.nextAction(at: now) else {
      throw Unexpected()
    }
    return transmission
  }
  struct Unexpected: Error {}

  func take(
    _ bytes: [UInt8], _ client: inout DHCPClient, at now: UInt64, isDatagram: Bool = false
  ) -> Bool {
    isDatagram
      ? client.received(datagram: bytes.span, isChecksumComplete: true, at: now)
      : client.received(bytes.span, at: now)
  }

  func type(_ message: DHCPMessage) -> DHCPMessageType? {
    message.option(.messageType).flatMap { DHCPMessageType(rawValue: $0[0]) }
  }

  /// Source: RFC 2131, table 5.
  @Test("asks, takes the offer and is bound; each message says what RFC 2131 has it say")
  func wholeExchange() throws {
    var client = client()
    let server = ScriptedServer()
    let discover = try sent(&client, at: 0)
    #expect(type(discover.message) == .discover)
    #expect(discover.message.clientAddress == ipv4("0.0.0.0"))
    #expect(discover.message.option(.serverIdentifier) == nil)
    #expect(discover.message.option(.clientIdentifier) == [1] + ethernetAddress)
    #expect(discover.message.option(.parameterRequests)?.contains(121) == true)
    client.received(server.answer(.offer, to: discover.message).span, at: 1200)
    let request = try sent(&client, at: 1200)
    #expect(type(request.message) == .request)
    #expect(request.message.transaction == discover.message.transaction)
    #expect(request.message.option(.serverIdentifier) == [192, 0, 2, 9])
    #expect(request.message.option(.requestedAddress) == [192, 0, 2, 50])
    #expect(request.message.clientAddress == ipv4("0.0.0.0"))
    #expect(request.message.seconds == 1)
    client.received(server.answer(.acknowledgement, to: request.message).span, at: 1300)
    guard case .configure(let lease) = client.nextAction(at: 1300) else { throw Unexpected() }
    #expect(lease.address == server.offered)
  }

  @Test("asks again after 4, 8, 16, 32, 64 seconds, a second more or less", arguments: 0..<50)
  func retransmission(seed: Int) throws {
    var client = client(seed: UInt64(seed))
    var now: UInt64 = 0
    var transactions: [UInt32] = []
    for seconds: UInt64 in [4, 8, 16, 32, 64, 64, 64] {
      let transmission = try sent(&client, at: now)
      transactions.append(transmission.message.transaction)
      #expect(transmission.message.seconds == UInt16(now / 1000))
      guard case .wait(until: let next?) = client.nextAction(at: now) else { throw Unexpected() }
      #expect((seconds * 1000 - 1000...seconds * 1000 + 1000).contains(next - now))
      #expect(client.nextAction(at: next - 1) == .wait(until: next))
      now = next
    }
    #expect(Set(transactions).count == 1)
  }

  @Test("goes back to asking everybody when a server does not stand by its offer")
  func silentServer() throws {
    var client = client()
    let discover = try sent(&client, at: 0)
    client.received(ScriptedServer().answer(.offer, to: discover.message).span, at: 0)
    var now: UInt64 = 0
    for _ in 0..<4 {
      #expect(type(try sent(&client, at: now).message) == .request)
      guard case .wait(until: let next?) = client.nextAction(at: now) else { throw Unexpected() }
      now = next
    }
    let again = try sent(&client, at: now)
    #expect(type(again.message) == .discover)
    #expect(again.message.transaction != discover.message.transaction)
  }

  @Test("prefers an offer with a root path, as long as it has patience")
  func rootPathPreferred() throws {
    let plain = ScriptedServer()
    let rooted = ScriptedServer(
      address: ipv4("192.0.2.8"), offered: ipv4("192.0.2.60"), rootPath: "nbd://s/r")
    for patience in [UInt64(500), 2000] {
      var client = client(.rootPathPreferred(patienceMilliseconds: 1000))
      let discover = try sent(&client, at: 0)
      #expect(take(plain.answer(.offer, to: discover.message), &client, at: 100) == true)
      #expect(client.nextAction(at: 100) == .wait(until: 1100))
      var now = patience
      if patience < 1100 {
        #expect(take(rooted.answer(.offer, to: discover.message), &client, at: now) == true)
      } else {
        now = 1100
      }
      let request = try sent(&client, at: now)
      #expect(
        request.message.option(.serverIdentifier)
          == (patience < 1100 ? rooted : plain).address.bytes)
    }
    var client = client(.rootPathPreferred(patienceMilliseconds: 1000))
    let discover = try sent(&client, at: 0)
    client.received(rooted.answer(.offer, to: discover.message).span, at: 1)
    #expect(type(try sent(&client, at: 1).message) == .request)
  }

  @Test("passes over what is not for it")
  func foreignMessages() throws {
    var client = client()
    let discover = try sent(&client, at: 0).message
    let server = ScriptedServer()
    var changed = discover
    changed.transaction ^= 1
    #expect(take(server.answer(.offer, to: changed), &client, at: 0) == false)
    changed = discover
    changed.hardwareAddress[5] ^= 1
    #expect(take(server.answer(.offer, to: changed), &client, at: 0) == false)
    var reply = try decoded(server.answer(.offer, to: discover))
    reply.options.append(DHCPOption(.clientIdentifier, [1, 2, 3]))
    #expect(take(reply.encoded, &client, at: 0) == false)
    reply.options.removeLast()
    reply.operation = .request
    #expect(take(reply.encoded, &client, at: 0) == false)
    #expect(take(server.answer(.acknowledgement, to: discover), &client, at: 0) == false)
    #expect(take(server.answer(.refusal, to: discover), &client, at: 0) == false)
    reply.operation = .reply
    reply.options.append(DHCPOption(.clientIdentifier, [1] + ethernetAddress))
    #expect(take(reply.encoded, &client, at: 0) == true)
    // Another server's word does not count now.
    let request = try sent(&client, at: 0).message
    let other = ScriptedServer(address: ipv4("192.0.2.66"))
    #expect(take(other.answer(.acknowledgement, to: request), &client, at: 0) == false)
    #expect(take(other.answer(.refusal, to: request), &client, at: 0) == false)
  }

  @Test("begins anew ten seconds after a refusal")
  func refusal() throws {
    var client = client()
    let server = ScriptedServer(text: "wrong network")
    let discover = try sent(&client, at: 0).message
    client.received(server.answer(.offer, to: discover).span, at: 0)
    let request = try sent(&client, at: 0).message
    #expect(take(server.answer(.refusal, to: request), &client, at: 50) == true)
    #expect(
      client.nextAction(at: 50) == .refused(server: server.address, message: "wrong network"))
    #expect(client.nextAction(at: 50) == .wait(until: 10_050))
    let again = try sent(&client, at: 10_050).message
    #expect(type(again) == .discover && again.option(.requestedAddress) == nil)
  }

  @Test("once bound says nothing more, whatever comes and however long it lasts")
  func boundIsTheEnd() throws {
    let server = ScriptedServer()
    var client = client()
    let discover = try sent(&client, at: 0).message
    #expect(take(server.answer(.offer, to: discover), &client, at: 0) == true)
    let request = try sent(&client, at: 0).message
    for isFirst in [true, false] {
      #expect(take(server.answer(.acknowledgement, to: request), &client, at: 0) == isFirst)
    }
    #expect(take(server.answer(.refusal, to: request), &client, at: 0) == false)
    guard case .configure = client.nextAction(at: 0) else { throw Unexpected() }
    #expect(client.nextAction(at: 0) == .wait(until: nil))
    #expect(client.nextAction(at: .max) == .wait(until: nil))
  }

  @Test("takes its answer from a packet socket's datagram, on its port only")
  func datagrams() throws {
    var client = client()
    let discover = try sent(&client, at: 0)
    let wire = try #require(discover.datagram)
    let sent = try decodedDatagram(wire, isComplete: true)
    #expect(sent.sourcePort == 68 && sent.destinationPort == 67)
    #expect(sent.source == ipv4("0.0.0.0") && sent.destination == ipv4("255.255.255.255"))
    #expect(try decoded(sent.payload).transaction == discover.message.transaction)
    var answer = UDPDatagram(
      source: ipv4("192.0.2.9"), sourcePort: 67, destination: ipv4("192.0.2.50"),
      destinationPort: 69, payload: ScriptedServer().answer(.offer, to: discover.message))
    let wrong = try #require(answer.encoded)
    #expect(take(wrong, &client, at: 0, isDatagram: true) == false)
    answer.destinationPort = 68
    let right = try #require(answer.encoded)
    #expect(take(right, &client, at: 0, isDatagram: true) == true)
  }

  /// Whatever comes and whenever it is asked, it asks for something or waits, and never spins.
  @Test("of random messages and times never traps or spins", arguments: 0..<20)
  func random(shard: Int) throws {
    var random = SeededGenerator(seed: UInt64(shard) &+ 77)
    var client = client(
      shard % 2 == 0 ? .first : .rootPathPreferred(patienceMilliseconds: 500),
      seed: random.next())
    var now: UInt64 = 0
    var last: DHCPMessage?
    for _ in 0..<5000 {
      var actions = 0
      acting: while true {
        actions += 1
        try #require(actions < 8)
        switch client.nextAction(at: now) {
        case .send(let transmission): last = transmission.message
        case .wait(let next):
          now = random.next() % 3 == 0 ? now &+ random.next() % 100_000 : max(now, next ?? now)
          break acting
        default: break
        }
      }
      guard let last, random.next() % 3 != 0 else { continue }
      let types: [DHCPMessageType] = [.offer, .acknowledgement, .acknowledgement, .refusal]
      var message = ScriptedServer(seconds: UInt32(truncatingIfNeeded: random.next() >> 40))
        .answer(types[Int(random.next() % 4)], to: last)
      if random.next() % 4 == 0 {
        message[Int(random.next() % UInt64(message.count))] = UInt8(
          truncatingIfNeeded: random.next())
      }
      client.received(message.span, at: now)
    }
  }
}

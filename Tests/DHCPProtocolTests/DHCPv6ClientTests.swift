// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import DHCPProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A DHCPv6 client")
struct DHCPv6ClientTests {
  static let identifier = DHCPv6Client.identifier(ethernetAddress: ethernetAddress)
  struct Unexpected: Error {}

  func client(seed: UInt64 = 1) -> DHCPv6Client {
    DHCPv6Client(identifier: Self.identifier, association: 7, seed: seed, at: 0)
  }

  func sent(_ client: inout DHCPv6Client, at now: UInt64) throws -> DHCPv6Message {
    guard case .send(let message) = client.nextAction(at: now) else { throw Unexpected() }
    return message
  }

  func wait(_ client: inout DHCPv6Client, at now: UInt64) throws -> UInt64 {
    guard case .wait(until: let next?) = client.nextAction(at: now) else { throw Unexpected() }
    return next
  }

  /// A server's answer: an address for 3600 s.
  func answer(
    _ type: DHCPv6Message.MessageType, to request: DHCPv6Message, server: UInt8 = 1,
    preference: UInt8 = 0
  ) -> [UInt8] {
    var message = DHCPv6Message(type, transaction: request.transaction)
    message.options = [
      DHCPv6Option(.clientIdentifier, Self.identifier),
      DHCPv6Option(.serverIdentifier, [0, 3, 0, 1, server]),
      DHCPv6Option(.preference, [preference]),
      DHCPv6Option(
        .addresses,
        bytes(
          """
          00000007 000003e8 000007d0
          0005 0018 20010db8000000000000000000001000 00000bb8 00000e10
          """)),
    ]
    return message.encoded
  }

  func take(_ bytes: [UInt8], _ client: inout DHCPv6Client, at now: UInt64) -> Bool {
    client.received(bytes.span, at: now)
  }

  @Test("takes the best advertisement of the first second")
  func advertisements() throws {
    var client = client()
    let solicit = try sent(&client, at: 0)
    #expect(solicit.type == .solicit && solicit.option(.serverIdentifier) == nil)
    let first = answer(.advertise, to: solicit, server: 1, preference: 1)
    let better = answer(.advertise, to: solicit, server: 2, preference: 9)
    let worse = answer(.advertise, to: solicit, server: 3, preference: 0)
    for message in [first, better, worse] { #expect(take(message, &client, at: 10) == true) }
    let next = try wait(&client, at: 10)
    #expect((900...1100).contains(next))
    let request = try sent(&client, at: next)
    #expect(request.type == .request && request.option(.serverIdentifier) == [0, 3, 0, 1, 2])
    #expect(request.transaction != solicit.transaction)
    #expect(take(answer(.reply, to: request, server: 1), &client, at: next) == false)
    #expect(take(answer(.reply, to: solicit, server: 2), &client, at: next) == false)
    #expect(take(answer(.reply, to: request, server: 2), &client, at: next) == true)
  }

  @Test("asks again after about 1, 2, 4, 8 ... seconds", arguments: 0..<20)
  func retransmission(seed: Int) throws {
    var client = client(seed: UInt64(seed))
    var now: UInt64 = 0
    var last: UInt64 = 0
    for count in 0..<14 {
      _ = try sent(&client, at: now)
      let next = try wait(&client, at: now)
      let usual = count == 0 ? 1000 : min(2 * last, 3_600_000)
      #expect((usual - usual / 10...usual + usual / 10).contains(next - now))
      last = next - now
      now = next
    }
  }

  /// RFC 8415, section 18.2.9: an advertisement with the preference 255 is not compared.
  @Test("once bound says nothing more, whatever comes and however long it lasts")
  func boundIsTheEnd() throws {
    var client = client()
    let solicit = try sent(&client, at: 0)
    #expect(take(answer(.advertise, to: solicit, preference: 255), &client, at: 5) == true)
    let request = try sent(&client, at: 5)
    for isFirst in [true, false] {
      #expect(take(answer(.reply, to: request), &client, at: 10) == isFirst)
    }
    guard case .configure(let lease) = client.nextAction(at: 10) else { throw Unexpected() }
    #expect(lease.validSeconds == 3600)
    #expect(client.nextAction(at: 10) == .wait(until: nil))
    #expect(client.nextAction(at: .max) == .wait(until: nil))
  }
}

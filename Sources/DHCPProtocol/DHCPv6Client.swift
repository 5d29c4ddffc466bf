// SPDX-License-Identifier: Apache-2.0
// The client's side of a DHCPv6 lease of one address, until it is there, like `DHCPClient`: messages
// and milliseconds go in, actions come out. It begins once a router advertisement has asked for it
// (flag M), or `ip=` has.
//
//               advertise               reply
//   soliciting ───────────► requesting ───────► bound
//       ▲                       │
//       └────── no answer ──────┘
//
// Nobody renews the lease, as with DHCP of IPv4. Source: RFC 8415, sections 15, 18.2; the times are
// those of section 7.6.

import BootPlanning
import WireFormat

/// What to do next.
public indirect enum DHCPv6Action: Equatable, Sendable {
  /// To ff02::1:2, port 547, from port 546 of the link-local address.
  case send(DHCPv6Message)
  /// Configure the interface; said once.
  case configure(DHCPv6Lease)
  /// Nothing until then, unless a message arrives; nil: nothing ever, for the client is bound.
  case wait(until: UInt64?)
}

/// Asks for one address for one interface, and stops when it has one. `nextAction` says what to
/// send and when to come back; `received` takes what came.
public struct DHCPv6Client: Equatable, Sendable {
  static let solicitWaitMilliseconds: UInt64 = 1000
  static let solicitWaitMaximumMilliseconds: UInt64 = 3_600_000
  static let requestWaitMaximumMilliseconds: UInt64 = 30_000
  static let requestCountMaximum = 10
  /// An advertisement with this preference is taken at once.
  static let preferenceMaximum: UInt8 = 255

  private struct Attempts: Equatable {
    var count = 0
    var wait: UInt64 = 0
    var next: UInt64
  }

  private enum State: Equatable {
    case soliciting(Attempts, best: DHCPv6Lease?, preference: UInt8)
    case requesting(Attempts, DHCPv6Lease)
    case bound
  }

  /// The machine's DUID, as it is to be sent.
  private let identifier: [UInt8]
  /// Tells this interface from others of the machine.
  private let association: UInt32
  private var random: DHCPRandom
  private var state: State
  private var transaction: UInt32 = 0
  /// When the exchange began, for option 8.
  private var begin: UInt64
  /// To be handed out before anything else.
  private var pending: DHCPv6Action?

  /// Begins at once. `identifier` is the machine's DUID; `association` tells this interface from
  /// its others; `seed` makes transactions and waits differ from those of other machines.
  public init(identifier: [UInt8], association: UInt32, seed: UInt64, at now: UInt64) {
    self.identifier = identifier
    self.association = association
    random = DHCPRandom(seed: seed)
    begin = now
    state = .soliciting(Attempts(next: now), best: nil, preference: 0)
    transaction = random.next32() & 0xff_ffff
  }

  /// A DUID made of an Ethernet address. Source: RFC 8415, section 11.4.
  public static func identifier(ethernetAddress: [UInt8]) -> [UInt8] {
    [0, 3, 0, 1] + ethernetAddress
  }

  // MARK: Time

  /// Ask again and again until it says `wait`.
  public mutating func nextAction(at now: UInt64) -> DHCPv6Action {
    if let action = pending {
      pending = nil
      return action
    }
    switch state {
    case .soliciting(var attempts, let best, let preference):
      guard now >= attempts.next else { return .wait(until: attempts.next) }
      if let best, attempts.count > 0 {
        enter(.requesting(Attempts(next: now), best), at: now)
        return nextAction(at: now)
      }
      count(&attempts, Self.solicitWaitMilliseconds, Self.solicitWaitMaximumMilliseconds, now)
      state = .soliciting(attempts, best: best, preference: preference)
      return .send(message(.solicit, of: nil, to: nil, at: now))
    case .requesting(var attempts, let offer):
      guard now >= attempts.next else { return .wait(until: attempts.next) }
      guard attempts.count < Self.requestCountMaximum else {
        enter(.soliciting(Attempts(next: now), best: nil, preference: 0), at: now)
        return nextAction(at: now)
      }
      count(&attempts, Self.solicitWaitMilliseconds, Self.requestWaitMaximumMilliseconds, now)
      state = .requesting(attempts, offer)
      return .send(message(.request, of: offer, to: offer.serverIdentifier, at: now))
    case .bound: return .wait(until: nil)
    }
  }

  private mutating func enter(_ next: State, at now: UInt64) {
    begin = now
    transaction = random.next32() & 0xff_ffff
    state = next
  }

  /// The first wait, then twice the last one up to the greatest, each a tenth more or less.
  /// Source: RFC 8415, section 15.
  private mutating func count(
    _ attempts: inout Attempts, _ first: UInt64, _ greatest: UInt64, _ now: UInt64
  ) {
    let usual = attempts.count == 0 ? first : min(attempts.wait * 2, greatest)
    attempts.count += 1
    attempts.wait = usual - usual / 10 + random.next(below: usual / 5 + 1)
    attempts.next = now.saturatingAdd(attempts.wait)
  }

  // MARK: Messages

  private func message(
    _ type: DHCPv6Message.MessageType, of lease: DHCPv6Lease?, to server: [UInt8]?, at now: UInt64
  ) -> DHCPv6Message {
    var message = DHCPv6Message(type, transaction: transaction)
    message.options = [DHCPv6Option(.clientIdentifier, identifier)]
    if let server { message.options.append(DHCPv6Option(.serverIdentifier, server)) }
    var elapsed: [UInt8] = []
    let hundredths = (now > begin ? now - begin : 0) / 10
    elapsed.append(bigEndian: UInt16(truncatingIfNeeded: min(hundredths, 65535)))
    message.options.append(DHCPv6Option(.elapsedTime, elapsed))
    var codes: [UInt8] = []
    for code: DHCPv6Option.Code in [.nameServers, .searchDomains, .bootFileURL] {
      codes.append(bigEndian: code.rawValue)
    }
    message.options.append(DHCPv6Option(.requests, codes))
    var wanted: [UInt8] = []
    wanted.append(bigEndian: association)
    wanted += [0, 0, 0, 0, 0, 0, 0, 0]
    if let address = lease?.address {
      DHCPv6Option(.address, address.bytes + [0, 0, 0, 0, 0, 0, 0, 0]).append(to: &wanted)
    }
    message.options.append(DHCPv6Option(.addresses, wanted))
    return message
  }

  /// A datagram's payload; false when it was nothing that this client waits for.
  @discardableResult
  public mutating func received(_ bytes: Span<UInt8>, at now: UInt64) -> Bool {
    let message: DHCPv6Message
    do throws(WireError) { message = try DHCPv6Message(decoding: bytes) } catch { return false }
    guard message.transaction == transaction, message.option(.clientIdentifier) == identifier,
      let lease = DHCPv6Lease(message, association: association)
    else { return false }
    switch (message.type, state) {
    case (.advertise, .soliciting(let attempts, let best, let known)) where attempts.count > 0:
      let preference = message.option(.preference)?.first ?? 0
      if preference == Self.preferenceMaximum || attempts.count > 1 {
        enter(.requesting(Attempts(next: now), lease), at: now)
      } else if best == nil || preference > known {
        state = .soliciting(attempts, best: lease, preference: preference)
      }
    case (.reply, .requesting(_, let offer)) where lease.serverIdentifier == offer.serverIdentifier:
      pending = .configure(lease)
      state = .bound
    default: return false
    }
    return true
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client's side of a DHCPv6 lease of one address, like `DHCPClient`: messages and milliseconds
// go in, actions come out. It begins once a router advertisement has asked for it (flag M).
//
//   soliciting ──► requesting ──► bound ──T1──► renewing ──T2──► rebinding
//       ▲  advertise    │ reply      ▲             │ reply           │ reply
//       │               │            └─────────────┴─────────────────┘
//       └── no answer ──┘                   and back to soliciting, said aloud, at the end
//
// Source: RFC 8415, sections 15, 18.2; the times are those of section 7.6.

import BootPlanning
import WireFormat

public indirect enum DHCPv6Action: Equatable, Sendable {
  /// To ff02::1:2, port 547, from port 546 of the link-local address.
  case send(DHCPv6Message)
  case configure(DHCPv6Lease, replaced: DHCPv6Lease?)
  /// The lease ended without an answer; the client goes on asking.
  case expired(DHCPv6Lease)
  case wait(until: UInt64?)
}

public struct DHCPv6Client: Equatable, Sendable {
  static let solicitWaitMilliseconds: UInt64 = 1000
  static let solicitWaitMaximumMilliseconds: UInt64 = 3_600_000
  static let requestWaitMaximumMilliseconds: UInt64 = 30_000
  static let requestCountMaximum = 10
  static let renewalWaitMilliseconds: UInt64 = 10_000
  static let renewalWaitMaximumMilliseconds: UInt64 = 600_000
  /// An advertisement with this preference is taken at once.
  static let preferenceMaximum: UInt8 = 255

  private struct Attempts: Equatable {
    var count = 0
    var wait: UInt64 = 0
    var next: UInt64
  }

  private struct Holding: Equatable {
    let lease: DHCPv6Lease
    /// Nil: never.
    let renewal: UInt64?
    let rebinding: UInt64
    let end: UInt64
  }

  private enum State: Equatable {
    case soliciting(Attempts, best: DHCPv6Lease?, preference: UInt8)
    case requesting(Attempts, DHCPv6Lease)
    case bound(Holding)
    case renewing(Holding, Attempts)
    case rebinding(Holding, Attempts)
  }

  /// The machine's DUID, as it is to be sent.
  private let identifier: [UInt8]
  /// Tells this interface from others of the machine.
  private let association: UInt32
  private var random: DHCPRandom
  private var state: State
  private var transaction: UInt32 = 0
  private var begin: UInt64
  private var lastRequest: UInt64 = 0
  private var pending: [DHCPv6Action] = []
  public private(set) var held: DHCPv6Lease?

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
    if !pending.isEmpty { return pending.removeFirst() }
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
      lastRequest = now
      return .send(message(.request, of: offer, to: offer.serverIdentifier, at: now))
    case .bound, .renewing, .rebinding:
      return keepUp(at: now)
    }
  }

  private mutating func keepUp(at now: UInt64) -> DHCPv6Action {
    switch state {
    case .bound(let holding):
      guard let renewal = holding.renewal else { return .wait(until: nil) }
      guard now >= renewal else { return .wait(until: renewal) }
      enter(.renewing(holding, Attempts(next: now)), at: now)
      return nextAction(at: now)
    case .renewing(let holding, var attempts):
      guard now < holding.rebinding else {
        enter(.rebinding(holding, Attempts(next: now)), at: now)
        return nextAction(at: now)
      }
      guard now >= attempts.next else {
        return .wait(until: min(attempts.next, holding.rebinding))
      }
      count(&attempts, Self.renewalWaitMilliseconds, Self.renewalWaitMaximumMilliseconds, now)
      state = .renewing(holding, attempts)
      lastRequest = now
      let lease = holding.lease
      return .send(message(.renew, of: lease, to: lease.serverIdentifier, at: now))
    case .rebinding(let holding, var attempts):
      guard now < holding.end else {
        enter(.soliciting(Attempts(next: now), best: nil, preference: 0), at: now)
        return .expired(holding.lease)
      }
      guard now >= attempts.next else { return .wait(until: min(attempts.next, holding.end)) }
      count(&attempts, Self.renewalWaitMilliseconds, Self.renewalWaitMaximumMilliseconds, now)
      state = .rebinding(holding, attempts)
      lastRequest = now
      return .send(message(.rebind, of: holding.lease, to: nil, at: now))
    default: return .wait(until: nil)
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
    for code: DHCPv6Option.Code in [
      .nameServers, .searchDomains, .bootFileURL, .bootFileParameters,
    ] {
      codes.append(bigEndian: code.rawValue)
    }
    message.options.append(DHCPv6Option(.requests, codes))
    var wanted: [UInt8] = []
    wanted.append(bigEndian: association)
    wanted += [0, 0, 0, 0, 0, 0, 0, 0]
    if let address = lease?.address ?? held?.address {
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
      hold(lease)
    case (.reply, .renewing(let holding, _))
    where lease.serverIdentifier == holding.lease.serverIdentifier:
      hold(lease)
    case (.reply, .rebinding): hold(lease)
    default: return false
    }
    return true
  }

  private mutating func hold(_ lease: DHCPv6Lease) {
    pending.append(.configure(lease, replaced: held))
    held = lease
    guard lease.validSeconds != .max else {
      state = .bound(Holding(lease: lease, renewal: nil, rebinding: .max, end: .max))
      return
    }
    let rebinding = min(lease.rebindingSeconds, lease.validSeconds)
    let renewal = min(lease.renewalSeconds, rebinding)
    state = .bound(
      Holding(
        lease: lease, renewal: lastRequest.saturatingAdd(UInt64(renewal) * 1000),
        rebinding: lastRequest.saturatingAdd(UInt64(rebinding) * 1000),
        end: lastRequest.saturatingAdd(UInt64(lease.validSeconds) * 1000)))
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client's side of a lease. Reads no clock and owns no socket: messages and time go in,
// actions come out. Time is in milliseconds of any clock that does not jump.
//
//             discover            offer, request           acknowledgement
//   idle ───────────────► selecting ──────────► requesting ──────────────► bound ◄─────┐
//    ▲                        ▲  ▲                  │ no answer, refusal     │ T1      │
//    │ decline, refusal       │  └──────────────────┘                       ▼         │ acknow-
//    └────────────────────────┼───────────────────────────────────────── renewing ────┤ ledge-
//                             │ expiry (said aloud)                         ▼ T2      │ ment
//                             └───────────────────────────────────────── rebinding ───┘
//
// An address that carries a root device cannot just be given up. When a lease ends all the same
// the client says so and goes on asking for the same address; who configures the interface
// decides what to do meanwhile. Source: RFC 2131, sections 3.1, 4.1, 4.4.

import BootPlanning
import WireFormat

/// What to do next.
public indirect enum DHCPAction: Equatable, Sendable {
  case send(DHCPTransmission)
  /// Configure the interface. `replaced` is the lease held until now: a renewal often changes
  /// nothing but its times.
  case configure(DHCPLease, replaced: DHCPLease?)
  /// A server took back what had been offered or leased; the client begins anew by itself.
  case refused(server: IPv4Address?, message: ByteString)
  /// No server renewed the lease in time: the address may now be given to somebody else. The
  /// client goes on asking for it.
  case expired(DHCPLease)
  /// Nothing until then, unless a message arrives; nil: nothing ever.
  case wait(until: UInt64?)
}

/// Which offer to take.
public enum DHCPOfferRule: Equatable, Sendable {
  /// The first that comes.
  case first
  /// The first with a root path; another one when none came within so many milliseconds of the
  /// first offer.
  case rootPathPreferred(patienceMilliseconds: UInt32)
}

public struct DHCPClient: Equatable, Sendable {
  /// The first wait for an answer. Source: RFC 2131, section 4.1; doubled up to 64 s.
  public static let usualFirstWaitMilliseconds: UInt32 = 4000
  static let doublingMaximum = 4
  /// Then a server that made an offer has changed its mind. Source: RFC 2131, section 3.1.5.
  static let requestCountMaximum = 4
  /// Source: RFC 2131, section 3.1.5 (decline); the same after a refusal, lest two parties that
  /// disagree fill the wire.
  static let restartWaitMilliseconds: UInt64 = 10_000
  /// Source: RFC 2131, section 4.4.5.
  static let renewalWaitMinimumMilliseconds: UInt64 = 60_000
  /// Longer messages of a refusal are cut.
  static let refusalTextByteCountMaximum = 255

  private struct Attempts: Equatable {
    var count = 0
    /// When to send again.
    var next: UInt64
  }

  /// A lease and when its times come; nil: never.
  private struct Holding: Equatable {
    let lease: DHCPLease
    let renewal: UInt64?
    let rebinding: UInt64
    let end: UInt64
  }

  private enum State: Equatable {
    case idle(until: UInt64)
    case selecting(Attempts, kept: DHCPLease?, settled: UInt64?)
    case requesting(Attempts, DHCPLease)
    case bound(Holding)
    case renewing(Holding, next: UInt64)
    case rebinding(Holding, next: UInt64)
    case stopped
  }

  private let identity: DHCPIdentity
  private let rule: DHCPOfferRule
  private let firstWait: UInt64
  private var random: DHCPRandom
  private var state: State
  /// To be handed out before anything else; a few at most.
  private var pending: [DHCPAction] = []
  private var transaction: UInt32 = 0
  /// When asking began, for the field `secs`, and when the last request left, from which a lease
  /// counts.
  private var begin: UInt64
  private var lastRequest: UInt64 = 0
  /// What the interface has been configured with, also after its end.
  public private(set) var held: DHCPLease?
  /// To be asked for in a discover.
  private var wishedAddress: IPv4Address?
  /// Messages sent since something was heard.
  public private(set) var unansweredCount: UInt32 = 0

  /// Begins at once. `seed` makes transactions and waits differ from those of other machines.
  public init(
    _ identity: DHCPIdentity, rule: DHCPOfferRule = .first,
    firstWaitMilliseconds: UInt32 = usualFirstWaitMilliseconds,
    wishedAddress: IPv4Address? = nil, seed: UInt64, at now: UInt64
  ) {
    self.identity = identity
    self.rule = rule
    firstWait = UInt64(max(firstWaitMilliseconds, 100))
    self.wishedAddress = wishedAddress
    random = DHCPRandom(seed: seed)
    begin = now
    state = .idle(until: now)
  }

  /// Goes on with a lease that another process acquired at `leaseBegin`.
  public init(
    _ identity: DHCPIdentity, holding lease: DHCPLease, since leaseBegin: UInt64, seed: UInt64
  ) {
    self.init(identity, seed: seed, at: leaseBegin)
    lastRequest = leaseBegin
    hold(lease)
  }

  // MARK: Time

  /// Ask again and again until it says `wait`.
  public mutating func nextAction(at now: UInt64) -> DHCPAction {
    if !pending.isEmpty { return pending.removeFirst() }
    switch state {
    case .stopped: return .wait(until: nil)
    case .idle(let until):
      guard now >= until else { return .wait(until: until) }
      begin = now
      transaction = random.next32()
      state = .selecting(Attempts(next: now), kept: nil, settled: nil)
      return nextAction(at: now)
    case .selecting(var attempts, let kept, let settled):
      if let kept, let settled, now >= settled {
        request(kept, at: now)
        return nextAction(at: now)
      }
      guard now >= attempts.next else {
        return .wait(until: min(attempts.next, settled ?? .max))
      }
      countAttempt(&attempts, at: now)
      state = .selecting(attempts, kept: kept, settled: settled)
      return broadcast(discover(at: now))
    case .requesting(var attempts, let offer):
      guard now >= attempts.next else { return .wait(until: attempts.next) }
      guard attempts.count < Self.requestCountMaximum else {
        state = .idle(until: now)
        return nextAction(at: now)
      }
      countAttempt(&attempts, at: now)
      state = .requesting(attempts, offer)
      lastRequest = now
      return broadcast(request(for: offer, at: now))
    case .bound, .renewing, .rebinding:
      return keepUp(at: now)
    }
  }

  private mutating func keepUp(at now: UInt64) -> DHCPAction {
    switch state {
    case .bound(let holding):
      guard let renewal = holding.renewal else { return .wait(until: nil) }
      guard now >= renewal else { return .wait(until: renewal) }
      begin = now
      transaction = random.next32()
      state = .renewing(holding, next: now)
      return nextAction(at: now)
    case .renewing(let holding, let next):
      guard now < holding.rebinding else {
        state = .rebinding(holding, next: now)
        return nextAction(at: now)
      }
      guard now >= next else { return .wait(until: min(next, holding.rebinding)) }
      state = .renewing(holding, next: Self.later(now, before: holding.rebinding))
      return send(renewal(of: holding.lease, at: now), to: holding.lease.serverIdentifier)
    case .rebinding(let holding, let next):
      guard now < holding.end else {
        wishedAddress = holding.lease.address
        state = .idle(until: now)
        return .expired(holding.lease)
      }
      guard now >= next else { return .wait(until: min(next, holding.end)) }
      state = .rebinding(holding, next: Self.later(now, before: holding.end))
      return send(renewal(of: holding.lease, at: now), to: IPv4Address(rawValue: .max))
    default: return .wait(until: nil)
    }
  }

  /// Half of what is left, and a minute at least. Source: RFC 2131, section 4.4.5.
  private static func later(_ now: UInt64, before end: UInt64) -> UInt64 {
    let left = end > now ? end - now : 0
    return now.saturatingAdd(max(left / 2, renewalWaitMinimumMilliseconds))
  }

  /// 4, 8, 16, 32, 64, 64 ... seconds, each a second more or less.
  private mutating func countAttempt(_ attempts: inout Attempts, at now: UInt64) {
    let usual = firstWait << UInt64(min(attempts.count, Self.doublingMaximum))
    let spread = firstWait / 4
    attempts.count += 1
    attempts.next = now.saturatingAdd(usual - spread + random.next(below: 2 * spread + 1))
  }

  // MARK: Messages out

  private func seconds(at now: UInt64) -> UInt16 {
    UInt16(truncatingIfNeeded: min(65535, (now > begin ? now - begin : 0) / 1000))
  }

  private func discover(at now: UInt64) -> DHCPMessage {
    var message = identity.message(
      .discover, transaction: transaction, seconds: seconds(at: now))
    if let wishedAddress { message.options.append(DHCPOption(.requestedAddress, wishedAddress)) }
    return message
  }

  private func request(for offer: DHCPLease, at now: UInt64) -> DHCPMessage {
    var message = identity.message(.request, transaction: transaction, seconds: seconds(at: now))
    message.options.append(DHCPOption(.requestedAddress, offer.address))
    message.options.append(DHCPOption(.serverIdentifier, offer.serverIdentifier))
    return message
  }

  /// Neither option 50 nor 54 may be there. Source: RFC 2131, section 4.3.6.
  private mutating func renewal(of lease: DHCPLease, at now: UInt64) -> DHCPMessage {
    lastRequest = now
    var message = identity.message(.request, transaction: transaction, seconds: seconds(at: now))
    message.clientAddress = lease.address
    message.wantsBroadcast = false
    return message
  }

  private mutating func broadcast(_ message: DHCPMessage) -> DHCPAction {
    send(message, to: IPv4Address(rawValue: .max))
  }

  private mutating func send(_ message: DHCPMessage, to server: IPv4Address) -> DHCPAction {
    unansweredCount = unansweredCount == .max ? .max : unansweredCount + 1
    return .send(
      DHCPTransmission(message: message, source: message.clientAddress, destination: server))
  }

  private mutating func request(_ offer: DHCPLease, at now: UInt64) {
    state = .requesting(Attempts(next: now), offer)
  }

  // MARK: Messages in

  /// A datagram with its headers, from a packet socket; false when it was not for this client.
  @discardableResult
  public mutating func received(
    datagram: Span<UInt8>, isChecksumComplete: Bool, at now: UInt64
  ) -> Bool {
    do throws(WireError) {
      let datagram = try UDPDatagram(decoding: datagram, isChecksumComplete: isChecksumComplete)
      guard datagram.destinationPort == DHCPTransmission.clientPort else { return false }
      return received(datagram.payload.span, at: now)
    } catch {
      return false
    }
  }

  /// A message; false when it was not for this client, or nothing that it waits for.
  @discardableResult
  public mutating func received(_ bytes: Span<UInt8>, at now: UInt64) -> Bool {
    let message: DHCPMessage
    do throws(WireError) { message = try DHCPMessage(decoding: bytes) } catch { return false }
    guard isForThisClient(message), let code = message.option(.messageType), code.count == 1,
      let type = DHCPMessageType(rawValue: code[0])
    else { return false }
    let isTaken =
      switch type {
      case .offer: takeOffer(message, at: now)
      case .acknowledgement: takeAcknowledgement(message)
      case .refusal: takeRefusal(message, at: now)
      default: false
      }
    if isTaken { unansweredCount = 0 }
    return isTaken
  }

  /// Servers that do not send option 61 back are older than RFC 6842, which has them do it.
  private func isForThisClient(_ message: DHCPMessage) -> Bool {
    guard message.operation == .reply, message.transaction == transaction,
      message.hardwareAddress == identity.hardwareAddress
    else { return false }
    guard let identifier = message.option(.clientIdentifier) else { return true }
    return identifier == identity.clientIdentifier
  }

  private mutating func takeOffer(_ message: DHCPMessage, at now: UInt64) -> Bool {
    guard case .selecting(let attempts, let kept, let settled) = state,
      let offer = DHCPLease(message)
    else { return false }
    switch rule {
    case .rootPathPreferred(let patience) where offer.rootPath == nil:
      let end = settled ?? now.saturatingAdd(UInt64(patience))
      state = .selecting(attempts, kept: kept ?? offer, settled: end)
    default:
      request(offer, at: now)
    }
    return true
  }

  private mutating func takeAcknowledgement(_ message: DHCPMessage) -> Bool {
    guard let lease = DHCPLease(message) else { return false }
    switch state {
    case .requesting(_, let offer):
      guard lease.address == offer.address, lease.serverIdentifier == offer.serverIdentifier
      else { return false }
    case .renewing(let holding, _), .rebinding(let holding, _):
      guard lease.address == holding.lease.address else { return false }
    default: return false
    }
    pending.append(.configure(lease, replaced: held))
    hold(lease)
    return true
  }

  private mutating func hold(_ lease: DHCPLease) {
    held = lease
    wishedAddress = lease.address
    guard lease.seconds != DHCPLease.infiniteSeconds else {
      state = .bound(Holding(lease: lease, renewal: nil, rebinding: .max, end: .max))
      return
    }
    // Machines that were switched on together shall not renew together.
    let renewal = UInt64(lease.renewalSeconds) * 1000
    let early = random.next(below: renewal / 16 + 1)
    state = .bound(
      Holding(
        lease: lease, renewal: lastRequest.saturatingAdd(renewal - early),
        rebinding: lastRequest.saturatingAdd(UInt64(lease.rebindingSeconds) * 1000),
        end: lastRequest.saturatingAdd(UInt64(lease.seconds) * 1000)))
  }

  /// Only the server that was asked may refuse; while rebinding every server was asked.
  private mutating func takeRefusal(_ message: DHCPMessage, at now: UInt64) -> Bool {
    var server: IPv4Address?
    if let bytes = message.option(.serverIdentifier), bytes.count == 4 {
      server = IPv4Address(rawValue: bytes.span.bigEndian(UInt32.self, at: 0))
    }
    switch state {
    case .requesting(_, let offer):
      guard server == offer.serverIdentifier else { return false }
    case .renewing(let holding, _):
      guard server == holding.lease.serverIdentifier else { return false }
    case .rebinding: break
    default: return false
    }
    let text = message.option(.message) ?? []
    pending.append(
      .refused(
        server: server, message: ByteString(text.prefix(Self.refusalTextByteCountMaximum))))
    wishedAddress = nil
    state = .idle(until: now.saturatingAdd(Self.restartWaitMilliseconds))
    return true
  }

  // MARK: Giving back

  /// Somebody else has the address: says so to the server, and begins anew after ten seconds.
  public mutating func decline(at now: UInt64) {
    guard case .bound(let holding) = state else { return }
    var message = identity.message(.decline, transaction: random.next32(), seconds: 0)
    message.options.append(DHCPOption(.requestedAddress, holding.lease.address))
    message.options.append(DHCPOption(.serverIdentifier, holding.lease.serverIdentifier))
    message.wantsBroadcast = false
    pending.append(broadcast(message))
    held = nil
    wishedAddress = nil
    state = .idle(until: now.saturatingAdd(Self.restartWaitMilliseconds))
  }

  /// Gives the lease back and stops. The message is to be sent while the address is still there.
  public mutating func release() {
    if let lease = held, isBound {
      var message = identity.message(.release, transaction: random.next32(), seconds: 0)
      message.clientAddress = lease.address
      message.options.append(DHCPOption(.serverIdentifier, lease.serverIdentifier))
      message.wantsBroadcast = false
      pending.append(send(message, to: lease.serverIdentifier))
    }
    held = nil
    state = .stopped
  }

  /// Whether there is a lease that has not ended.
  public var isBound: Bool {
    switch state {
    case .bound, .renewing, .rebinding: true
    default: false
    }
  }
}

/// SplitMix64: a stream from a seed that the caller drew. Nothing secret depends on it.
struct DHCPRandom: Equatable, Sendable {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  mutating func next32() -> UInt32 { UInt32(truncatingIfNeeded: next() >> 32) }

  /// 0 up to `bound`, which is above 0; near enough to uniform for waits.
  mutating func next(below bound: UInt64) -> UInt64 { next() % bound }
}

extension UInt64 {
  func saturatingAdd(_ other: UInt64) -> UInt64 {
    let (sum, overflow) = addingReportingOverflow(other)
    return overflow ? .max : sum
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client's side of a lease, until it is there. Reads no clock and owns no socket: messages and
// time go in, actions come out. Time is in milliseconds of any clock that does not jump.
//
//           discover            offer, request           acknowledgement
//   idle ─────────────► selecting ──────────► requesting ────────────────► bound
//    ▲                                            │ no answer: at once
//    └────────────────────────────────────────────┘ refusal: after ten seconds
//
// Nobody renews a lease: an address that carries a root device cannot be given up, so it stays as
// long as the machine runs, and bound is the end. Source: RFC 2131, sections 3.1, 4.1.

import BootPlanning
import WireFormat

/// What to do next.
public indirect enum DHCPAction: Equatable, Sendable {
  case send(DHCPTransmission)
  /// Configure the interface; said once.
  case configure(DHCPLease)
  /// The server took back what it had offered; the client begins anew by itself. `message` is cut
  /// to 255 bytes, and empty when the server gave none.
  case refused(server: IPv4Address, message: ByteString)
  /// Nothing until then, unless a message arrives; nil: nothing ever, for the client is bound.
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

/// Asks for one address for one interface, and stops when it has one. `nextAction` says what to
/// send and when to come back; `received` takes what came.
public struct DHCPClient: Equatable, Sendable {
  /// The first wait for an answer. Source: RFC 2131, section 4.1; doubled up to 64 s.
  public static let usualFirstWaitMilliseconds: UInt32 = 4000
  static let doublingMaximum = 4
  /// Then a server that made an offer has changed its mind. Source: RFC 2131, section 3.1.5.
  static let requestCountMaximum = 4
  /// After a refusal, lest two parties that disagree fill the wire: as long as RFC 2131, section
  /// 3.1.5, has a client wait that declined an address.
  static let restartWaitMilliseconds: UInt64 = 10_000
  /// Longer messages of a refusal are cut.
  static let refusalTextByteCountMaximum = 255

  private struct Attempts: Equatable {
    var count = 0
    /// When to send again.
    var next: UInt64
  }

  private enum State: Equatable {
    case idle(until: UInt64)
    case selecting(Attempts, kept: DHCPLease?, settled: UInt64?)
    case requesting(Attempts, DHCPLease)
    case bound
  }

  private let identity: DHCPIdentity
  private let rule: DHCPOfferRule
  private let firstWait: UInt64
  private var random: DHCPRandom
  private var state: State
  /// To be handed out before anything else.
  private var pending: DHCPAction?
  private var transaction: UInt32 = 0
  /// When asking began, for the field `secs`.
  private var begin: UInt64

  /// Begins at once. `firstWaitMilliseconds` below 100 count as 100. `seed` makes transactions and
  /// waits differ from those of other machines.
  public init(
    _ identity: DHCPIdentity, rule: DHCPOfferRule = .first,
    firstWaitMilliseconds: UInt32 = usualFirstWaitMilliseconds, seed: UInt64, at now: UInt64
  ) {
    self.identity = identity
    self.rule = rule
    firstWait = UInt64(max(firstWaitMilliseconds, 100))
    random = DHCPRandom(seed: seed)
    begin = now
    state = .idle(until: now)
  }

  // MARK: Time

  /// Ask again and again until it says `wait`.
  public mutating func nextAction(at now: UInt64) -> DHCPAction {
    if let action = pending {
      pending = nil
      return action
    }
    switch state {
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
      return .send(DHCPTransmission(message: discover(at: now)))
    case .requesting(var attempts, let offer):
      guard now >= attempts.next else { return .wait(until: attempts.next) }
      guard attempts.count < Self.requestCountMaximum else {
        state = .idle(until: now)
        return nextAction(at: now)
      }
      countAttempt(&attempts, at: now)
      state = .requesting(attempts, offer)
      return .send(DHCPTransmission(message: request(for: offer, at: now)))
    case .bound: return .wait(until: nil)
    }
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
    identity.message(.discover, transaction: transaction, seconds: seconds(at: now))
  }

  private func request(for offer: DHCPLease, at now: UInt64) -> DHCPMessage {
    var message = identity.message(.request, transaction: transaction, seconds: seconds(at: now))
    message.options.append(DHCPOption(.requestedAddress, offer.address))
    message.options.append(DHCPOption(.serverIdentifier, offer.serverIdentifier))
    return message
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
    return switch type {
    case .offer: takeOffer(message, at: now)
    case .acknowledgement: takeAcknowledgement(message)
    case .refusal: takeRefusal(message, at: now)
    default: false
    }
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
    guard case .requesting(_, let offer) = state, let lease = DHCPLease(message),
      lease.address == offer.address, lease.serverIdentifier == offer.serverIdentifier
    else { return false }
    pending = .configure(lease)
    state = .bound
    return true
  }

  /// Only the server that was asked may refuse.
  private mutating func takeRefusal(_ message: DHCPMessage, at now: UInt64) -> Bool {
    guard case .requesting(_, let offer) = state,
      let server = message.option(.serverIdentifier), server == offer.serverIdentifier.bytes
    else { return false }
    let text = message.option(.message) ?? []
    pending = .refused(
      server: offer.serverIdentifier,
      message: ByteString(text.prefix(Self.refusalTextByteCountMaximum)))
    state = .idle(until: now.saturatingAdd(Self.restartWaitMilliseconds))
    return true
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

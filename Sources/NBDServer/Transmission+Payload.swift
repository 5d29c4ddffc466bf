// SPDX-License-Identifier: Apache-2.0
// What follows a WRITE: it is taken whatever is wrong with the request, in pieces when it is long.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol

extension Transmission {
  /// A WRITE whose payload is being taken, or another command that should have none.
  struct Payload {
    var request: ExtendedRequest
    /// Where the next byte goes.
    var offset: UInt64
    var left: UInt64
    /// Of the first piece that failed: the rest is taken all the same.
    var error: ErrorNumber
    /// No newer copy of the request has been seen.
    var isWanted = true
  }

  /// Takes the head of what has a payload; whatever is wrong with it, the payload comes.
  mutating func beginPayload(
    _ request: ExtendedRequest, _ byteCount: UInt64, _ flagError: ErrorNumber
  ) {
    if terms.style == .extended, byteCount > rules.payloadByteCountMaximum {
      _ = endAfterReplies(.payloadTooLong(byteCount))
      return
    }
    var error = flagError
    if request.command != .write { error = .einval }
    // With extended headers a WRITE that does not announce its payload has none.
    if terms.style == .extended, !request.flags.contains(.payloadLength) { error = .einval }
    if error == .none {
      do {
        _ = try rules.check(.write, offset: request.offset, length: byteCount)
      } catch let refusal {
        error = ErrorNumber(refusal, of: .write)
      }
    }
    payload = Payload(request: request, offset: request.offset, left: byteCount, error: error)
  }

  /// How much of a payload is written at once.
  static let pieceByteCount = UInt64(SessionBuffers.inputByteCount / 2)

  /// Writes what has arrived of a payload; false when more has to come.
  mutating func takePayload() throws(SessionEnding) -> Bool {
    while let now = payload, now.left > 0 {
      // What nobody wants is taken off the stream as it comes.
      if now.error != .none || !now.isWanted {
        let count = min(UInt64(arrivals.count), now.left)
        guard count > 0 else { return false }
        arrivals.use(Int(count))
        payload?.left -= count
        continue
      }
      var count = Int(min(Self.pieceByteCount, now.left))
      if arrivals.count < count {
        // What is there makes way for the rest, which then comes to where it belongs.
        guard !receivesIntoPlace(now), mayReceiveInPlace(now) else { return false }
        count = arrivals.count
        if count == 0 { return false }
      }
      // SAFETY: the bytes stay where they are until something is received.
      let piece = unsafe arrivals.next(count)
      var isWanted = try begin(now.request, waits: true) == .execute
      if isWanted, UInt64(count) == now.request.length,
        unsafe beginPending(write: now.request, piece)
      {
        arrivals.use(count)
        payload = nil
        return true
      }
      var error = ErrorNumber.none
      if isWanted {
        do {
          // Durable with its last piece: that makes the earlier ones durable, too.
          let isDurable = now.request.flags.contains(.fua) && UInt64(count) == now.left
          if unsafe isDurable || mapping?.write(piece, at: now.offset) != true {
            try unsafe backend.write(piece, at: now.offset, isDurable: isDurable)
          }
        } catch let failure {
          error = ErrorNumber(failure)
        }
        isWanted = end(now.request)
      }
      arrivals.use(count)
      payload?.offset &+= UInt64(count)
      payload?.left -= UInt64(count)
      payload?.error = error
      payload?.isWanted = isWanted
    }
    if payloadMapping != nil { endReceivingInPlace() }
    if let place = payloadPlace, let now = payload {
      try write(now.request, from: place)
      return true
    }
    guard let done = payload.take(), done.isWanted else { return true }
    finishWrite(done.request, done.error)
    return true
  }

  /// Answers a WRITE that is executed, or refused.
  mutating func finishWrite(_ request: ExtendedRequest, _ error: ErrorNumber) {
    if error == .none {
      tally.writes &+= 1
      tally.writtenBytes &+= request.length
    }
    reply(error, to: request)
  }
}

// Payloads that come to where they belong at once: the medium, if all of it lies in memory, or what
// a disk will write from.
extension Transmission {
  /// A shorter rest is copied: asking for the mapping costs a call, too.
  private static let inPlaceByteCount: UInt64 = 64 << 10

  /// Nobody may wait for what the client has to send first, so an attachment's requests are taken
  /// whole before they begin.
  private mutating func mayReceiveInPlace(_ now: Payload) -> Bool {
    if payloadMapping != nil { return true }
    guard attached == nil, engine.sendsFiles, hasLongRest(now), let mapping = backend.mapping(),
      mapping.isWritable
    else { return false }
    payloadMapping = mapping
    return true
  }

  private func hasLongRest(_ now: Payload) -> Bool {
    now.left >= Self.inPlaceByteCount
      && now.left - UInt64(arrivals.count) >= Self.inPlaceByteCount
  }

  /// False when nothing is there now.
  mutating func receiveInPlace(
    _ now: Payload, _ place: BackendMapping, waits: Bool
  ) throws(SessionEnding) -> Bool {
    precondition(now.offset <= place.byteCount && now.left <= place.byteCount - now.offset)
    if waits { wake(at: Int(min(now.left, Self.wakingByteCountMaximum))) }
    let result = unsafe clinux_recv(
      // SAFETY: inside the mapping, as checked above.
      socket, place.base + Int(now.offset), Int(now.left), waits ? 0 : CInt(clinux_MSG_DONTWAIT))
    if result == -14 {  // EFAULT
      // Somebody cuts the file. What comes now is copied, and the backend says why.
      engine.sendNoFiles()
      payloadMapping = nil
      wake(at: 1)
      return true
    }
    return try hasReceived(result)
  }

  /// Counts what has come of a payload; false when nothing is there now.
  private mutating func hasReceived(_ result: Int) throws(SessionEnding) -> Bool {
    switch -result {
    case ..<0:
      payload?.offset &+= UInt64(result)
      payload?.left -= UInt64(result)
      arrivals.tookElsewhere(result)
    case 0: throw isStopping.isSet ? .serverStopping : .vanished(nil)
    case 4: break  // EINTR
    case 11: return false  // EAGAIN
    default: throw .vanished(SystemError(errno: CInt(-result)))
    }
    return true
  }

  /// Takes a place for a payload of which nothing has been used, and puts into it what has arrived.
  private mutating func receivesIntoPlace(_ now: Payload) -> Bool {
    if payloadPlace != nil { return true }
    guard now.left == now.request.length, hasLongRest(now), pendingTarget(of: now.request) != nil,
      makePending(), let place = pending?.place(of: Int(now.left))
    else { return false }
    let count = arrivals.count
    unsafe place.buffer.copyMemory(from: arrivals.next(count))  // SAFETY: shorter than the place.
    arrivals.use(count)
    payload?.left -= UInt64(count)
    payloadPlace = place
    return true
  }

  /// False when nothing is there now.
  mutating func receive(
    _ now: Payload, into place: TransferMemory.Place, waits: Bool
  ) throws(SessionEnding) -> Bool {
    // SAFETY: what is left is a part of the place, which is as long as the payload.
    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: place.buffer.suffix(Int(now.left)))
    return try hasReceived(
      unsafe clinux_recv(
        socket, rest.baseAddress, rest.count, waits ? 0 : CInt(clinux_MSG_DONTWAIT)))
  }

  /// All of it is there.
  private mutating func write(
    _ request: ExtendedRequest, from place: TransferMemory.Place
  ) throws(SessionEnding) {
    payload = nil
    payloadPlace = nil
    guard try begin(request, waits: true) == .execute else {
      pending?.giveBack(place)
      return
    }
    if beginPending(write: request, from: place) { return }
    let error = unsafe doInPlace(request, place.buffer)  // SAFETY: ours still.
    pending?.giveBack(place)
    if end(request) { finishWrite(request, error) }
  }

  /// The place belongs to the thread: what has come goes back among what has arrived.
  mutating func leavePlace() {
    guard let place = payloadPlace, let now = payload else { return }
    // SAFETY: so much of the place has been filled.
    unsafe arrivals.put(UnsafeRawBufferPointer(rebasing: place.buffer.dropLast(Int(now.left))))
    payload = Payload(
      request: now.request, offset: now.request.offset, left: now.request.length, error: now.error)
    pending?.giveBack(place)
    payloadPlace = nil
  }

  /// TCP wakes whoever waits for every segment otherwise; a mebibyte in two turns was received a tenth
  /// faster. Never more than is to come: the rest would be waited for in vain.
  mutating func wake(at byteCount: Int) {
    guard isTCP, byteCount != wakingByteCount else { return }
    wakingByteCount = byteCount
    // Best effort: at worst it is woken more often.
    _ = clinux_set_option(
      socket, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_RCVLOWAT), CInt(byteCount))
  }

  private static let wakingByteCountMaximum: UInt64 = 512 << 10

  private mutating func endReceivingInPlace() {
    payloadMapping = nil
    wake(at: 1)
    guard payload?.error == ErrorNumber.none, payload?.request.flags.contains(.fua) == true else {
      return
    }
    do { try backend.flush() } catch { payload?.error = ErrorNumber(error) }
  }
}

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
        guard mayReceiveInPlace(now) else { return false }
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
    guard let done = payload.take(), done.isWanted else { return true }
    if done.error == .none {
      tally.writes &+= 1
      tally.writtenBytes &+= done.request.length
    }
    reply(done.error, to: done.request)
    return true
  }
}

// Payloads that come to where they belong at once.
extension Transmission {
  /// A shorter rest is copied: asking for the mapping costs a call, too.
  private static let inPlaceByteCount: UInt64 = 64 << 10

  /// Nobody may wait for what the client has to send first, so an attachment's requests are taken
  /// whole before they begin.
  private mutating func mayReceiveInPlace(_ now: Payload) -> Bool {
    if payloadMapping != nil { return true }
    guard attached == nil, engine.sendsFiles, now.left >= Self.inPlaceByteCount,
      now.left - UInt64(arrivals.count) >= Self.inPlaceByteCount,
      let mapping = backend.mapping(), mapping.isWritable
    else { return false }
    payloadMapping = mapping
    return true
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
    switch -result {
    case ..<0:
      payload?.offset &+= UInt64(result)
      payload?.left -= UInt64(result)
    case 0: throw isStopping.isSet ? .serverStopping : .vanished(nil)
    case 4: break  // EINTR
    case 11: return false  // EAGAIN
    case 14:  // EFAULT: somebody cuts the file. What comes now is copied, and the backend says why.
      engine.sendNoFiles()
      payloadMapping = nil
      wake(at: 1)
    default: throw .vanished(SystemError(errno: CInt(-result)))
    }
    return true
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

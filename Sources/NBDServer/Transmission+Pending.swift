// SPDX-License-Identifier: Apache-2.0
// Requests that wait for a disk, while the others of the connection go on. Their replies leave in
// the order in which the disk is done, which the protocol allows.
//
// Only for clients without an attachment: an attachment wants to know, one by one, what is begun
// and what has ended.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol

extension Transmission {
  var hasPending: Bool { pending?.isEmpty == false }

  /// Has to be called before another thread takes the session over: the ring belongs to one.
  mutating func leaveThread() {
    precondition(!hasPending)
    pending = nil
  }

  /// Begins a READ that has to wait for its medium; false when that has to be done in place.
  mutating func beginPending(read request: ExtendedRequest, _ range: Range<UInt64>) -> Bool {
    guard mayPend, attached == nil, request.length <= UInt64(PendingTransfers.slotByteCount)
    else { return false }
    let place =
      backend.directRange(of: range).map {
        BackendFileRange(descriptor: $0.descriptor, offset: $0.offset)
      } ?? backend.fileRange(of: range)
    guard let place, hasRoomForPending() else { return false }
    do {
      try pending?.read(
        request, Int(request.length), from: place.descriptor, at: place.offset)
      return true
    } catch {
      return false
    }
  }

  /// Begins a WRITE past the page cache, whose whole payload is there; false when that has to be
  /// done in place.
  mutating func beginPending(write request: ExtendedRequest, _ payload: UnsafeRawBufferPointer)
    -> Bool
  {
    guard mayPend, attached == nil, payload.count <= PendingTransfers.slotByteCount,
      let place = backend.directRange(
        of: request.offset..<(request.offset + UInt64(payload.count))),
      hasRoomForPending()
    else { return false }
    do {
      try lookForClient()
      // SAFETY: the bytes are copied before the call returns.
      try unsafe pending?.write(
        request, payload, to: place.descriptor, at: place.offset,
        isDurable: place.isSync || request.flags.contains(.fua))
      return true
    } catch {
      return false
    }
  }

  private mutating func hasRoomForPending() -> Bool {
    if pending == nil {
      do { pending = try PendingTransfers() } catch { mayPend = false }
    }
    return pending?.hasRoom == true
  }

  /// Answers what has ended.
  mutating func collectPending() throws(SessionEnding) {
    while let ended = pending?.next() ?? nil {
      // SAFETY: the buffer is the slot's until `finish`.
      let buffer = unsafe ended.buffer
      var error = ErrorNumber.none
      if ended.result != buffer.count { error = unsafe doInPlace(ended.request, buffer) }
      _ = try makeRoom(for: ReplyStyle.headByteCountMaximum, waits: true)
      if ended.request.command == .read && error == .none {
        replyHead(of: ended.request, byteCount: buffer.count)
        unsafe replies.append(buffer)  // SAFETY: kept until `send` says that it is sent.
        pending?.keepUntilSent(ended)
        tally.reads &+= 1
        tally.readBytes &+= UInt64(buffer.count)
      } else {
        reply(error, to: ended.request)
        pending?.finish(ended)
        if error == .none {
          tally.writes &+= 1
          tally.writtenBytes &+= UInt64(buffer.count)
        }
      }
    }
  }

  /// What went wrong in the ring is tried again by the backend, which knows what to call it.
  private func doInPlace(
    _ request: ExtendedRequest, _ buffer: UnsafeMutableRawBufferPointer
  ) -> ErrorNumber {
    do {
      if request.command == .read {
        try unsafe backend.read(into: buffer, at: request.offset)
      } else {
        try unsafe backend.write(
          UnsafeRawBufferPointer(buffer), at: request.offset,
          isDurable: request.flags.contains(.fua))
      }
      return .none
    } catch {
      return ErrorNumber(error)
    }
  }

  /// Waits until the disk is done with something or the client has sent something, which is taken, or
  /// has ended its stream.
  mutating func waitForPending(takesRequests: Bool) throws(SessionEnding) {
    let takesRequests = takesRequests && pending?.hasRoom == true
    if takesRequests {
      do {
        if try receive(waits: false) { return }
      } catch {
        guard error == .closedByClient || error == .vanished(nil) else { throw error }
        // The client sends nothing more, but may still listen: what it asked for is answered first.
        ending = error
        return
      }
    }
    do {
      try pending?.wait(orFor: takesRequests ? socket : nil)
    } catch {
      throw .notSetUp(error)
    }
  }

  /// Waits for everything and answers nothing: the kernel may still write into the memory.
  mutating func discardPending() {
    pending?.finishSent()
    while hasPending {
      do { try pending?.wait(orFor: nil) } catch { pause(milliseconds: 10) }
      while let ended = pending?.next() ?? nil { pending?.finish(ended) }
    }
    pending = nil
  }
}

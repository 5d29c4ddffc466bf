// SPDX-License-Identifier: Apache-2.0
// Requests that wait for a disk, while the others of the connection go on. Their replies leave in
// the order in which the disk is done, which the protocol allows.
//
//   begin ──► the disk ──► settled: end ──► collected: replied ──► sent
//
// Whoever takes the place of a connection waits for the ends of what it has begun, so nothing may
// wait for the client while there are such: not the thread, either, once there is an attachment.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol

extension Transmission {
  var hasPending: Bool { pending?.isEmpty == false }

  /// Has to be called before another thread takes the session over: the ring belongs to one.
  mutating func leaveThread() {
    precondition(!hasPending)
    leavePlace()
    pending = nil
    mayNotWaitInSocket = false  // The reactor's sockets do not wait anyway.
    wake(at: 1)  // It wants to see whatever comes.
  }

  /// Between `begin` and `end`. Begins a READ that has to wait for its medium; false when that has to
  /// be done in place. `settlePending` calls `end`. `inPlace`: nothing else will come meanwhile, so
  /// it is done here, in the memory of a transfer.
  mutating func beginPending(
    read request: ExtendedRequest, _ range: Range<UInt64>, inPlace: Bool
  ) -> Bool {
    guard mayPend, request.length <= UInt64(TransferMemory.longestByteCount)
    else { return false }
    let place =
      backend.directRange(of: range).map {
        BackendFileRange(descriptor: $0.descriptor, offset: $0.offset)
      } ?? backend.fileRange(of: range)
    guard let place, makePending() else { return false }
    if inPlace, !hasPending,
      let ended = pending?.readNow(
        request, Int(request.length), from: place.descriptor, at: place.offset)
    {
      settle(ended)
      return true
    }
    // What fails is done in place.
    let isBegun = try? pending?.read(
      request, Int(request.length), from: place.descriptor, at: place.offset)
    return isBegun == true
  }

  /// As above, a WRITE past the page cache whose whole payload is there.
  mutating func beginPending(write request: ExtendedRequest, _ payload: UnsafeRawBufferPointer)
    -> Bool
  {
    guard let target = pendingTarget(of: request), makePending() else { return false }
    // SAFETY: the bytes are copied before the call returns.
    let isBegun = unsafe try? pending?.write(request, copying: payload, to: target)
    return isBegun == true
  }

  /// The same of one that has been received into a place of `pending`; false when it is still there.
  mutating func beginPending(
    write request: ExtendedRequest, from place: TransferMemory.Place
  ) -> Bool {
    guard let pending, pending.hasRoom, let target = pendingTarget(of: request), makePending()
    else { return false }
    return (try? pending.write(request, place, to: target)) != nil
  }

  /// Where a WRITE goes past the page cache; nil when it is not to wait for the disk there.
  func pendingTarget(of request: ExtendedRequest) -> BackendDirectRange? {
    guard mayPend, request.length <= UInt64(TransferMemory.longestByteCount),
      var target = backend.directRange(of: request.offset..<(request.offset + request.length))
    else { return nil }
    if request.flags.contains(.fua) { target.isSync = true }
    return target
  }

  /// Whether there is a ring, and save calls do not wait in place.
  mutating func makePending() -> Bool {
    if pending == nil {
      do { pending = try PendingTransfers() } catch { mayPend = false }
    }
    guard pending != nil else { return false }
    hasUsedDisk = true
    if attached != nil, !mayNotWaitInSocket {
      guard clinux_set_blocking(socket, 0) == 0 else { return false }
      mayNotWaitInSocket = true
    }
    return true
  }

  /// The disk gets what was begun, whatever comes next: a client that is never quiet, or something
  /// that takes its time.
  mutating func submitPending() {
    guard hasPending else { return }
    // What fails here fails again where it is waited for, and is told there.
    try? pending?.submit()
  }

  /// Waits in place save calls. Before the thread waits for the client, with nothing on the disk.
  mutating func waitInSocketAgain() {
    guard mayNotWaitInSocket, !hasPending else { return }
    if clinux_set_blocking(socket, 1) == 0 { mayNotWaitInSocket = false }
  }

  /// Until the socket may take more, or the disk is done with something.
  mutating func waitToSend() throws(SessionEnding) {
    guard pending != nil else {
      // The socket would not be told to wait again.
      _ = clinux_poll(socket, CShort(clinux_POLLOUT), -1)
      return
    }
    do {
      try pending?.wait(orToWriteTo: socket)
    } catch {
      throw .notSetUp(error)
    }
    settlePending()
  }

  /// Ends what the disk is done with. Never waits for the client.
  private mutating func settlePending() {
    while let ended = pending?.next() ?? nil { settle(ended) }
  }

  private mutating func settle(_ ended: PendingTransfers.Ended) {
    // SAFETY: the buffer is the slot's until `finish`.
    let buffer = unsafe ended.buffer
    var error = ErrorNumber.none
    if ended.result != buffer.count { error = unsafe doInPlace(ended.request, buffer) }
    pending?.settle(ended, error, isWanted: end(ended.request))
  }

  /// One lot of answers: what the client asks for meanwhile is handed to the disk before the others
  /// are made. All at once, the disk had little to do while they left: with 32 short reads in flight
  /// it did a tenth less, with 16 of 128 KiB a fifth.
  private static let lotCount = 8
  private static let lotByteCount = 512 << 10

  /// Answers what has ended, a lot at most.
  mutating func collectPending() {
    settlePending()
    var count = 0
    var byteCount = 0
    while count < Self.lotCount, byteCount < Self.lotByteCount,
      !replies.mustLeave(before: ReplyStyle.headByteCountMaximum)
    {
      guard let settled = pending?.nextSettled() ?? nil else { return }
      guard settled.isWanted else {
        pending?.finish(settled.slot)
        continue
      }
      let dataByteCount = unsafe settled.buffer.count
      count += 1
      byteCount += dataByteCount
      if settled.request.command == .read && settled.error == .none {
        replyHead(of: settled.request, byteCount: dataByteCount)
        unsafe replies.append(settled.buffer)  // SAFETY: kept until `send` says that it is sent.
        pending?.keepUntilSent(settled.slot)
        tally.reads &+= 1
        tally.readBytes &+= UInt64(dataByteCount)
      } else {
        finishWrite(settled.request, settled.error)  // Or a READ that has failed.
        pending?.finish(settled.slot)
      }
    }
  }

  /// What went wrong in the ring is tried again by the backend, which knows what to call it.
  func doInPlace(
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

  /// Takes what the client has sent, or waits until it has sent something, there is something to
  /// collect, or it has ended its stream.
  mutating func waitForPending(takesRequests: Bool) throws(SessionEnding) {
    let hasSettled = pending?.hasSettled == true
    let takesRequests = takesRequests && pending?.hasRoom == true
    if takesRequests {
      do {
        if try receive(waits: false) {
          mapping = nil
          loneCount = 0
          return
        }
      } catch {
        guard error == .closedByClient || error == .vanished(nil) || error == .serverStopping else {
          throw error
        }
        // Nothing more is taken, but the client may still listen: what it asked for is answered first.
        ending = error
        return
      }
    }
    if hasSettled { return }
    do {
      try pending?.wait(orToReadFrom: takesRequests ? socket : nil)
    } catch {
      throw .notSetUp(error)
    }
  }

  /// Waits for everything and answers nothing: the kernel may still write into the memory.
  mutating func discardPending() {
    pending?.finishSent()
    while let settled = pending?.nextSettled() ?? nil { pending?.finish(settled.slot) }
    while hasPending {
      do { try pending?.wait(orToReadFrom: nil) } catch { pause(milliseconds: 10) }
      while let ended = pending?.next() ?? nil {
        _ = end(ended.request)
        pending?.finish(ended.slot)
      }
    }
    payloadPlace = nil
    pending = nil
  }
}

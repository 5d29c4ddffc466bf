// SPDX-License-Identifier: Apache-2.0
// The end of a system whose server is away. The kernel's driver has no way to let requests go that
// wait for a connection: what it is told of the time to wait holds for later ones, and a disconnect
// waits for them. So it is given a connection, to this process, which answers every request with
// an error.

import CLinux
import LinuxSystem
import NBDDriver
import NBDProtocol
import NetlinkProtocol
import WireFormat

extension Keeper {
  /// A connection is there, and its server answers.
  var hasServer: Bool { isServed() && probe?.isTold != true }

  mutating func lookForShutdown() {
    let hasServer = hasServer
    guard shutdown.look(isServed: hasServer, at: MonotonicTime.now) else { return }
    for slot in slots {
      slot.attempt.close()
      if slot.descriptor >= 0 { clinux_cut_connection(slot.descriptor) }
      forget(slot)
    }
    refuseRequests()
    isOver = true
  }

  /// Until the device is gone, or the machine.
  private mutating func refuseRequests() {
    var peer: CInt = -1
    while true {
      _ = shutdown.look(isServed: false, at: MonotonicTime.now)
      if peer < 0 {
        peer = offerRefusal()
        if isOver { return }
        if peer < 0 {
          pause(milliseconds: ShutdownWatch.lookMilliseconds)
          continue
        }
      }
      let seen = clinux_poll(
        peer, CShort(clinux_POLLIN), CInt(ShutdownWatch.lookMilliseconds))
      if seen > 0, !refuse(peer) {
        // Not taken, because the kernel thought all others alive; or it is done with this one.
        _ = clinux_close(peer)
        peer = -1
        pause(milliseconds: 100)
      }
    }
  }

  /// Our end of a connection that the kernel has been given; -1 when it could not be.
  private mutating func offerRefusal() -> CInt {
    var theirs: CInt = -1
    var ours: CInt = -1
    guard unsafe clinux_socket_pair(&theirs, &ours) == 0 else { return -1 }  // SAFETY: ours.
    sequence &+= 1
    refusal.set(sequence: sequence, socket: theirs)
    let error = ask(refusal.bytes)
    _ = clinux_close(theirs)
    if error == 0 { return ours }
    if error == SystemError.invalidArgument.errno { isOver = true }  // It was detached.
    _ = clinux_close(ours)
    return -1
  }

  /// Answers what is there; false when the stream has ended.
  private mutating func refuse(_ peer: CInt) -> Bool {
    while true {
      // SAFETY: the buffer's own storage.
      let count = unsafe clinux_recv(peer, datagram.baseAddress!, datagram.count, 0)
      if count == -Int(SystemError.tryAgain.errno) { return true }
      if count == -Int(SystemError.interrupted.errno) { continue }
      guard count > 0 else { return false }
      // SAFETY: `count` bytes were received.
      let bytes = unsafe datagram.span.extracting(first: count)
      var position = 0
      events: while true {
        switch refused.next(bytes, at: &position) {
        case .needsMore: break events
        case .ended: return false
        case .refused(let cookie):
          guard Self.send(refusalOf: cookie, to: peer) else { return false }
        }
      }
    }
  }

  private static func send(refusalOf cookie: UInt64, to peer: CInt) -> Bool {
    var reply = InlineArray<16, UInt8>(repeating: 0)
    RefusedRequests.reply(to: cookie, into: &reply)
    while true {
      var bytes = reply.mutableSpan
      let sent = unsafe bytes.withUnsafeMutableBufferPointer { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_send(peer, raw.baseAddress!, raw.count, 0)
      }
      // A Unix socket takes so few bytes whole or not at all.
      if sent == reply.count { return true }
      guard
        sent == -Int(SystemError.tryAgain.errno) || sent == -Int(SystemError.interrupted.errno)
      else { return false }
      _ = clinux_poll(peer, CShort(clinux_POLLOUT), 1000)
    }
  }
}

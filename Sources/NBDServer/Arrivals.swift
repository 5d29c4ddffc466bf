// SPDX-License-Identifier: Apache-2.0
// What has arrived from a client and has not been used yet.
//
//   memory  |--used--|==requests and payloads==|----free----|

import CLinux
import LinuxSystem

@safe struct Arrivals: ~Copyable {
  /// Not more is received at once unless a payload needs it: the rest stays untouched.
  private static let receiveByteCount = 256 << 10
  /// From a client that is alone, so that it has answers to work on while the rest is served.
  private static let aloneByteCount = 32 << 10

  /// A client that is alone and has let wait for no longer the last time is waited for awake for so
  /// long: to put a thread to sleep and to wake it costs both ends more than a short request.
  private static let awakeNanoseconds: UInt64 = 100_000
  /// Otherwise it would keep the processor from whoever is waited for.
  private static let mayStayAwake = clinux_processor_count() > 1

  private let socket: CInt
  /// SAFETY of all uses: the lender of the buffers keeps them until `isEmpty`.
  @unsafe private var memory: UnsafeMutableRawPointer?
  private var start = 0
  private var end = 0
  /// Of the last receive from a client that was alone, in a thread that may wait.
  private var waitedNanoseconds = UInt64.max
  /// All that was taken off the socket, the handshake included.
  private(set) var takenByteCount: UInt64

  init(socket: CInt, takenByteCount: UInt64) {
    self.socket = socket
    self.takenByteCount = takenByteCount
  }

  var count: Int { end - start }
  var isEmpty: Bool { end == start }

  mutating func lend(_ buffers: SessionBuffers?) {
    precondition(isEmpty)
    start = 0
    end = 0
    unsafe memory = buffers?.input
  }

  /// What was taken off the socket before, while nothing else is here.
  mutating func put(_ bytes: UnsafeRawBufferPointer) {
    precondition(isEmpty && bytes.count <= SessionBuffers.inputByteCount)
    // SAFETY: checked in the line above; memory is lent.
    unsafe UnsafeMutableRawBufferPointer(start: memory!, count: bytes.count).copyMemory(from: bytes)
    start = 0
    end = bytes.count
  }

  /// So many bytes were taken off the socket to somewhere else.
  mutating func tookElsewhere(_ byteCount: Int) { takenByteCount &+= UInt64(byteCount) }

  /// The next bytes, which are there; valid until the next `receive`.
  func next(_ byteCount: Int) -> UnsafeRawBufferPointer {
    precondition(byteCount <= count)
    // SAFETY: checked in the line above.
    return unsafe UnsafeRawBufferPointer(start: memory! + start, count: byteCount)
  }

  mutating func use(_ byteCount: Int) { start += byteCount }

  /// Receives once: how many bytes came, 0 at the end of the stream, nil when there are none now.
  /// `wanted`, at most half of the memory: so many bytes are to be there in one piece in the end.
  /// `isAlone`: nobody else is busy.
  /// `sleeps`: it is waited for asleep in any case.
  mutating func receive(
    wanted: Int, isAlone: Bool, waits: Bool, sleeps: Bool
  ) throws(SystemError) -> Int? {
    let usual = max(wanted, isAlone ? Self.aloneByteCount : Self.receiveByteCount)
    if start == end {
      start = 0
      end = 0
    } else if start + usual > SessionBuffers.inputByteCount {
      // SAFETY: both ranges lie in the memory; memmove(3) allows that they overlap.
      unsafe memory!.copyMemory(from: memory! + start, byteCount: count)
      end = count
      start = 0
    }
    precondition(count < usual, "what is there is used first")
    // Of a long payload exactly the rest: what follows it then begins at the start, unmoved.
    let missing = wanted - count
    let room = missing >= 65536 ? missing : usual - count
    let isTimed = waits && isAlone
    let began = isTimed ? MonotonicTime.now.nanoseconds : 0
    var isAwake =
      isTimed && !sleeps && waitedNanoseconds < Self.awakeNanoseconds && Self.mayStayAwake
    while true {
      // SAFETY: `start` + `wanted` and the receive size are inside the memory, as seen to above.
      let received = unsafe clinux_recv(
        socket, memory! + end, room, waits && !isAwake ? 0 : CInt(clinux_MSG_DONTWAIT))
      if received >= 0 {
        if isTimed { waitedNanoseconds = MonotonicTime.now.nanoseconds &- began }
        end += received
        takenByteCount &+= UInt64(received)
        return received
      }
      if received == -11 {  // EAGAIN
        guard isAwake else { return nil }
        isAwake = MonotonicTime.now.nanoseconds &- began < Self.awakeNanoseconds
        continue
      }
      if received != -4 { throw SystemError(errno: CInt(-received)) }
    }
  }
}

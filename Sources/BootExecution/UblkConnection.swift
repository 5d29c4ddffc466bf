// SPDX-License-Identifier: Apache-2.0
// One connection of a device whose data we carry: its socket, what is on its way out, and where
// the stream of replies stands.

import CLinux
import LinuxSystem
import NBDProtocol
import UblkDriver
import WireFormat

@safe struct UblkConnection {
  enum State: Equatable {
    case absent
    case live
    /// Cut; its descriptor is closed once the ring has let go of it.
    case ending(LossReason)
  }
  /// Each way. A request of 512 KiB passes in pieces; what is larger only fills caches.
  static let pieceByteCount = 128 << 10
  /// Data begin on one in memory, as they do in the device: a copy to a few bytes ahead of its source,
  /// counted within a page, takes AMD's Zen 3 and 4 three times as long. Over TCP and without
  /// alignment, one such distance would stay as long as the stream is full.
  static let pageByteCount = 4096
  /// One page more, for what comes before the data.
  private static let bufferByteCount = pieceByteCount + pageByteCount

  var state = State.absent
  var socket: CInt = -1
  var reader = ReplyReader()
  /// A receive is queued in the ring, or a wait until there is room to send.
  var isReceiving = false
  var isBlocked = false
  /// When anything was last received, or sent after a wait for room. Nanoseconds.
  var heardNanoseconds: UInt64 = 0
  /// When an absent connection is to be asked for.
  var stepNanoseconds: UInt64 = 0

  // SAFETY: taken once and never given back: both live as long as the process.
  let input: UnsafeMutableBufferPointer<UInt8>
  let output: UnsafeMutableBufferPointer<UInt8>
  var outputStart = 0
  var outputEnd = 0
  /// The write whose data are being sent, and how many of them are in `output` or beyond.
  var sendingTag: UInt16?
  var sendingDone: UInt32 = 0
  var sendingLength: UInt32 = 0

  init() {
    unsafe input = Self.buffer()
    unsafe output = Self.buffer()
  }

  private static func buffer() -> UnsafeMutableBufferPointer<UInt8> {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: bufferByteCount, alignment: pageByteCount)
    return unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// Where what comes next is received, until the reader has seen it.
  var inputRoom: UnsafeMutableBufferPointer<UInt8> {
    let start = reader.placeInPage(of: Self.pageByteCount)
    // SAFETY: at most a page into a buffer that is a page longer than a piece.
    return unsafe UnsafeMutableBufferPointer(
      rebasing: input[start..<(start + Self.pieceByteCount)])
  }

  /// Ready for one more request: nothing waits for room.
  var takesRequests: Bool { state == .live && !isBlocked && sendingTag == nil }
  var hasOutput: Bool { outputStart < outputEnd || sendingTag != nil }
  var room: Int { Self.bufferByteCount &- outputEnd }

  mutating func begin(_ descriptor: CInt, at nanoseconds: UInt64) {
    socket = descriptor
    state = .live
    reader = ReplyReader()
    heardNanoseconds = nanoseconds
    forgetOutput()
  }

  mutating func forgetOutput() {
    outputStart = 0
    outputEnd = 0
    sendingTag = nil
  }

  /// Source: NBD `doc/proto.md`, "Request message". All big-endian, into room that is there.
  mutating func append(_ request: Request) {
    if outputEnd == 0 {
      outputStart = Self.pageByteCount &- Request.byteCount
      outputEnd = outputStart
    }
    put(
      UInt64(Request.magic) << 32 | UInt64(request.flags.rawValue) << 16
        | UInt64(request.command.rawValue))
    put(request.cookie)
    put(request.offset)
    put(UInt64(request.length) << 32)
    outputEnd &-= 4
  }

  private mutating func put(_ value: UInt64) {
    // SAFETY: the caller saw to the room; unaligned stores are what this call is for.
    unsafe UnsafeMutableRawPointer(output.baseAddress! + outputEnd).storeBytes(
      of: value.bigEndian, as: UInt64.self)
    outputEnd &+= 8
  }

  /// Moves data of the write that is being sent into the room there is. False when the device has
  /// taken the request away: the stream then lacks what its header promised.
  mutating func fill(from queue: borrowing UblkQueue) -> Bool {
    guard let tag = sendingTag else { return true }
    let count = min(Int(sendingLength &- sendingDone), room)
    guard count > 0 else { return true }
    let taken = unsafe queue.takeData(
      tag, offset: sendingDone,
      into: UnsafeMutableRawBufferPointer(start: output.baseAddress! + outputEnd, count: count))
    guard taken > 0 else { return false }
    outputEnd &+= taken
    sendingDone &+= UInt32(truncatingIfNeeded: taken)
    return true
  }
}

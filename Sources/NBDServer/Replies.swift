// SPDX-License-Identifier: Apache-2.0
// Replies on their way to a client, in order: heads and copied data lie in memory, other data is
// sent from where it lies, in other memory or in a file.
//
//   memory  |=head data head=|=head=|----free----|
//   pieces                   ^      ^ bytes of a mapping, of a transfer's memory or of a file
//
// As much as the socket takes leaves at once; where it takes no more, the rest waits.

import BlockBackends
import CLinux
import LinuxSystem

@safe struct Replies: ~Copyable {
  /// Bytes that follow the first `memoryEnd` bytes of memory.
  @safe struct Piece {
    var memoryEnd = 0
    var left = 0
    /// Of a file; or else `address`.
    var descriptor: CInt = -1
    var offset: Int64 = 0
    @unsafe var address: UnsafeMutableRawPointer?
  }

  private let socket: CInt
  private let isTCP: Bool
  /// SAFETY of all uses: the lender of the buffers keeps them until `isEmpty`.
  @unsafe private var memory: UnsafeMutableRawPointer?
  @unsafe private var pieces: UnsafeMutablePointer<Piece>?
  @unsafe private var parts: UnsafeMutablePointer<iovec>?
  private var end = 0
  private var sent = 0
  private var pieceCount = 0
  private var pieceIndex = 0
  private var pieceByteCount = 0

  init(socket: CInt, isTCP: Bool) {
    self.socket = socket
    self.isTCP = isTCP
  }

  var isEmpty: Bool { end == 0 }
  /// What waits to be sent, and lies in memory.
  var memoryByteCount: Int { end }

  mutating func lend(_ buffers: SessionBuffers?) {
    precondition(isEmpty)
    unsafe memory = buffers?.output
    unsafe pieces = buffers?.pieces
    unsafe parts = buffers?.parts
  }

  /// Whether replies should leave before one with so many bytes in memory is appended.
  func mustLeave(before byteCount: Int) -> Bool {
    end > 0
      && (end + byteCount > SessionBuffers.outputByteCountTarget
        || pieceByteCount >= SessionBuffers.pieceByteCountTarget
        || pieceCount == SessionBuffers.pieceCountMaximum)
  }

  /// Room for `byteCount` bytes behind what waits; `append` makes them a part of the replies. The
  /// caller has asked `mustLeave` about them, and about nothing since.
  func room(for byteCount: Int, after skipped: Int = 0) -> UnsafeMutableRawBufferPointer {
    precondition(end + skipped + byteCount <= SessionBuffers.outputByteCount)
    // SAFETY: checked in the line above; memory is lent while replies are made.
    return unsafe UnsafeMutableRawBufferPointer(
      start: memory! + end + skipped, count: byteCount)
  }

  /// What has been put into `room` is to be sent.
  mutating func append(_ byteCount: Int) { end += byteCount }

  /// Bytes of a file are to be sent next. The file stays open until they are.
  mutating func append(_ range: BackendFileRange, byteCount: Int) {
    var piece = Piece()
    piece.descriptor = range.descriptor
    piece.offset = Int64(range.offset)
    append(piece, byteCount)
  }

  /// Bytes of a mapping are to be sent next, which stays until they are. They lie inside it.
  mutating func append(_ mapping: BackendMapping, at offset: UInt64, byteCount: Int) {
    precondition(offset <= mapping.byteCount && byteCount <= mapping.byteCount - offset)
    var piece = Piece()
    unsafe piece.address = mapping.base + Int(offset)  // SAFETY: checked in the first line.
    append(piece, byteCount)
  }

  /// Bytes of other memory are to be sent next, which stays until they are.
  mutating func append(_ bytes: UnsafeMutableRawBufferPointer) {
    var piece = Piece()
    unsafe piece.address = bytes.baseAddress  // SAFETY: the caller's promise.
    append(piece, bytes.count)
  }

  private mutating func append(_ piece: Piece, _ byteCount: Int) {
    precondition(pieceCount < SessionBuffers.pieceCountMaximum)
    var piece = piece
    piece.memoryEnd = end
    piece.left = byteCount
    // SAFETY: checked in the first line; memory is lent while replies are made.
    unsafe pieces![pieceCount] = piece
    pieceCount += 1
    pieceByteCount += byteCount
  }

  enum Failure: Error {
    case socket(SystemError)
    /// The data cannot be sent, and the head before them has left. Nil: the file ended.
    case file(SystemError?)
  }

  /// Sends what waits; false when the socket takes no more now. `waits`: it is waited for; a
  /// blocking socket waits for files, too.
  mutating func send(waits: Bool) throws(Failure) -> Bool {
    let flags: CInt = waits ? 0 : CInt(clinux_MSG_DONTWAIT)
    while sent < end || pieceIndex < pieceCount {
      // SAFETY: below the count.
      let isFile =
        unsafe pieceIndex < pieceCount && pieces![pieceIndex].descriptor >= 0
        && pieces![pieceIndex].memoryEnd == sent
      guard isFile ? try sendFile() : try sendParts(flags) else { return false }
    }
    end = 0
    sent = 0
    pieceCount = 0
    pieceIndex = 0
    pieceByteCount = 0
    return true
  }

  /// Over TCP, data that are as long as this leave in a call of their own, behind their head: of a
  /// stream of mebibytes that made a twentieth more. Over a Unix socket it made less.
  private static let longByteCount = 512 << 10

  /// Sends everything up to the next file, or up to the next long data, in one call.
  private mutating func sendParts(_ flags: CInt) throws(Failure) -> Bool {
    var flags = flags
    var count = 0
    var at = sent
    var index = pieceIndex
    // SAFETY: at most two for each piece and one more are used, and so many there are; pieces and
    // memory are as long as they say.
    while true {
      let stop = unsafe index < pieceCount ? pieces![index].memoryEnd : end
      if at < stop {
        unsafe parts![count] = iovec(iov_base: memory! + at, iov_len: stop - at)
        count += 1
        at = stop
      }
      if index == pieceCount { break }
      let piece = unsafe pieces![index]
      if piece.descriptor >= 0 || (isTCP && count > 0 && piece.left >= Self.longByteCount) {
        flags |= CInt(clinux_MSG_MORE)
        break
      }
      if piece.left > 0 {
        unsafe parts![count] = iovec(iov_base: piece.address, iov_len: piece.left)
        count += 1
      }
      index += 1
    }
    let result =
      count == 1
      ? unsafe clinux_send(socket, parts![0].iov_base, parts![0].iov_len, flags)
      : unsafe clinux_send_pieces(socket, parts!, count, flags)
    switch -result {
    case ...0:
      advance(result)
      return true
    case 4: return true  // EINTR: once more.
    case 11: return false  // EAGAIN
    case 14: throw .file(SystemError(errno: 14))  // EFAULT: the mapping has lost its file.
    default: throw .socket(SystemError(errno: CInt(-result)))
    }
  }

  /// So many bytes have left.
  private mutating func advance(_ count: Int) {
    var left = count
    // SAFETY: indices below the count.
    while true {
      let stop = unsafe pieceIndex < pieceCount ? pieces![pieceIndex].memoryEnd : end
      let fromMemory = min(left, stop - sent)
      sent += fromMemory
      left -= fromMemory
      guard sent == stop, pieceIndex < pieceCount, unsafe pieces![pieceIndex].descriptor < 0 else {
        return
      }
      let part = unsafe min(left, pieces![pieceIndex].left)
      unsafe pieces![pieceIndex].left -= part
      unsafe pieces![pieceIndex].address = unsafe pieces![pieceIndex].address! + part
      left -= part
      guard unsafe pieces![pieceIndex].left == 0 else { return }
      pieceIndex += 1
    }
  }

  private mutating func sendFile() throws(Failure) -> Bool {
    while unsafe pieces![pieceIndex].left > 0 {
      // SAFETY: an element of the list, changed in place.
      let count = unsafe clinux_sendfile(
        socket, pieces![pieceIndex].descriptor, &pieces![pieceIndex].offset,
        pieces![pieceIndex].left)
      if count > 0 {
        unsafe pieces![pieceIndex].left -= count
        continue
      }
      switch -count {
      case 0: throw .file(nil)
      case 4: continue  // EINTR
      case 11: return false  // EAGAIN
      case 32, 104, 110, 113: throw .socket(SystemError(errno: CInt(-count)))
      default: throw .file(SystemError(errno: CInt(-count)))
      }
    }
    pieceIndex += 1
    return true
  }
}

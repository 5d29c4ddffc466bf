// SPDX-License-Identifier: Apache-2.0
// Replies on their way to a client, in order: heads and copied data lie in memory, other data is
// sent from the file that it lies in.
//
//   memory  |=head data head=|=head=|----free----|
//   files                    ^ bytes of a file   ^ bytes of a file
//
// As much as the socket takes leaves at once; where it takes no more, the rest waits.

import BlockBackends
import CLinux
import LinuxSystem

@safe struct Replies: ~Copyable {
  /// Bytes of a file that follow the first `memoryEnd` bytes of memory.
  struct FilePiece {
    var memoryEnd = 0
    var descriptor: CInt = -1
    var offset: Int64 = 0
    var left = 0
  }

  private let socket: CInt
  /// SAFETY of all uses: the lender of the buffers keeps them until `isEmpty`.
  @unsafe private var memory: UnsafeMutableRawPointer?
  @unsafe private var files: UnsafeMutablePointer<FilePiece>?
  private var end = 0
  private var sent = 0
  private var fileCount = 0
  private var fileIndex = 0
  private var fileByteCount = 0

  init(socket: CInt) { self.socket = socket }

  var isEmpty: Bool { end == 0 }
  /// What waits to be sent, and lies in memory.
  var memoryByteCount: Int { end }

  mutating func lend(_ buffers: SessionBuffers?) {
    precondition(isEmpty)
    unsafe memory = buffers?.output
    unsafe files = buffers?.filePieces
  }

  /// Whether replies should leave before one with so many bytes in memory is appended.
  func mustLeave(before byteCount: Int) -> Bool {
    end > 0
      && (end + byteCount > SessionBuffers.outputByteCountTarget
        || fileByteCount >= SessionBuffers.outputByteCountTarget
        || fileCount == SessionBuffers.filePieceCountMaximum)
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
    precondition(fileCount < SessionBuffers.filePieceCountMaximum)
    // SAFETY: checked in the line above; memory is lent while replies are made.
    unsafe files![fileCount] = FilePiece(
      memoryEnd: end, descriptor: range.descriptor, offset: Int64(range.offset), left: byteCount)
    fileCount += 1
    fileByteCount += byteCount
  }

  enum Failure: Error {
    case socket(SystemError)
    /// The bytes of a file cannot be sent, and the head before them has left. Nil: the file ended.
    case file(SystemError?)
  }

  /// Sends what waits; false when the socket takes no more now. `waits`: it is waited for; a
  /// blocking socket waits for files, too.
  mutating func send(waits: Bool) throws(Failure) -> Bool {
    let flags: CInt = waits ? 0 : CInt(clinux_MSG_DONTWAIT)
    while sent < end || fileIndex < fileCount {
      let hasFile = fileIndex < fileCount
      let stop = hasFile ? unsafe files![fileIndex].memoryEnd : end
      while sent < stop {
        // SAFETY: `sent` is below the end of what has been written.
        let count = unsafe clinux_send(
          socket, memory! + sent, stop - sent, hasFile ? flags | CInt(clinux_MSG_MORE) : flags)
        if count >= 0 {
          sent += count
        } else if count == -11 {  // EAGAIN
          return false
        } else if count != -4 {  // EINTR
          throw .socket(SystemError(errno: CInt(-count)))
        }
      }
      if hasFile {
        guard try sendFile() else { return false }
        fileIndex += 1
      }
    }
    end = 0
    sent = 0
    fileCount = 0
    fileIndex = 0
    fileByteCount = 0
    return true
  }

  private mutating func sendFile() throws(Failure) -> Bool {
    while unsafe files![fileIndex].left > 0 {
      // SAFETY: an element of the list, changed in place.
      let count = unsafe clinux_sendfile(
        socket, files![fileIndex].descriptor, &files![fileIndex].offset, files![fileIndex].left)
      if count > 0 {
        unsafe files![fileIndex].left -= count
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
    return true
  }
}

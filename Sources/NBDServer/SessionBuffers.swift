// SPDX-License-Identifier: Apache-2.0
// The memory of one session. It is lent: a session between two requests has none.

import CLinux
import LinuxSystem

@safe final class SessionBuffers: @unchecked Sendable {
  // Unchecked: the pointers never change, and what they point to belongs to one session at a time.

  /// A WRITE of more than half of it is written in pieces.
  static let inputByteCount = 2 << 20
  /// Replies that have grown to this leave before the next request is served.
  static let outputByteCountTarget = 256 << 10
  /// The same for data outside the memory. A call for every two replies of 128 KiB, rather than one
  /// for all that the client waits for, cost a crowd over TCP a third of its throughput.
  static let pieceByteCountTarget = 1 << 20
  /// Room for the longest reply behind others, and for what surrounds its data.
  static let outputByteCount = outputByteCountTarget + Int(payloadByteCountMaximum) + (64 << 10)
  /// What a session may come to whose longest request is of so many bytes.
  static func byteCount(requests: UInt32) -> UInt64 {
    let output = outputByteCount - Int(payloadByteCountMaximum)
    return UInt64(inputByteCount + output + PendingTransfers.byteCountMaximum)
      + UInt64(min(requests, payloadByteCountMaximum))
  }
  /// Output memory beyond it goes back to the system after use.
  private static let outputByteCountKept = 4 << 20
  /// Pieces of data outside the memory that can wait for their turn to be sent.
  static let pieceCountMaximum = 64

  private let inputMemory: MappedMemory
  private let outputMemory: MappedMemory
  /// Valid as long as the object lives; one session uses them.
  let input: UnsafeMutableRawPointer
  let output: UnsafeMutableRawPointer
  let pieces: UnsafeMutablePointer<Replies.Piece>
  /// What one call sends: each piece, and what lies in memory before and behind it.
  let parts: UnsafeMutablePointer<iovec>
  static let partCountMaximum = 2 * pieceCountMaximum + 1

  init() throws(SystemError) {
    let input = try MappedMemory(byteCount: Self.inputByteCount)
    let output = try MappedMemory(byteCount: Self.outputByteCount)
    // SAFETY: mappings have a first byte, and live as long as this object.
    unsafe self.input = input.buffer.baseAddress!
    unsafe self.output = output.buffer.baseAddress!
    inputMemory = input
    outputMemory = output
    // SAFETY: as many are initialized as were allocated.
    unsafe pieces = .allocate(capacity: Self.pieceCountMaximum)
    unsafe pieces.initialize(repeating: Replies.Piece(), count: Self.pieceCountMaximum)
    unsafe parts = .allocate(capacity: Self.partCountMaximum)
    unsafe parts.initialize(repeating: iovec(), count: Self.partCountMaximum)
  }

  deinit {
    unsafe pieces.deallocate()  // SAFETY: allocated above; the elements are trivial.
    unsafe parts.deallocate()
  }

  /// Called when the next session may need little: gives most of the memory back to the system.
  func trim() {
    inputMemory.discard(beyond: Self.trimmedByteCount)
    outputMemory.discard(beyond: Self.trimmedByteCount)
  }
  private static let trimmedByteCount = 64 << 10

  /// After replies of so many bytes have left.
  func discardOutput(after byteCount: Int) {
    if byteCount > Self.outputByteCountKept {
      outputMemory.discard(beyond: Self.outputByteCountKept)
    }
  }
}

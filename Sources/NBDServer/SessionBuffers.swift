// SPDX-License-Identifier: Apache-2.0
// The memory of one session. It is lent: a session between two requests has none.

import LinuxSystem

@safe final class SessionBuffers: @unchecked Sendable {
  // Unchecked: the pointers never change, and what they point to belongs to one session at a time.

  /// A WRITE of more than half of it is written in pieces.
  static let inputByteCount = 2 << 20
  /// Replies that have grown to this leave before the next request is served.
  static let outputByteCountTarget = 256 << 10
  /// Room for the longest reply behind others, and for what surrounds its data.
  static let outputByteCount = outputByteCountTarget + Int(payloadByteCountMaximum) + (64 << 10)
  /// Output memory beyond it goes back to the system after use.
  private static let outputByteCountKept = 4 << 20
  /// Pieces of files that can wait for their turn to be sent.
  static let filePieceCountMaximum = 64

  private let inputMemory: MappedMemory
  private let outputMemory: MappedMemory
  /// Valid as long as the object lives; one session uses them.
  let input: UnsafeMutableRawPointer
  let output: UnsafeMutableRawPointer
  let filePieces: UnsafeMutablePointer<Replies.FilePiece>

  init() throws(SystemError) {
    let input = try MappedMemory(byteCount: Self.inputByteCount)
    let output = try MappedMemory(byteCount: Self.outputByteCount)
    // SAFETY: mappings have a first byte, and live as long as this object.
    unsafe self.input = input.buffer.baseAddress!
    unsafe self.output = output.buffer.baseAddress!
    inputMemory = input
    outputMemory = output
    unsafe filePieces = .allocate(capacity: Self.filePieceCountMaximum)
    // SAFETY: as many as were allocated.
    unsafe filePieces.initialize(
      repeating: Replies.FilePiece(), count: Self.filePieceCountMaximum)
  }

  deinit { unsafe filePieces.deallocate() }  // SAFETY: allocated above; the elements are trivial.

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

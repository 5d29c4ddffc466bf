// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import TestSupport
import Testing
import WireFormat

extension BlockBackend {
  /// `count` bytes at `offset`, as an array.
  func bytes(_ count: Int, at offset: UInt64) throws(BackendError) -> [UInt8] {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(count, 1), alignment: 16)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above.
    // SAFETY: `count` is at most what was allocated.
    try unsafe read(into: UnsafeMutableRawBufferPointer(rebasing: memory[..<count]), at: offset)
    return unsafe [UInt8](memory[..<count])
  }

  func write(
    _ bytes: [UInt8], at offset: UInt64, isDurable: Bool = false
  ) throws(BackendError) {
    // An odd address, as a payload inside a stream has it.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count + 1, alignment: 16)
    defer { unsafe memory.deallocate() }  // SAFETY: allocated above.
    // SAFETY: one byte longer than the bytes.
    let odd = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[1...])
    unsafe odd.copyBytes(from: bytes)
    try unsafe write(UnsafeRawBufferPointer(odd), at: offset, isDurable: isDurable)
  }
}

/// A stack of backends to be tested, made afresh for each test.
struct BackendStack: CustomTestStringConvertible, Sendable {
  let testDescription: String
  /// Every offset and length is a multiple of it.
  let alignment: Int
  /// A backend of so many zero bytes, in the directory.
  let make: @Sendable (TemporaryDirectory, Int) throws -> any BlockBackend

  static let all: [BackendStack] = [
    BackendStack(testDescription: "memory", alignment: 1) { _, count in
      MemoryBackend(byteCount: count)
    },
    BackendStack(testDescription: "file", alignment: 1) { directory, count in
      try FileBackend(
        .init(directory.file("image")), options: .sync, byteCount: UInt64(count))
    },
    BackendStack(testDescription: "overlay over memory", alignment: 1) { directory, count in
      try OverlayBackend(
        over: MemoryBackend(byteCount: count), layerIn: .init(directory.path))
    },
    BackendStack(testDescription: "overlay with a name over memory", alignment: 1) {
      directory, count in
      try OverlayBackend(
        over: MemoryBackend(byteCount: count), layerAt: .init(directory.path("x.layer")),
        LayerIdentity(
          tokenHigh: 1, tokenLow: 2, export: "x", imageByteCount: UInt64(count),
          imageModifiedSeconds: 0), mustExist: false)
    },
    BackendStack(testDescription: "overlay over overlay over file", alignment: 1) {
      directory, count in
      let file = try FileBackend(.init(directory.file("image")), byteCount: UInt64(count))
      let lower = try OverlayBackend(over: file, layerIn: .init(directory.path))
      return try OverlayBackend(over: lower, layerIn: .init(directory.path))
    },
    BackendStack(testDescription: "delay over error over file", alignment: 1) { directory, count in
      let file = try FileBackend(.init(directory.file("image")), byteCount: UInt64(count))
      return DelayBackend(over: ErrorBackend(over: file))
    },
  ]

  /// Past the page cache: only where the file system can.
  static let direct = BackendStack(testDescription: "direct file", alignment: 4096) {
    directory, count in
    try FileBackend(.init(directory.file("image")), options: .direct, byteCount: UInt64(count))
  }
}

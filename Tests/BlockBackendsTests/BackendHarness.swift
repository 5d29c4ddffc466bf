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
  var alignment = 1
  /// The length is a multiple of it.
  var unit = 1
  /// A backend of so many zero bytes, in the directory.
  let make: @Sendable (TemporaryDirectory, Int) throws -> any BlockBackend

  private static func file(
    _ directory: TemporaryDirectory, _ name: String, _ count: Int,
    _ options: FileBackend.Options = []
  ) throws -> FileBackend {
    try FileBackend(
      .init(directory.file(name)), options: options, byteCount: UInt64(count))
  }

  private static func memory(_ count: Int) -> MemoryBackend { MemoryBackend(byteCount: count) }

  /// A mirror with small regions that looks after itself all the time.
  static func mirror(
    _ halves: [any BlockBackend], regionByteCount: UInt64 = 16384
  ) throws -> MirrorBackend {
    var options = MirrorOptions()
    options.regionByteCount = regionByteCount
    options.upkeepMilliseconds = 2
    let byteCount = MirrorBackend.byteCount(of: halves)
    let state = MirrorBackend.stateByteCount(for: byteCount, options: options)
    return try MirrorBackend(
      halves: halves, state: memory(Int(state)), options: options
    ) { _ in }
  }

  static let all: [BackendStack] = [
    BackendStack(testDescription: "memory") { _, count in memory(count) },
    BackendStack(testDescription: "file") { directory, count in
      try file(directory, "image", count, .sync)
    },
    BackendStack(testDescription: "overlay over memory") { directory, count in
      try OverlayBackend(over: memory(count), layerIn: .init(directory.path))
    },
    BackendStack(testDescription: "overlay with a name over memory") { directory, count in
      try OverlayBackend(
        over: memory(count), layerAt: .init(directory.path("x.layer")),
        LayerIdentity(
          tokenHigh: 1, tokenLow: 2, export: "x", imageByteCount: UInt64(count),
          imageModifiedSeconds: 0), mustExist: false)
    },
    BackendStack(testDescription: "overlay over overlay over file") { directory, count in
      let lower = try OverlayBackend(
        over: file(directory, "image", count), layerIn: .init(directory.path))
      return try OverlayBackend(over: lower, layerIn: .init(directory.path))
    },
    BackendStack(testDescription: "delay over error over file") { directory, count in
      DelayBackend(over: ErrorBackend(over: try file(directory, "image", count)))
    },
    BackendStack(testDescription: "linear of memory, file and memory") { directory, count in
      let part = count / 3
      return try LinearBackend([
        memory(part), file(directory, "image", 1000), memory(count - part - 1000),
      ])
    },
    BackendStack(testDescription: "stripe of four with chunks of 4 KiB", unit: 4 * 4096) {
      _, count in
      try StripeBackend((0..<4).map { _ in memory(count / 4) }, chunkByteCount: 4096)
    },
    BackendStack(testDescription: "stripe of two files", unit: 2 * 65536) { directory, count in
      try StripeBackend([
        file(directory, "a", count / 2), file(directory, "b", count / 2 + 5000),
      ])
    },
    BackendStack(testDescription: "mirror of memory", unit: 4096) { _, count in
      try mirror([memory(count + 8192), memory(count + 20_000)])
    },
    BackendStack(testDescription: "mirror of three files", unit: 4096) { directory, count in
      try mirror(["a", "b", "c"].map { try file(directory, $0, count + 8192) })
    },
    BackendStack(testDescription: "overlay over mirror over stripe and memory", unit: 8192) {
      directory, count in
      let stripe = try StripeBackend(
        [memory(count / 2 + 4096), memory(count / 2 + 4096)], chunkByteCount: 4096)
      return try OverlayBackend(
        over: mirror([stripe, memory(count + 8192)]), layerIn: .init(directory.path))
    },
    BackendStack(testDescription: "stripe of mirrors", unit: 8192) { _, count in
      let half = count / 2 + 8192
      return try StripeBackend(
        [
          mirror([memory(half), memory(half)]), mirror([memory(half), memory(half)]),
        ], chunkByteCount: 4096)
    },
    BackendStack(testDescription: "linear of a stripe and an overlay over a linear", unit: 8192) {
      directory, count in
      let rest = count - 65536
      let overlay = try OverlayBackend(
        over: LinearBackend([memory(5), memory(rest - 5)]), layerIn: .init(directory.path))
      return try LinearBackend([
        StripeBackend([memory(32768), memory(32768)], chunkByteCount: 8192), overlay,
      ])
    },
    BackendStack(testDescription: "blocks of 1 over blocks of 4096", unit: 4096) { _, count in
      try BlockSizeBackend(
        over: BlockSizeBackend(over: memory(count), minimum: 4096), minimum: 1)
    },
    BackendStack(
      testDescription: "blocks of 512 over an overlay", alignment: 512, unit: 512
    ) { directory, count in
      try BlockSizeBackend(
        over: OverlayBackend(over: memory(count), layerIn: .init(directory.path)), minimum: 512)
    },
    BackendStack(testDescription: "async over a linear of files") { directory, count in
      try AsyncBackend(
        over: LinearBackend([
          file(directory, "a", 70_000), file(directory, "b", count - 70_000),
        ]))
    },
  ]

  /// Past the page cache: only where the file system can.
  static let direct = BackendStack(testDescription: "direct file", alignment: 4096, unit: 4096) {
    directory, count in try file(directory, "image", count, .direct)
  }
  static let smallDirect = BackendStack(
    testDescription: "blocks of 1 over a direct file", unit: 4096
  ) { directory, count in
    try BlockSizeBackend(over: file(directory, "image", count, .direct), minimum: 1)
  }
}

// SPDX-License-Identifier: Apache-2.0
// What the commands do beyond reads and writes, in every style of replies.

import BlockBackends
import BlockServer
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

@Suite("A command of a session")
struct CommandTests {
  static let styles: [ReplyStyle] = [.simple, .structured, .extended]
  static let chunked: [ReplyStyle] = [.structured, .extended]

  /// A file of 4 MiB: data in the second MiB and in the first 64 KiB of the fourth.
  private static func sparseFile(
    _ directory: TemporaryDirectory
  ) throws -> (backend: FileBackend, contents: [UInt8]) {
    let path = try directory.file("sparse")
    let backend = try FileBackend(ByteString(path), byteCount: 4 << 20)
    var contents = [UInt8](repeating: 0, count: 4 << 20)
    var generator = SeededGenerator(seed: 1)
    for range in [(1 << 20)..<(2 << 20), (3 << 20)..<((3 << 20) + 65536)] {
      for index in range { contents[index] = UInt8.random(in: 1...255, using: &generator) }
      unsafe contents.withUnsafeBytes {
        // SAFETY: a range of the array's own storage.
        try! unsafe backend.write(
          UnsafeRawBufferPointer(rebasing: $0[range]), at: UInt64(range.lowerBound),
          isDurable: false)
      }
    }
    return (backend, contents)
  }

  /// Offset, length, and the pieces of the answer: negative for a hole. Nil: one piece of data.
  static let sparseReads: [(UInt64, UInt64, CommandFlags, pieces: [Int])] = [
    (0, 4 << 20, [], [-1 << 20, 1 << 20, -1 << 20, 65536, -(1 << 20) + 65536]),
    (0, 1 << 20, [], [-1 << 20]),
    (1 << 20, 1 << 20, [], [1 << 20]),
    ((1 << 20) + 4096, 65536, [], [65536]),
    ((1 << 20) - 65536, 131072, [], [-65536, 65536]),
    ((1 << 20) - 1024, 65536, [], [65536]),
    (0, 16384, [], [16384]),
    (0, 4 << 20, .df, [4 << 20]),
    (0, 0, [], []),
  ]

  @Test(
    "READ leaves holes out where that pays, and says the right bytes everywhere",
    arguments: chunked)
  func sparseRead(style: ReplyStyle) throws {
    let directory = try TemporaryDirectory()
    let (backend, contents) = try Self.sparseFile(directory)
    let server = try ServerUnderTest(backend)
    let client = try StyledClient(server, style: style)
    #expect(client.told.contains(.sendDF))
    for (offset, length, flags, pieces) in Self.sparseReads {
      let answer = try client.ask(.read, flags, at: offset, count: length)
      #expect(answer.error == .none)
      #expect(answer.pieces.map { $0.isHole ? -$0.byteCount : $0.byteCount } == pieces)
      let wanted = Array(contents[Int(offset)..<Int(offset + length)])
      #expect(difference(of: answer.data, from: wanted) == nil)
    }
    // What was a hole is data as soon as it is written.
    #expect(try client.write([7], at: 70_000) == .none)
    let answer = try client.ask(.read, at: 0, count: 1 << 20)
    #expect(answer.data[70_000] == 7)
    #expect(answer.pieces.count == 3)
  }

  @Test("READ is answered whole by simple replies")
  func simpleRead() throws {
    let directory = try TemporaryDirectory()
    let (backend, contents) = try Self.sparseFile(directory)
    let client = try StyledClient(ServerUnderTest(backend), style: .simple)
    #expect(!client.told.contains(.sendDF))
    let data = try client.ask(.read, at: 0, count: 4 << 20).data
    #expect(difference(of: data, from: contents) == nil)
    #expect(try client.ask(.read, .df, at: 0, count: 1).error == .einval)
  }

  private static let hole: AllocationFlags = [.hole, .zero]
  private static func status(_ byteCount: UInt64, _ flags: AllocationFlags) -> ExtentStatus {
    ExtentStatus(byteCount: byteCount, flags: flags)
  }
  static let statuses: [(UInt64, UInt64, CommandFlags, [ExtentStatus])] = [
    (
      0, 4 << 20, [],
      [
        status(1 << 20, hole), status(1 << 20, []), status(1 << 20, hole), status(65536, []),
        status((1 << 20) - 65536, hole),
      ]
    ),
    (0, 4 << 20, .reqOne, [status(1 << 20, hole)]),
    (512, 512, [], [status(512, hole)]),
    ((2 << 20) - 512, 1024, [], [status(512, []), status(512, hole)]),
    ((2 << 20) - 512, 1024, .reqOne, [status(512, [])]),
    ((4 << 20) - 1, 1, .fua, [status(1, hole)]),
  ]

  @Test("BLOCK_STATUS tells data and holes", arguments: chunked)
  func blockStatus(style: ReplyStyle) throws {
    let directory = try TemporaryDirectory()
    let (backend, _) = try Self.sparseFile(directory)
    let client = try StyledClient(ServerUnderTest(backend), style: style)
    for (offset, length, flags, extents) in Self.statuses {
      let answer = try client.ask(.blockStatus, flags, at: offset, count: length)
      #expect(answer.error == .none)
      #expect(answer.extents == extents, "\(length) bytes from \(offset)")
    }
    #expect(try client.ask(.blockStatus, at: 0, count: 0).error == .einval)
    #expect(try client.ask(.blockStatus, at: 4 << 20, count: 1).error == .einval)
    #expect(try client.ask(.blockStatus, at: 1, count: 4 << 20).error == .einval)
  }

  @Test("BLOCK_STATUS without a context is refused", arguments: styles)
  func noContext(style: ReplyStyle) throws {
    let client = try StyledClient(
      ServerUnderTest(MemoryBackend(byteCount: 65536)), style: style, hasContext: false)
    #expect(try client.ask(.blockStatus, count: 512).error == .einval)
    #expect(try client.ask(.read, count: 512).error == .none)
  }

  @Test("BLOCK_STATUS with a payload is about the contexts that it names")
  func blockStatusPayload() throws {
    let client = try StyledClient(
      ServerUnderTest(MemoryBackend(byteCount: 1 << 20)), style: .extended)
    #expect(client.told.contains(.blockStatusPayload))
    func ask(_ payload: [UInt8], length: UInt64) throws -> Answer {
      try client.ask(
        .blockStatus, .payloadLength, count: UInt64(payload.count), payload: payload,
        length: length)
    }
    func query(_ length: UInt64, _ ids: [UInt32]) -> [UInt8] {
      BlockStatusQuery(length: length, contextIDs: ids).encoded
    }
    let good = try ask(query(1 << 20, [MetaContext.allocationID]), length: 1 << 20)
    #expect(good.error == .none && good.extents.count == 1)
    let id = MetaContext.allocationID
    let refused: [[UInt8]] = [
      query(1 << 20, []), query(1 << 20, [id, id]), query(1 << 20, [id, 9]), query(512, [9]),
      query((1 << 20) + 1, [id]), query(0, [id]), query(.max, [id]), [], [0],
      [UInt8](repeating: 0, count: 265), [UInt8](repeating: 0, count: 3 << 20),
    ]
    for payload in refused {
      #expect(try ask(payload, length: 1 << 20).error == .einval, "\(payload.count) bytes")
    }
    #expect(try client.ask(.read, count: 512).error == .none)
  }

  @Test("CACHE, TRIM and WRITE_ZEROES take ranges of any length that fits", arguments: styles)
  func longRanges(style: ReplyStyle) throws {
    let backend = RecordingBackend(byteCount: 1 << 40)
    let client = try StyledClient(ServerUnderTest(backend), style: style)
    #expect(client.told.contains(.sendCache))
    let most: UInt64 = style == .extended ? 1 << 40 : UInt64(UInt32.max)
    for command in [CommandCode.cache, .trim, .writeZeroes] {
      #expect(try client.ask(command, count: most).error == .none)
      let rest = min(most, (1 << 40) - 1)
      #expect(try client.ask(command, at: 1, count: rest).error == .none)
    }
    #expect(backend.calls.contains(.trim(0..<most, isDurable: false)))
    #expect(try client.ask(.cache, at: 1 << 40, count: 1).error == .einval)
    #expect(try client.ask(.trim, at: 1 << 40, count: 1).error == .einval)
    #expect(try client.ask(.writeZeroes, at: 1 << 40, count: 1).error == .enospc)
    #expect(try client.ask(.cache, .noHole, count: 1).error == .einval)
    if style == .extended {
      for command in [CommandCode.cache, .trim, .blockStatus, .read] {
        #expect(try client.ask(command, at: 1, count: .max).error != .none)
      }
      #expect(try client.ask(.writeZeroes, at: 1, count: .max).error == .enospc)
    }
  }

  /// READs above the longest payload. Source: NBD `doc/proto.md`, "Error values".
  static let tooLong: [(ReplyStyle, ErrorNumber)] = [
    (.simple, .einval), (.structured, .eoverflow), (.extended, .eoverflow),
  ]

  @Test("READ above the longest payload is refused, and its limit served", arguments: tooLong)
  func readLimit(style: ReplyStyle, error: ErrorNumber) throws {
    let client = try StyledClient(
      ServerUnderTest(MemoryBackend(byteCount: 33 << 20)), style: style)
    #expect(try client.ask(.read, count: 32 << 20).data.count == 32 << 20)
    #expect(try client.ask(.read, count: (32 << 20) + 1).error == error)
  }

  @Test("FAST_ZERO fails where zeroes would be written, and only if it is set")
  func fastZeroes() throws {
    let slow = try StyledClient(ServerUnderTest(SlowZeroBackend()), style: .simple)
    #expect(slow.told.contains(.sendFastZero))
    #expect(try slow.ask(.writeZeroes, .fastZero, count: 512).error == .enotsup)
    #expect(try slow.ask(.writeZeroes, [.fastZero, .noHole, .fua], count: 512).error == .enotsup)
    #expect(try slow.ask(.writeZeroes, count: 512).error == .none)
    let plain = try StyledClient(
      ServerUnderTest(RecordingBackend(byteCount: 4096)), style: .extended)
    #expect(!plain.told.contains(.sendFastZero))
    #expect(try plain.ask(.writeZeroes, .fastZero, count: 512).error == .einval)
    let directory = try TemporaryDirectory()
    let file = try FileBackend(ByteString(directory.file("f")), byteCount: 1 << 20)
    let fast = try StyledClient(ServerUnderTest(file), style: .structured)
    #expect(try fast.ask(.writeZeroes, .fastZero, count: 65536).error == .none)
  }

  @Test("with a payload that it must not have is refused, and its payload taken")
  func surplusPayload() throws {
    let client = try StyledClient(
      ServerUnderTest(MemoryBackend(byteCount: 65536)), style: .extended)
    let payload = [UInt8](repeating: 0x21, count: 5000)
    for command in [CommandCode.read, .flush, .trim, .cache, .writeZeroes, .resize] {
      let answer = try client.ask(command, .payloadLength, count: 5000, payload: payload)
      #expect(answer.error == .einval)
    }
    // And a WRITE without the flag has none.
    #expect(try client.ask(.write, count: 512).error == .einval)
    #expect(try client.write([1, 2, 3], at: 9) == .none)
    #expect(try client.ask(.read, at: 9, count: 3).data == [1, 2, 3])
  }

  @Test("with a payload above every limit ends the connection")
  func endlessPayload() throws {
    for command in [CommandCode.write, .flush, .blockStatus] {
      let client = try StyledClient(
        ServerUnderTest(MemoryBackend(byteCount: 65536)), style: .extended)
      let request = ExtendedRequest(
        flags: .payloadLength, command: command, cookie: 1, length: (32 << 20) + 1)
      try client.client.send(request.encoded)
      #expect(try client.client.receiveToEnd().isEmpty)
    }
  }

  @Test("fails with the backend, in a chunk where one belongs", arguments: styles)
  func errors(style: ReplyStyle) throws {
    let data = [UInt8](repeating: 1, count: 1 << 20)  // A hole would not be read at all.
    let backend = ErrorBackend(over: MemoryBackend(contents: data))
    let client = try StyledClient(ServerUnderTest(backend), style: style)
    backend.switchTo(.failing(.all, .truncated))
    for length: UInt64 in [512, 65536, 1 << 20] {
      #expect(try client.ask(.read, count: length).error == .eio)
    }
    #expect(try client.write([1], at: 0) == .eio)
    backend.switchTo(.working)
    #expect(try difference(of: client.ask(.read, count: 1 << 20).data, from: data) == nil)
  }
}

/// Takes zeroes, but not fast.
private final class SlowZeroBackend: BlockBackend {
  let byteCount: UInt64 = 65536
  let blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  let capabilities: BackendCapabilities = [.write, .fastZeroes]
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError) {}
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {}
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    if mustBeFast { throw .notFast }
  }
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {}
  func flush() throws(BackendError) {}
}

// SPDX-License-Identifier: Apache-2.0
// A client that writes all the time and keeps count of what it was told, and that repeats what was
// not answered on its next connection, as the Linux driver does.

import LinuxSystem
import NBDClient
import NBDProtocol
import TestSupport
import Testing
import WireFormat

final class LoadClient {
  /// Written whole or not at all by pwrite(2), so a block is never a mixture.
  static let blockByteCount = 4096
  private static let depth = 8
  /// Every wait ends.
  private static var deadline: Deadline { .milliseconds(30_000) }

  private struct Operation {
    /// None for a flush.
    var blocks: Range<Int>
    var number: UInt64
    var isDurable: Bool
  }

  let blockCount: Int
  private var random: SeededGenerator
  private let token = SessionToken(high: .random(in: 0 ... .max), low: .random(in: 0 ... .max))
  private var generation: UInt64 = 0
  private var lastNumber: UInt64 = 0
  /// The number of the write that each block holds as far as the server has said; 0: none.
  private(set) var acknowledged: [UInt64]
  private var inFlight: [UInt32: Operation] = [:]
  private var counters = [UInt32](repeating: 0, count: depth)
  private(set) var acknowledgementCount = 0
  private(set) var errors: [ErrorNumber] = []

  init(blockCount: Int, printingAs name: String) {
    self.blockCount = blockCount
    random = SeededGenerator(printingAs: name)
    acknowledged = [UInt64](repeating: 0, count: blockCount)
  }

  var seed: UInt64 { random.seed }
  var unansweredCount: Int { inFlight.count }

  /// What a block holds after write `number`; before the first one it is `base`.
  static func contents(_ block: Int, _ number: UInt64, base: UInt8) -> [UInt8] {
    if number == 0 { return [UInt8](repeating: base, count: blockByteCount) }
    var words: [UInt8] = []
    words.append(bigEndian: number)
    words.append(bigEndian: UInt64(block))
    while words.count < blockByteCount { words += words }
    return words
  }

  func connect(port: UInt16, slot: UInt16 = 0) throws(ConnectionError) -> NBDConnection {
    generation += 1
    var flags: SessionFlags = .countedCookies
    if generation > 1 { flags.insert(.resume) }
    return try NBDConnection.open(
      to: SocketAddress(ipv4: [127, 0, 0, 1], port: port), names: ["disk"],
      identity: SessionIdentity(
        token: token, generation: generation, slot: slot, flags: flags))
  }

  /// Repeats what was not answered, then writes until the server hangs up or `isEnough` says so
  /// after an acknowledgement; then waits for the answers, or leaves them where they are.
  func write(
    on connection: borrowing NBDConnection, waitsForAnswers: Bool = true,
    until isEnough: (LoadClient) -> Bool
  ) throws {
    #expect(connection.export.isSessionAccepted)
    do {
      for (tag, operation) in inFlight.sorted(by: { $0.key < $1.key }) {
        try send(operation, tag: tag, on: connection.socket)
      }
      var isOver = false
      while !isOver || !inFlight.isEmpty {
        while !isOver, inFlight.count < Self.depth { try sendNext(on: connection.socket) }
        guard try receiveReply(from: connection.socket) else { return }
        isOver = isOver || isEnough(self)
        if isOver, !waitsForAnswers { return }
      }
    } catch let error as SystemError {
      // What was answered before the connection broke is answered.
      guard error != .timedOut else { throw error }
      while (try? receiveReply(from: connection.socket)) == true {}
    }
  }

  private func sendNext(on socket: borrowing StreamSocket) throws(SystemError) {
    let tag = (0..<UInt32(Self.depth)).first { inFlight[$0] == nil } ?? 0
    lastNumber += 1
    let isFlush = Int.random(in: 0..<24, using: &random) == 0
    var blocks = 0..<0
    while !isFlush, blocks.isEmpty {
      // Now and then more than the server writes in one piece.
      let most = Int.random(in: 0..<40, using: &random) == 0 ? 600 : 16
      let count = Int.random(in: 1...min(most, blockCount), using: &random)
      let start = Int.random(in: 0...(blockCount - count), using: &random)
      let wanted = start..<(start + count)
      if !inFlight.values.contains(where: { $0.blocks.overlaps(wanted) }) { blocks = wanted }
    }
    let isDurable = Int.random(in: 0..<8, using: &random) == 0
    let operation = Operation(blocks: blocks, number: lastNumber, isDurable: isDurable)
    inFlight[tag] = operation
    try send(operation, tag: tag, on: socket)
  }

  private func send(
    _ operation: Operation, tag: UInt32, on socket: borrowing StreamSocket
  ) throws(SystemError) {
    counters[Int(tag)] += 1
    let cookie = UInt64(counters[Int(tag)]) << 32 | UInt64(tag)
    guard !operation.blocks.isEmpty else {
      return try socket.send(
        Request(command: .flush, cookie: cookie).encoded, until: Self.deadline)
    }
    let request = Request(
      flags: operation.isDurable ? .fua : [], command: .write, cookie: cookie,
      offset: UInt64(operation.blocks.lowerBound * Self.blockByteCount),
      length: UInt32(operation.blocks.count * Self.blockByteCount))
    var bytes = request.encoded
    for block in operation.blocks {
      bytes += Self.contents(block, operation.number, base: 0)
    }
    try socket.send(bytes, until: Self.deadline)
  }

  /// False when the server has hung up.
  private func receiveReply(from socket: borrowing StreamSocket) throws -> Bool {
    var bytes: [UInt8] = []
    while bytes.count < SimpleReply.byteCount {
      let before = bytes.count
      try socket.receive(
        into: &bytes, maximum: SimpleReply.byteCount - before, until: Self.deadline)
      if bytes.count == before { return false }
    }
    let reply = try SimpleReply(decoding: bytes.span)
    let tag = UInt32(truncatingIfNeeded: reply.cookie)
    let operation = try #require(inFlight[tag], "an answer to nothing, seed \(seed)")
    try #require(
      UInt32(truncatingIfNeeded: reply.cookie >> 32) == counters[Int(tag)],
      "an answer to an older copy, seed \(seed)")
    guard reply.error == .none else {
      errors.append(reply.error)
      return true
    }
    inFlight[tag] = nil
    acknowledgementCount += 1
    for block in operation.blocks { acknowledged[block] = operation.number }
    return true
  }

  /// Every block holds the last write that was acknowledged, or one that is in flight.
  func verify(on connection: borrowing NBDConnection, base: UInt8) throws {
    let blocksAtOnce = 256
    for start in stride(from: 0, to: blockCount, by: blocksAtOnce) {
      let count = min(blocksAtOnce, blockCount - start)
      let request = Request(
        command: .read, cookie: 0x000f_0000, offset: UInt64(start * Self.blockByteCount),
        length: UInt32(count * Self.blockByteCount))
      try connection.socket.send(request.encoded, until: Self.deadline)
      var bytes: [UInt8] = []
      let wanted = SimpleReply.byteCount + Int(request.length)
      while bytes.count < wanted {
        let before = bytes.count
        try connection.socket.receive(
          into: &bytes, maximum: wanted - before, until: Self.deadline)
        try #require(bytes.count > before, "the server hung up")
      }
      for block in start..<(start + count) {
        let from = SimpleReply.byteCount + (block - start) * Self.blockByteCount
        try check(block, Array(bytes[from..<(from + Self.blockByteCount)]), base: base)
      }
    }
  }

  /// As `verify`, of the image itself.
  func verify(image: [UInt8], base: UInt8) throws {
    for block in 0..<blockCount {
      let start = block * Self.blockByteCount
      try check(block, Array(image[start..<(start + Self.blockByteCount)]), base: base)
    }
  }

  private func check(_ block: Int, _ found: [UInt8], base: UInt8) throws {
    if found == Self.contents(block, acknowledged[block], base: base) { return }
    let isInFlight = inFlight.values.contains {
      $0.blocks.contains(block) && found == Self.contents(block, $0.number, base: base)
    }
    let text = ByteString(Array(found.prefix(16))).printable
    try #require(
      isInFlight,
      "block \(block): write \(acknowledged[block]) was answered, found \(text), seed \(seed)")
  }

  /// Detaches.
  func disconnect(_ connection: borrowing NBDConnection) throws {
    try connection.socket.send(
      Request(command: .disconnect, cookie: 0).encoded, until: Self.deadline)
    var rest: [UInt8] = []
    try connection.socket.receive(into: &rest, maximum: 1, until: Self.deadline)
    #expect(rest.isEmpty)
  }
}

// SPDX-License-Identifier: Apache-2.0
// One session of a hostile client: a handshake or a stream of requests, well-formed, nearly so or
// not at all, in pieces of any size, ended in any way. What is said of the session comes from its
// seed alone.

import CLinux
import LinuxSystem
import NBDProtocol
import TestSupport
import Testing
import WireFormat

struct FuzzSession {
  enum Ending: CaseIterable {
    case disconnect, halfClose, lostFrame, truncated, endlessPayload, vanish
  }

  private var generator: SeededGenerator
  /// Of one wait: a server that does nothing for so long hangs.
  private static let waitMilliseconds: UInt64 = 30_000

  init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

  private mutating func below(_ bound: Int) -> Int {
    Int(truncatingIfNeeded: generator.next() >> 33) % bound
  }
  private mutating func isOne(in count: Int) -> Bool { below(count) == 0 }

  /// Returns what has gone wrong, or throws it; nil when all was as it must be.
  mutating func run(
    on server: ServerUnderTest, exports: inout [FuzzExport]
  ) throws {
    if isOne(in: 4) { return try fuzzHandshake(server, exports) }
    try fuzzTransmission(server, &exports[below(exports.count)])
  }
}

// Handshakes.
extension FuzzSession {
  private mutating func fuzzHandshake(_ server: ServerUnderTest, _ exports: [FuzzExport]) throws {
    let client = try server.connect()
    var bytes = ClientFlags([.fixedNewstyle, .noZeroes]).encoded
    if isOne(in: 8) { bytes = (0..<4).map { _ in UInt8(truncatingIfNeeded: generator.next()) } }
    for _ in 0..<below(12) { bytes += option(exports) }
    if isOne(in: 4), !bytes.isEmpty {
      for _ in 0...below(3) { bytes[below(bytes.count)] ^= 1 << UInt8(below(8)) }
    }
    if isOne(in: 4) { bytes.removeLast(below(bytes.count + 1)) }
    if isOne(in: 8) { return try vanish(client, after: bytes) }
    var received: [UInt8] = []
    try exchange(client.number, bytes, endsWriting: true) { received += $0 }
    try checkOptionReplies(received)
  }

  private mutating func option(_ exports: [FuzzExport]) -> [UInt8] {
    let codes: [OptionCode] = [
      .structuredReply, .structuredReply, .extendedHeaders, .listMetaContext, .setMetaContext,
      .setMetaContext, .list, .info, .go, .exportName, .startTLS, .peekExport, .abort, .session,
      OptionCode(rawValue: UInt32(truncatingIfNeeded: generator.next())),
    ]
    let code = codes[below(codes.count)]
    var name = exports[below(exports.count)].name
    if isOne(in: 3) { name = isOne(in: 2) ? "" : ByteString(randomBytes(isOne(in: 9) ? 4200 : 9)) }
    var data: [UInt8] = []
    switch code {
    case .listMetaContext, .setMetaContext:
      let queries: [ByteString] = ["base:allocation", "base:", "x-y:z", "", "base:allocations"]
      let asked = (0..<below(isOne(in: 30) ? 1200 : 4)).map { _ in queries[below(queries.count)] }
      data = MetaContextRequest(name: name, queries: asked).encoded
    case .info, .go:
      let items = (0..<below(5)).map { _ in InformationType(rawValue: UInt16(below(6))) }
      data = InformationRequest(name: name, items: items).encoded
    case .exportName: data = name.bytes
    case .session: data = randomBytes(28)
    default: if isOne(in: 3) { data = randomBytes(below(isOne(in: 20) ? 70_000 : 40)) }
    }
    if isOne(in: 6) { mutate(&data) }
    var count = UInt32(data.count)
    if isOne(in: 20) { count = UInt32(truncatingIfNeeded: generator.next() >> UInt64(below(64))) }
    return OptionHeader(option: code, dataByteCount: count).encoded + data
  }

  private mutating func randomBytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
  }

  private mutating func mutate(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else {
      bytes = randomBytes(1 + below(8))
      return
    }
    switch below(4) {
    case 0: bytes.removeLast(1 + below(bytes.count))
    case 1: bytes += randomBytes(1 + below(8))
    case 2: bytes[below(bytes.count)] = [0, 1, 0x7f, 0x80, 0xff][below(5)]
    default:
      // A length, a count: near the front.
      bytes[below(min(bytes.count, 12))] = UInt8(truncatingIfNeeded: generator.next())
    }
  }

  /// Whatever was asked, answers are well-formed up to where another phase begins.
  private func checkOptionReplies(_ received: [UInt8]) throws {
    let greeting = ServerGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded
    guard received.starts(with: greeting) else { throw Violation("no greeting") }
    var rest = received.dropFirst(greeting.count)
    let magic: [UInt8] = [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]
    while rest.starts(with: magic) {
      guard rest.count >= OptionReplyHeader.byteCount,
        let header = try? OptionReplyHeader(
          decoding: Array(rest.prefix(OptionReplyHeader.byteCount)).span)
      else { throw Violation("an option reply without its head") }
      rest = rest.dropFirst(OptionReplyHeader.byteCount)
      let count = Int(header.dataByteCount)
      guard rest.count >= count else { throw Violation("an option reply without its data") }
      if header.type == .info {
        let item = try? InformationItem(decoding: Array(rest.prefix(count)).span)
        guard item != nil else { throw Violation("an information item of no kind") }
      }
      rest = rest.dropFirst(count)
      if header.option == .go, header.type == .ack { return }
    }
  }
}

// Requests.
extension FuzzSession {
  /// A request that was made up, and what has to come of it.
  private struct Sent {
    var request: ExtendedRequest
    var refusals: [ErrorNumber]
    var mayBeSlow = false
    var expectation: FuzzContents.Expectation?
    /// What it may have changed, if nobody says whether it was executed.
    var touched: Range<Int>?
  }

  private mutating func fuzzTransmission(
    _ server: ServerUnderTest, _ export: inout FuzzExport
  ) throws {
    let style: ReplyStyle = [.simple, .structured, .extended][below(3)]
    let hasContext = !isOne(in: 4)
    let client = try StyledClient(server, export.name, style: style, hasContext: hasContext)
    if export.isFresh { export.contents = FuzzContents(export.initial) }
    let oracle = FuzzOracle(
      style: style, hasContext: hasContext && style != .simple, told: client.told,
      byteCount: export.byteCount, alignment: export.alignment)
    var checker = ReplyChecker(style: style)
    var sent: [UInt64: Sent] = [:]
    var touched: [Range<Int>] = []
    var bytes: [UInt8] = []
    let ending = Ending.allCases[below(Ending.allCases.count)]
    for cookie in 1...UInt64(1 + below(isOne(in: 10) ? 200 : 24)) {
      let (entry, payload) = request(cookie, oracle, touched, &export)
      sent[cookie] = entry
      if let range = entry.touched { touched.append(range) }
      var length: UInt64?
      if entry.request.command == .blockStatus, entry.refusals.isEmpty, !payload.isEmpty {
        length = payload.span.bigEndian(UInt64.self, at: 0)
      }
      checker.expect(entry.request, length: length)
      bytes += StyledClient.encode(entry.request, style: style) + payload
    }
    bytes += self.bytes(of: ending, style)
    defer { forget(sent, &export) }
    if ending == .vanish {
      bytes.removeLast(below(bytes.count))
      return try vanish(client.client, after: bytes)
    }
    try exchange(
      client.client.number, bytes, endsWriting: ending == .halfClose || ending == .truncated
    ) { piece in
      try checker.receive(piece)
      for (request, answer) in checker.takeAnswers() {
        guard let entry = sent.removeValue(forKey: request.cookie) else { continue }
        try Self.check(answer, of: entry, touched)
      }
    }
    guard sent.isEmpty else {
      throw Violation("closed (\(ending)) without an answer to \(sent.values.map(\.request))")
    }
  }

  /// `touched`: what other requests of the session were about, which were out at the same time, and
  /// before or after this one as the server liked.
  private static func check(
    _ answer: Answer, of sent: Sent, _ touched: [Range<Int>]
  ) throws(Violation) {
    let isRight =
      answer.error == .none
      ? sent.refusals.isEmpty
      : sent.refusals.contains(answer.error) || (sent.mayBeSlow && answer.error == .enotsup)
    guard isRight else {
      throw Violation(
        "\(answer.error.name ?? "?") for \(sent.request), where "
          + "\(sent.refusals.map { $0.name ?? "?" }) is right")
    }
    guard answer.error == .none, var expectation = sent.expectation else { return }
    let range = expectation.bytes.startIndex..<expectation.bytes.endIndex
    expectation.unknown += touched.map { $0.clamped(to: range) }
    if let place = expectation.firstDifference(answer.data) {
      throw Violation("a wrong byte at \(place) in the answer to \(sent.request)")
    }
  }

  /// Nobody knows whether what was not answered was done.
  private func forget(_ sent: [UInt64: Sent], _ export: inout FuzzExport) {
    for entry in sent.values {
      if let touched = entry.touched { export.contents.forget(touched) }
    }
  }

  private mutating func bytes(of ending: Ending, _ style: ReplyStyle) -> [UInt8] {
    switch ending {
    case .disconnect:
      return StyledClient.encode(ExtendedRequest(command: .disconnect, cookie: 0), style: style)
    case .halfClose, .vanish: return []
    case .lostFrame:
      var bytes = randomBytes(style.requestByteCount + below(40))
      bytes[0] = 0x55  // No magic begins so.
      return bytes
    case .truncated:
      let flags: CommandFlags = style == .extended ? .payloadLength : []
      let request = ExtendedRequest(flags: flags, command: .write, cookie: 0, length: 4096)
      let whole = StyledClient.encode(request, style: style) + randomBytes(4095)
      return Array(whole.prefix(1 + below(isOne(in: 2) ? style.requestByteCount : whole.count)))
    case .endlessPayload:
      guard style == .extended else { return bytes(of: .lostFrame, style) }
      let commands: [CommandCode] = [.write, .read, .blockStatus, CommandCode(rawValue: 999)]
      return ExtendedRequest(
        flags: .payloadLength, command: commands[below(4)], cookie: 0,
        length: (32 << 20) + 1 + (isOne(in: 2) ? 0 : UInt64(1) << UInt64(below(63)))
      ).encoded
    }
  }

  private mutating func offset(_ export: FuzzExport) -> UInt64 {
    let size = export.byteCount
    switch below(12) {
    case 0: return [0, size, size - 1, size + 1, .max, .max - 511, 1 << 63, size - 512][below(8)]
    case 1: return generator.next()
    case 2: return UInt64(below(Int(size)))
    default: return UInt64(below(Int(size))) / 512 * 512
    }
  }

  private mutating func length(
    _ export: FuzzExport, _ style: ReplyStyle, _ command: CommandCode
  ) -> UInt64 {
    let moves = command == .write || command == .read
    switch below(40) {
    case 0: return 0
    case 1: return 1 + UInt64(below(511))
    case 2 where !moves: return style == .extended ? generator.next() : UInt64(UInt32.max)
    case 3 where command != .write: return export.byteCount + UInt64(below(3)) - 1
    case 4 where command == .read: return (32 << 20) + UInt64(below(2))
    case 4: return UInt64(1 + below(4 << 20))
    case 5...10: return UInt64(1 + below(512)) * 512
    default: return UInt64(1 + below(16)) * 512
    }
  }

  private mutating func request(
    _ cookie: UInt64, _ oracle: FuzzOracle, _ touched: [Range<Int>], _ export: inout FuzzExport
  ) -> (Sent, payload: [UInt8]) {
    let commands: [CommandCode] = [
      .read, .read, .read, .write, .write, .write, .flush, .trim, .cache, .writeZeroes,
      .writeZeroes, .blockStatus, .blockStatus, .resize,
      CommandCode(rawValue: UInt16(truncatingIfNeeded: generator.next())),
    ]
    var command = commands[below(commands.count)]
    if command == .disconnect { command = .resize }
    var flags: CommandFlags = []
    if isOne(in: 3) {
      let some: [CommandFlags] = [.fua, .noHole, .df, .reqOne, .fastZero, [.fua, .noHole]]
      flags = some[below(some.count)]
    }
    if isOne(in: 20) {
      flags = CommandFlags(rawValue: UInt16(truncatingIfNeeded: generator.next()))
    }
    var request = ExtendedRequest(
      flags: flags, command: command, cookie: cookie, offset: offset(export),
      length: length(export, oracle.style, command))
    if command == .flush, !isOne(in: 6) { (request.offset, request.length) = (0, 0) }
    let payload = payload(of: &request, oracle)
    let query = request.flags.contains(.payloadLength) && oracle.style == .extended ? payload : nil
    var sent = Sent(
      request: request,
      refusals: oracle.refusals(of: request, query: command == .blockStatus ? query : nil),
      mayBeSlow: command == .writeZeroes && flags.contains(.fastZero))
    if sent.refusals.isEmpty { foresee(&sent, payload, &export) }
    // Of two that change the same bytes any may be the last.
    if let range = sent.touched {
      for other in touched { export.contents.forget(range.clamped(to: other)) }
    }
    return (sent, payload)
  }

  /// What follows the request; with extended headers the request says so, or lies.
  private mutating func payload(
    of request: inout ExtendedRequest, _ oracle: FuzzOracle
  ) -> [UInt8] {
    if oracle.style != .extended {
      return request.command == .write ? filling(Int(request.length)) : []
    }
    request.flags.remove(.payloadLength)
    switch request.command {
    case .write:
      if isOne(in: 12) { return [] }
      request.flags.insert(.payloadLength)
      return filling(Int(request.length))
    case .blockStatus where isOne(in: 2):
      request.flags.insert(.payloadLength)
      let ids = [[1], [1], [1], [], [1, 1], [2], [1, 2]][below(7)].map { UInt32($0) }
      var query = BlockStatusQuery(length: request.length, contextIDs: ids).encoded
      if isOne(in: 8) { query += randomBytes(below(300)) }
      request.length = UInt64(query.count)
      return query
    case _ where isOne(in: 12):
      request.flags.insert(.payloadLength)
      request.length = UInt64(below(isOne(in: 20) ? 3 << 20 : 5000))
      return filling(Int(request.length))
    default: return []
    }
  }

  /// Bytes that differ from those of other writes.
  private mutating func filling(_ count: Int) -> [UInt8] {
    [UInt8](repeating: UInt8(truncatingIfNeeded: generator.next()), count: count)
  }

  /// What the request will have done once it is answered.
  private func foresee(_ sent: inout Sent, _ payload: [UInt8], _ export: inout FuzzExport) {
    let request = sent.request
    let start = Int(request.offset)
    switch request.command {
    case .read:
      sent.expectation = export.contents.expectation(start..<(start + Int(request.length)))
    case .write:
      sent.touched = start..<(start + payload.count)
      export.contents.write(payload[...], at: start)
    case .writeZeroes:
      let range = start..<(start + Int(request.length))
      sent.touched = range
      // Whether it will be refused cannot be told.
      if sent.mayBeSlow { return export.contents.forget(range) }
      export.contents.write([UInt8](repeating: 0, count: range.count)[...], at: start)
    case .trim:
      let range = start..<(start + Int(request.length))
      sent.touched = range
      export.contents.forget(range)
    default: break
    }
  }
}

// Bytes out and in, both at once, so that neither side waits for the other in vain.
extension FuzzSession {
  /// Sends `bytes` in pieces of any size and hands on what comes, until the server closes.
  private mutating func exchange(
    _ number: CInt, _ bytes: [UInt8], endsWriting: Bool,
    take: (ArraySlice<UInt8>) throws -> Void
  ) throws {
    let largest = [1 << 20, 1 << 20, 4096, 100, 7][below(5)]
    var sent = 0
    // Byte by byte all the way would take its time.
    var smallCount = 400
    var isWriting = true
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    let deadline = Deadline.milliseconds(Self.waitMilliseconds)
    while true {
      if isWriting, sent == bytes.count {
        isWriting = false
        if endsWriting { _ = clinux_shutdown_writing(number) }
      }
      let events = CShort(clinux_POLLIN) | (isWriting ? CShort(clinux_POLLOUT) : 0)
      let ready = clinux_poll(number, events, deadline.pollMilliseconds)
      guard ready != 0 else { throw Violation("nothing for \(Self.waitMilliseconds) ms") }
      if isWriting, ready & CInt(clinux_POLLOUT) != 0 {
        smallCount -= 1
        let count = min(smallCount > 0 ? 1 + below(largest) : 1 << 20, bytes.count - sent)
        let result = unsafe bytes.withUnsafeBytes { raw in
          // SAFETY: `sent` and `count` lie inside the array.
          unsafe clinux_send(number, raw.baseAddress! + sent, count, 0)
        }
        if result > 0 { sent += result }
        // The server has closed: what it had said before is still there.
        if result < 0, result != -11, result != -4 { isWriting = false }
      }
      let count = unsafe buffer.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage.
        unsafe clinux_recv(number, raw.baseAddress, raw.count, CInt(clinux_MSG_DONTWAIT))
      }
      if count > 0 {
        try take(buffer[..<count])
      } else if count == 0 || (count != -11 && count != -4) {
        return
      }
    }
  }

  /// Sends what can be sent at once and leaves without a look at the answers.
  private mutating func vanish(_ client: TestClient, after bytes: [UInt8]) throws {
    unsafe bytes.withUnsafeBytes { raw in
      // SAFETY: the array's own storage.
      _ = unsafe clinux_send(
        client.number, raw.baseAddress, raw.count, CInt(clinux_MSG_DONTWAIT))
    }
    if isOne(in: 2) { _ = clinux_shutdown(client.number) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Takes a stream of replies apart, in any of the three styles, and holds it against every rule that
// a server must keep. Source: NBD `doc/proto.md`, "Transmission phase".

import NBDProtocol
import WireFormat

/// A rule that the server broke, and how.
struct Violation: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// All that came in answer to one request.
struct Answer: Equatable {
  struct Piece: Equatable {
    var offset: UInt64
    var byteCount: Int
    var isHole: Bool
  }
  var error = ErrorNumber.none
  /// Of a READ, in the order in which they came.
  var pieces: [Piece] = []
  /// Of a READ that succeeded.
  var data: [UInt8] = []
  /// Of a BLOCK_STATUS that succeeded.
  var extents: [ExtentStatus] = []
}

struct ReplyChecker {
  /// A request that is out.
  private struct Open {
    var request: ExtendedRequest
    /// What a BLOCK_STATUS is about: with a payload the request itself does not say it.
    var length: UInt64
    var answer = Answer()
    var contents: [(offset: UInt64, bytes: [UInt8])] = []
    var statusCount = 0
  }

  let style: ReplyStyle
  private var open: [UInt64: Open] = [:]
  private var input: [UInt8] = []
  private var position = 0
  /// In the order in which they were complete.
  private(set) var answers: [(request: ExtendedRequest, answer: Answer)] = []
  /// At least so many bytes are needed to go on.
  private(set) var missingByteCount = 1

  init(style: ReplyStyle) { self.style = style }

  var outstanding: [ExtendedRequest] { open.values.map(\.request) }

  /// `request` goes out; no other one that is out has its cookie.
  mutating func expect(_ request: ExtendedRequest, length: UInt64? = nil) {
    precondition(open[request.cookie] == nil, "a cookie is used once at a time")
    open[request.cookie] = Open(request: request, length: length ?? request.length)
  }

  mutating func takeAnswers() -> [(request: ExtendedRequest, answer: Answer)] {
    defer { answers = [] }
    return answers
  }

  mutating func receive(_ bytes: some Sequence<UInt8>) throws(Violation) {
    input += bytes
    while try parse() {}
    input.removeFirst(position)
    position = 0
  }

  private mutating func have(_ count: Int) -> Bool {
    missingByteCount = max(1, count - (input.count - position))
    return input.count - position >= count
  }

  /// False when more bytes are needed.
  private mutating func parse() throws(Violation) -> Bool {
    guard have(4) else { return false }
    let magic = Array(input[position..<(position + 4)]).span.bigEndian(UInt32.self, at: 0)
    switch magic {
    case SimpleReply.magic where style != .extended: return try parseSimple()
    case StructuredChunkHeader.magic where style == .structured: return try parseStructured()
    case ExtendedChunkHeader.magic where style == .extended: return try parseExtended()
    default: throw Violation("0x\(String(magic, radix: 16)) where a reply belongs")
    }
  }

  private func decode<Value>(_ body: () throws(WireError) -> Value) throws(Violation) -> Value {
    do { return try body() } catch { throw Violation(error.reason) }
  }

  private func entry(_ cookie: UInt64) throws(Violation) -> Open {
    guard let entry = open[cookie] else { throw Violation("no request has cookie \(cookie)") }
    return entry
  }

  private mutating func parseSimple() throws(Violation) -> Bool {
    guard have(SimpleReply.byteCount) else { return false }
    let head = Array(input[position..<(position + SimpleReply.byteCount)])
    let reply = try decode { () throws(WireError) in try SimpleReply(decoding: head.span) }
    var entry = try entry(reply.cookie)
    let command = entry.request.command
    if style == .structured, command == .read || (command == .blockStatus && reply.error == .none) {
      throw Violation("a simple reply to \(entry.request)")
    }
    let isData = command == .read && reply.error == .none
    let dataCount = isData ? Int(entry.request.length) : 0
    guard have(SimpleReply.byteCount + dataCount) else { return false }
    position += SimpleReply.byteCount
    entry.answer.error = reply.error
    if dataCount > 0 {
      entry.answer.pieces = [
        Answer.Piece(offset: entry.request.offset, byteCount: dataCount, isHole: false)
      ]
      entry.contents = [
        (entry.request.offset, Array(input[position..<(position + dataCount)]))
      ]
      position += dataCount
    }
    try finish(entry)
    return true
  }

  private mutating func parseStructured() throws(Violation) -> Bool {
    guard have(StructuredChunkHeader.byteCount) else { return false }
    let head = Array(input[position..<(position + StructuredChunkHeader.byteCount)])
    let header = try decode { () throws(WireError) in
      try StructuredChunkHeader(decoding: head.span)
    }
    return try parseChunk(
      header.flags, header.type, header.cookie, headCount: head.count,
      payloadCount: UInt64(header.payloadByteCount))
  }

  private mutating func parseExtended() throws(Violation) -> Bool {
    guard have(ExtendedChunkHeader.byteCount) else { return false }
    let head = Array(input[position..<(position + ExtendedChunkHeader.byteCount)])
    let header = try decode { () throws(WireError) in
      try ExtendedChunkHeader(decoding: head.span)
    }
    let entry = try entry(header.cookie)
    guard header.offset == entry.request.offset else {
      throw Violation("offset \(header.offset) in the answer to \(entry.request)")
    }
    return try parseChunk(
      header.flags, header.type, header.cookie, headCount: head.count,
      payloadCount: header.payloadByteCount)
  }

  private mutating func parseChunk(
    _ flags: ChunkFlags, _ type: ChunkType, _ cookie: UInt64, headCount: Int, payloadCount: UInt64
  ) throws(Violation) -> Bool {
    guard flags.isSubset(of: .done) else { throw Violation("chunk flags \(flags.rawValue)") }
    guard payloadCount <= (32 << 20) + 8 else {
      throw Violation("\(payloadCount) bytes in a chunk")
    }
    guard have(headCount + Int(payloadCount)) else { return false }
    let start = position + headCount
    position = start + Int(payloadCount)
    let payload = Array(input[start..<position])
    var entry = try entry(cookie)
    try take(type, payload, isLast: flags.contains(.done), into: &entry)
    open[cookie] = entry
    if flags.contains(.done) { try finish(entry) }
    return true
  }

  private func take(
    _ type: ChunkType, _ payload: [UInt8], isLast: Bool, into entry: inout Open
  ) throws(Violation) {
    let request = entry.request
    switch type {
    case .none:
      guard payload.isEmpty, isLast else { throw Violation("a NONE that is more") }
    case .offsetData:
      guard payload.count > 8 else { throw Violation("data without bytes") }
      let offset = payload.span.bigEndian(UInt64.self, at: 0)
      try take(offset, Array(payload[8...]), isHole: false, into: &entry)
    case .offsetHole:
      let hole = try decode { () throws(WireError) in try HoleChunk(decoding: payload.span) }
      try take(
        hole.offset, [UInt8](repeating: 0, count: Int(hole.byteCount)), isHole: true, into: &entry)
    case .blockStatus, .blockStatusExtended:
      guard (type == .blockStatusExtended) == (style == .extended) else {
        throw Violation("block status of the other form")
      }
      let chunk = try decode { () throws(WireError) in
        try BlockStatusChunk(decoding: payload.span, isExtended: style == .extended)
      }
      guard request.command == .blockStatus, chunk.contextID == MetaContext.allocationID else {
        throw Violation("block status of context \(chunk.contextID) for \(request)")
      }
      entry.statusCount += 1
      entry.answer.extents = chunk.extents
    case .error, .errorOffset:
      let chunk = try decode { () throws(WireError) in
        try ErrorChunk(decoding: payload.span, type: type)
      }
      entry.answer.error = chunk.error
    default:
      throw Violation("a chunk of type \(type.rawValue)")
    }
  }

  private func take(
    _ offset: UInt64, _ bytes: [UInt8], isHole: Bool, into entry: inout Open
  ) throws(Violation) {
    let request = entry.request
    guard request.command == .read, offset >= request.offset,
      offset - request.offset <= request.length,
      UInt64(bytes.count) <= request.length - (offset - request.offset)
    else { throw Violation("\(bytes.count) bytes at \(offset) in the answer to \(request)") }
    entry.answer.pieces.append(
      Answer.Piece(offset: offset, byteCount: bytes.count, isHole: isHole))
    entry.contents.append((offset, bytes))
  }

  private mutating func finish(_ finished: Open) throws(Violation) {
    var entry = finished
    open[entry.request.cookie] = nil
    guard entry.answer.error == .none else {
      guard entry.answer.error.name != nil else {
        throw Violation("error \(entry.answer.error.rawValue), which is none of the protocol's")
      }
      answers.append((entry.request, entry.answer))
      return
    }
    switch entry.request.command {
    case .read:
      if entry.request.flags.contains(.df), entry.answer.pieces.count > 1 {
        throw Violation("\(entry.answer.pieces.count) pieces in spite of DF")
      }
      var next = entry.request.offset
      for (offset, bytes) in entry.contents.sorted(by: { $0.offset < $1.offset }) {
        guard offset == next else { throw Violation("a gap or an overlap at \(offset)") }
        entry.answer.data += bytes
        next += UInt64(bytes.count)
      }
      guard UInt64(entry.answer.data.count) == entry.request.length else {
        throw Violation("\(entry.answer.data.count) bytes for \(entry.request)")
      }
    case .blockStatus:
      guard entry.statusCount == 1 else {
        throw Violation("\(entry.statusCount) status chunks for \(entry.request)")
      }
      try check(entry.answer.extents, of: entry)
    default:
      break
    }
    answers.append((entry.request, entry.answer))
  }

  private func check(_ extents: [ExtentStatus], of entry: Open) throws(Violation) {
    var sum: UInt64 = 0
    for (index, extent) in extents.enumerated() {
      guard sum < entry.length else { throw Violation("an extent past the range: \(extents)") }
      sum &+= extent.byteCount
      if index > 0, extents[index - 1].flags == extent.flags {
        throw Violation("neighbours are alike: \(extents)")
      }
      guard extent.flags.isSubset(of: [.hole, .zero]) else {
        throw Violation("extent flags \(extent.flags.rawValue)")
      }
    }
    if entry.request.flags.contains(.reqOne), extents.count != 1 || sum > entry.length {
      throw Violation("\(extents.count) extents of \(sum) bytes in spite of REQ_ONE")
    }
  }
}

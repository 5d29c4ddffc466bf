// SPDX-License-Identifier: Apache-2.0
// A client in the transmission phase, in any of the three styles, one request at a time.

import NBDProtocol
import TestSupport
import Testing
import WireFormat

final class StyledClient {
  let client: TestClient
  let style: ReplyStyle
  /// What the server said of the export.
  let told: TransmissionFlags
  private var checker: ReplyChecker
  private var cookie: UInt64 = 0

  init(
    _ server: ServerUnderTest, _ export: ByteString = "disk", style: ReplyStyle,
    hasContext: Bool = true
  ) throws {
    let client = try server.connect()
    _ = try client.receive(ServerGreeting.byteCount)
    try client.send(ClientFlags([.fixedNewstyle, .noZeroes]).encoded)
    if let option = Self.option(of: style) {
      #expect(try client.option(option, []).type == .ack)
      if hasContext {
        let request = MetaContextRequest(name: export, queries: [MetaContext.allocationName])
        #expect(try client.option(.setMetaContext, request.encoded).type == .metaContext)
        _ = try client.receive(OptionReplyHeader.byteCount)
      }
    }
    let data = InformationRequest(name: export, items: [.blockSize]).encoded
    try client.send(
      OptionHeader(option: .go, dataByteCount: UInt32(data.count)).encoded + data)
    var flags: TransmissionFlags = []
    while true {
      let head = try client.receive(OptionReplyHeader.byteCount)
      let header = try OptionReplyHeader(decoding: head.span)
      let data = try client.receive(Int(header.dataByteCount))
      if header.type == .ack { break }
      try #require(header.type == .info)
      if case .export(_, let found) = try InformationItem(decoding: data.span) { flags = found }
    }
    self.client = client
    self.style = style
    told = flags
    checker = ReplyChecker(style: style)
  }

  /// What is sent to get there; nil: nothing.
  static func option(of style: ReplyStyle) -> OptionCode? {
    switch style {
    case .simple: nil
    case .structured: .structuredReply
    case .extended: .extendedHeaders
    }
  }

  /// The request as it goes out; a compact one has 32 bits for its length.
  static func encode(_ request: ExtendedRequest, style: ReplyStyle) -> [UInt8] {
    if style == .extended { return request.encoded }
    return Request(
      flags: request.flags, command: request.command, cookie: request.cookie,
      offset: request.offset, length: UInt32(request.length)
    ).encoded
  }

  /// `length`: what a BLOCK_STATUS with a payload is about.
  func ask(
    _ command: CommandCode, _ flags: CommandFlags = [], at offset: UInt64 = 0,
    count: UInt64 = 0, payload: [UInt8] = [], length: UInt64? = nil
  ) throws -> Answer {
    cookie += 1
    let request = ExtendedRequest(
      flags: flags, command: command, cookie: cookie, offset: offset, length: count)
    checker.expect(request, length: length)
    try client.send(Self.encode(request, style: style) + payload)
    while checker.answers.isEmpty {
      try checker.receive(client.receive(checker.missingByteCount))
    }
    return checker.takeAnswers()[0].answer
  }

  /// A WRITE, with the flag that extended headers want.
  func write(
    _ bytes: [UInt8], at offset: UInt64, _ flags: CommandFlags = []
  ) throws -> ErrorNumber {
    let all = style == .extended ? flags.union(.payloadLength) : flags
    return try ask(.write, all, at: offset, count: UInt64(bytes.count), payload: bytes).error
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client's side of the handshake, for a connection that the kernel takes over: no structured
// replies, no contexts, and never a byte read beyond the handshake.
//
//   greeting ─► (session ─►) GO name 1 ─ERR_UNKNOWN─► GO name 2 ... ─► information* ─► ACK: finished
//      │                        └──ERR_UNSUP──┐
//      └──not fixed newstyle────────────► EXPORT_NAME ──► size and flags: finished
//
// With an identity the session option goes first; a server that does not know it is used without.
//
// Touches nothing: `neededByteCount` says how many bytes to read next, `receive` takes exactly
// those and gives back what to send.

import WireFormat

/// What a server offers under a name, as far as it has said.
public struct NegotiatedExport: Equatable, Sendable {
  /// As asked for; the one of the candidates that exists.
  public var name: ByteString
  /// In bytes.
  public var byteCount: UInt64
  /// As the server sent them, with the bits that have no name here.
  public var flags: TransmissionFlags
  /// Nil when the server did not say; then the defaults hold.
  public var blockSizes: BlockSizes?
  /// The server took the identity: it fences the connection that this one replaces.
  public var isSessionAccepted = false

  public init(
    name: ByteString, byteCount: UInt64, flags: TransmissionFlags, blockSizes: BlockSizes? = nil,
    isSessionAccepted: Bool = false
  ) {
    self.name = name
    self.byteCount = byteCount
    self.flags = flags
    self.blockSizes = blockSizes
    self.isSessionAccepted = isSessionAccepted
  }
}

/// The handshake of one connection, from its first byte to the export: see the head of this file.
public struct ClientNegotiation: Sendable {
  /// One server sends four; more than this is not an answer but an attack.
  public static let informationReplyCountMaximum = 32

  private enum State: Equatable {
    case awaitingGreeting
    case awaitingSessionHeader
    case awaitingSessionData(OptionReplyHeader)
    case awaitingReplyHeader(candidate: Int)
    case awaitingReplyData(candidate: Int, OptionReplyHeader)
    case awaitingExportNameAnswer(candidate: Int, isPadded: Bool)
    case finished(NegotiatedExport)
  }

  private var state = State.awaitingGreeting
  private var export: NegotiatedExport
  private var hasInformation = false
  private var replyCount = 0
  private var skipsZeroes = false
  private var isSessionAccepted = false
  private let candidates: [ByteString]
  private let identity: SessionIdentity?

  /// `candidates` are the names to ask for, in order; at least one, each a valid export name.
  /// `identity`: what to tell a server that knows our session option.
  public init(candidates: [ByteString], identity: SessionIdentity? = nil) {
    precondition(!candidates.isEmpty, "a handshake needs a name to ask for")
    self.candidates = candidates
    self.identity = identity
    export = NegotiatedExport(name: candidates[0], byteCount: 0, flags: [], blockSizes: nil)
  }

  /// How many bytes `receive` takes next; 0 when finished.
  public var neededByteCount: Int {
    switch state {
    case .awaitingGreeting: ServerGreeting.byteCount
    case .awaitingReplyHeader, .awaitingSessionHeader: OptionReplyHeader.byteCount
    case .awaitingReplyData(_, let header), .awaitingSessionData(let header):
      Int(header.dataByteCount)
    case .awaitingExportNameAnswer(_, let isPadded):
      ExportNameAnswer.byteCount + (isPadded ? ExportNameAnswer.paddingByteCount : 0)
    case .finished: 0
    }
  }

  /// Nil until the server has let the client in; from then on the stream carries transmission.
  public var finishedExport: NegotiatedExport? {
    if case .finished(let export) = state { return export }
    return nil
  }

  /// Where the handshake stands, for the text of a timeout.
  public var stage: NegotiationStage {
    if state == .awaitingGreeting { return .greeting }
    return hasInformation ? .exportInformation : .options
  }

  /// The bytes of a soft goodbye (ABORT) for a handshake that ends early; empty where the
  /// protocol has none.
  public var farewell: [UInt8] {
    switch state {
    case .awaitingReplyHeader, .awaitingReplyData, .awaitingSessionHeader, .awaitingSessionData:
      OptionHeader(option: .abort, dataByteCount: 0).encoded
    default: []
    }
  }

  /// Takes exactly `neededByteCount` bytes; gives back what to send, perhaps nothing.
  public mutating func receive(_ bytes: [UInt8]) throws(NegotiationError) -> [UInt8] {
    precondition(bytes.count == neededByteCount, "a handshake is read exactly")
    switch state {
    case .awaitingGreeting:
      return try receiveGreeting(bytes)
    case .awaitingSessionHeader:
      let header = try replyHeader(bytes, to: .session)
      if header.dataByteCount == 0 { return try receiveSessionReply(header, []) }
      state = .awaitingSessionData(header)
      return []
    case .awaitingSessionData(let header):
      return try receiveSessionReply(header, bytes)
    case .awaitingReplyHeader(let candidate):
      let header = try replyHeader(bytes, to: .go)
      if header.dataByteCount == 0 { return try receiveReply(header, [], candidate: candidate) }
      state = .awaitingReplyData(candidate: candidate, header)
      return []
    case .awaitingReplyData(let candidate, let header):
      return try receiveReply(header, bytes, candidate: candidate)
    case .awaitingExportNameAnswer:
      let answer: ExportNameAnswer
      do {
        answer = try ExportNameAnswer(
          decoding: bytes.span.extracting(first: ExportNameAnswer.byteCount))
      } catch { throw .violation(error) }
      export.byteCount = answer.exportByteCount
      export.flags = answer.flags
      state = .finished(export)
      return []
    case .finished:
      return []
    }
  }

  /// The peer ended the stream after `partial` of the bytes needed.
  public func ended(after partial: [UInt8]) -> NegotiationError {
    switch state {
    case .awaitingGreeting where !partial.isEmpty && !ServerGreetingPrefix.matches(partial):
      .notAnNBDServer(firstBytes: ByteString(partial))
    case .awaitingExportNameAnswer(let candidate, _):
      .closedAfterExportName(candidates[candidate])
    default: .closed(stage)
    }
  }

  private mutating func receiveGreeting(_ bytes: [UInt8]) throws(NegotiationError) -> [UInt8] {
    let greeting: ServerGreeting
    do {
      greeting = try ServerGreeting(decoding: bytes.span)
    } catch {
      switch error {
      case .magic(expected: ServerGreeting.optionMagic, actual: ServerGreeting.oldstyleMagic):
        throw .oldstyleServer
      case .magic(expected: ServerGreeting.magic, _):
        throw .notAnNBDServer(firstBytes: ByteString(bytes))
      default: throw .violation(error)
      }
    }
    let flags = ClientFlags(accepting: greeting.flags)
    skipsZeroes = flags.contains(.noZeroes)
    guard greeting.flags.contains(.fixedNewstyle) else {
      return flags.encoded + askOldServer(for: 0)
    }
    guard let identity else { return flags.encoded + ask(for: 0) }
    state = .awaitingSessionHeader
    let header = OptionHeader(
      option: .session, dataByteCount: UInt32(identity.encodedByteCount))
    return flags.encoded + header.encoded + identity.encoded
  }

  private func replyHeader(
    _ bytes: [UInt8], to option: OptionCode
  ) throws(NegotiationError) -> OptionReplyHeader {
    let header: OptionReplyHeader
    do { header = try OptionReplyHeader(decoding: bytes.span) } catch { throw .violation(error) }
    guard header.option == option else { throw .unexpectedReply(header.option, header.type) }
    return header
  }

  private mutating func receiveSessionReply(
    _ header: OptionReplyHeader, _ data: [UInt8]
  ) throws(NegotiationError) -> [UInt8] {
    switch header.type {
    case .ack: isSessionAccepted = true
    case .errUnsup: break
    case .errTLSRequired: throw .tlsRequired
    default:
      guard header.type.isError else { throw .unexpectedReply(header.option, header.type) }
      throw .sessionRefused(header.type, message: ByteString(data))
    }
    return ask(for: 0)
  }

  /// GO with the block sizes asked for, which commits us to obey them.
  private mutating func ask(for candidate: Int) -> [UInt8] {
    export = NegotiatedExport(
      name: candidates[candidate], byteCount: 0, flags: [], blockSizes: nil,
      isSessionAccepted: isSessionAccepted)
    hasInformation = false
    replyCount = 0
    state = .awaitingReplyHeader(candidate: candidate)
    let request = InformationRequest(name: candidates[candidate], items: [.blockSize])
    return OptionHeader(option: .go, dataByteCount: UInt32(request.encodedByteCount)).encoded
      + request.encoded
  }

  private mutating func askOldServer(for candidate: Int) -> [UInt8] {
    state = .awaitingExportNameAnswer(candidate: candidate, isPadded: !skipsZeroes)
    let name = candidates[candidate]
    return OptionHeader(option: .exportName, dataByteCount: UInt32(name.count)).encoded
      + name.bytes
  }

  private mutating func receiveReply(
    _ header: OptionReplyHeader, _ data: [UInt8], candidate: Int
  ) throws(NegotiationError) -> [UInt8] {
    state = .awaitingReplyHeader(candidate: candidate)
    switch header.type {
    case .info:
      replyCount += 1
      guard replyCount <= Self.informationReplyCountMaximum else {
        throw .tooManyReplies(maximum: Self.informationReplyCountMaximum)
      }
      try take(data)
      return []
    case .ack:
      guard hasInformation else { throw .acknowledgedWithoutInformation }
      state = .finished(export)
      return []
    case .errUnsup:
      return askOldServer(for: candidate)
    case .errUnknown:
      guard candidate + 1 < candidates.count else {
        throw .unknownExport(names: candidates, message: ByteString(data))
      }
      return ask(for: candidate + 1)
    case .errTLSRequired:
      throw .tlsRequired
    default:
      guard header.type.isError else { throw .unexpectedReply(header.option, header.type) }
      throw .refused(header.type, message: ByteString(data))
    }
  }

  private mutating func take(_ data: [UInt8]) throws(NegotiationError) {
    let item: InformationItem
    do { item = try InformationItem(decoding: data.span) } catch { throw .violation(error) }
    switch item {
    case .export(let byteCount, let flags):
      export.byteCount = byteCount
      export.flags = flags
      hasInformation = true
    case .blockSize(let sizes):
      guard sizes.isValid else { throw .invalidBlockSizes(sizes) }
      export.blockSizes = sizes
    case .name, .description, .other:
      break
    }
  }
}

/// Whether the first bytes of a peer could become a greeting.
private enum ServerGreetingPrefix {
  static func matches(_ bytes: [UInt8]) -> Bool {
    let magic = ServerGreeting(flags: []).encoded.prefix(8)
    return magic.starts(with: bytes.prefix(8))
  }
}

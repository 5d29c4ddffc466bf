// SPDX-License-Identifier: Apache-2.0
// The client's side of the handshake, for a connection that the kernel takes over: no structured
// replies, no contexts, and never a byte read beyond the handshake.
//
//   greeting ──► GO name 1 ──ERR_UNKNOWN──► GO name 2 ... ──► information* ──► ACK: finished
//      │             └──ERR_UNSUP──┐
//      └──not fixed newstyle──► EXPORT_NAME ──► size and flags: finished
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
  public var flags: TransmissionFlags
  /// Nil when the server did not say; then the defaults hold.
  public var blockSizes: BlockSizes?
}

public struct ClientNegotiation: Sendable {
  /// One server sends four; more than this is not an answer but an attack.
  public static let informationReplyCountMaximum = 32

  private enum State: Equatable {
    case awaitingGreeting
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
  private let candidates: [ByteString]

  /// `candidates` are the names to ask for, in order; at least one, each a valid export name.
  public init(candidates: [ByteString]) {
    precondition(!candidates.isEmpty, "a handshake needs a name to ask for")
    self.candidates = candidates
    export = NegotiatedExport(name: candidates[0], byteCount: 0, flags: [], blockSizes: nil)
  }

  /// How many bytes `receive` takes next; 0 when finished.
  public var neededByteCount: Int {
    switch state {
    case .awaitingGreeting: ServerGreeting.byteCount
    case .awaitingReplyHeader: OptionReplyHeader.byteCount
    case .awaitingReplyData(_, let header): Int(header.dataByteCount)
    case .awaitingExportNameAnswer(_, let isPadded):
      ExportNameAnswer.byteCount + (isPadded ? ExportNameAnswer.paddingByteCount : 0)
    case .finished: 0
    }
  }

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
    case .awaitingReplyHeader, .awaitingReplyData:
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
    case .awaitingReplyHeader(let candidate):
      let header: OptionReplyHeader
      do { header = try OptionReplyHeader(decoding: bytes.span) } catch { throw .violation(error) }
      guard header.option == .go else { throw .unexpectedReply(header.option, header.type) }
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
    let isFixed = greeting.flags.contains(.fixedNewstyle)
    return flags.encoded + (isFixed ? ask(for: 0) : askOldServer(for: 0))
  }

  /// GO with the block sizes asked for, which commits us to obey them.
  private mutating func ask(for candidate: Int) -> [UInt8] {
    export = NegotiatedExport(
      name: candidates[candidate], byteCount: 0, flags: [], blockSizes: nil)
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

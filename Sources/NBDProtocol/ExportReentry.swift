// SPDX-License-Identifier: Apache-2.0
// The handshake of a reconnection, by a process that must not allocate: all that can be sent is
// made beforehand, and what comes in is looked at where it lies.
//
//   greeting ─► client flags, session, GO (one message) ─► session's answer ─► information* ─► ACK
//                                                                     └─ERR_UNSUP─► EXPORT_NAME
//
// Touches nothing: `neededByteCount` says how many bytes to read next, `receive` looks at exactly
// those and says what to send.

public import WireFormat

/// Why a reconnection did not reach the export. No payload that would need memory.
public enum ReentryError: Error, Equatable, Sendable {
  /// The greeting has a wrong magic: also an oldstyle server.
  case notAnNBDServer
  /// The peer speaks NBD and breaks its rules, or is no longer the fixed newstyle server that it
  /// was.
  case violation
  /// GO was answered ERR_UNKNOWN: the server has no export of this name now.
  case unknownExport
  /// The session option or GO was answered ERR_TLS_REQD, and this client has no TLS.
  case tlsRequired
  /// A newer connection of this attachment is there already, or what it wrote is not.
  case sessionRefused
  /// GO was answered with an error that has no case of its own here.
  case refused
  /// The block sizes break the rules of `BlockSizes`.
  case invalidBlockSizes

  /// For a log line, behind the server's address; without values, for those would need memory.
  public var text: StaticString {
    switch self {
    case .notAnNBDServer: "what listens there is no NBD server"
    case .violation: "the server broke the protocol"
    case .unknownExport: "the server has no such export"
    case .tlsRequired: "the server wants TLS"
    case .sessionRefused: "the server does not take the connection as one of this attachment's"
    case .refused: "the server refused the export"
    case .invalidBlockSizes: "the server's block sizes make no sense"
    }
  }
}

/// What a server shows under the name at a reconnection.
public struct ReenteredExport: Equatable, Sendable {
  /// In bytes; to be compared with the device's before it is used again.
  public var byteCount: UInt64 = 0
  /// As the server sent them this time.
  public var flags: TransmissionFlags = []
  /// Nil when the server did not say; then the defaults hold.
  public var blockSizes: BlockSizes?

  public init(
    byteCount: UInt64 = 0, flags: TransmissionFlags = [], blockSizes: BlockSizes? = nil
  ) {
    self.byteCount = byteCount
    self.flags = flags
    self.blockSizes = blockSizes
  }
}

/// The handshakes of one attachment's reconnections, one after the other: see the head of this
/// file.
public struct ExportReentry: Sendable {
  /// What to send after bytes were taken.
  public enum Answer: Equatable, Sendable { case nothing, opening, exportName }

  private enum State: Equatable {
    case greeting, sessionHeader, header
    case information(Int)
    /// Bytes of no interest, then the next header.
    case skipping(Int)
    case exportNameAnswer, finished
  }
  private enum AfterSkip { case nextHeader, exportName }

  /// More than any part that is looked at: the old answer with its padding.
  public static let chunkByteCount = 256

  /// The messages: complete, but for the generation in `opening` and the flags before it.
  public private(set) var opening: [UInt8]
  /// The option EXPORT_NAME, to be sent at `Answer.exportName`: to a server that has no GO.
  public let exportName: [UInt8]
  private let hasIdentity: Bool
  private let generationOffset: Int

  private var state = State.greeting
  private var afterSkip = AfterSkip.nextHeader
  private var replyCount = 0
  private var hasInformation = false
  private var skipsZeroes = false
  private var isSessionAnswered: Bool
  /// What the server has said since `restart`; complete only when `isFinished`.
  public private(set) var export = ReenteredExport()

  /// Allocates; everything after it does not. `identity` as for `ClientNegotiation`.
  public init(name: ByteString, identity: SessionIdentity?) {
    var bytes = ClientFlags(accepting: [.fixedNewstyle, .noZeroes]).encoded
    if let identity {
      bytes +=
        OptionHeader(option: .session, dataByteCount: UInt32(identity.encodedByteCount))
        .encoded
      generationOffset = bytes.count + 16
      bytes += identity.encoded
    } else {
      generationOffset = 0
    }
    let request = InformationRequest(name: name, items: [.blockSize])
    bytes += OptionHeader(option: .go, dataByteCount: UInt32(request.encodedByteCount)).encoded
    bytes += request.encoded
    opening = bytes
    exportName =
      OptionHeader(option: .exportName, dataByteCount: UInt32(name.count)).encoded + name.bytes
    hasIdentity = identity != nil
    isSessionAnswered = identity == nil
  }

  /// Begins anew, for a connection of this generation (nanoseconds of CLOCK_BOOTTIME).
  public mutating func restart(generation: UInt64) {
    state = .greeting
    afterSkip = .nextHeader
    replyCount = 0
    hasInformation = false
    isSessionAnswered = !hasIdentity
    export = ReenteredExport()
    guard hasIdentity else { return }
    for index in 0..<8 {
      opening[generationOffset + index] = UInt8(
        truncatingIfNeeded: generation >> UInt64(56 - index * 8))
    }
  }

  /// The export was entered: all bytes from now on belong to transmission.
  public var isFinished: Bool { state == .finished }

  /// How many bytes `receive` takes next, at most `chunkByteCount`; 0 when finished.
  public var neededByteCount: Int {
    switch state {
    case .greeting: ServerGreeting.byteCount
    case .sessionHeader, .header: OptionReplyHeader.byteCount
    case .information(let count): count
    case .skipping(let count): min(count, Self.chunkByteCount)
    case .exportNameAnswer:
      ExportNameAnswer.byteCount + (skipsZeroes ? 0 : ExportNameAnswer.paddingByteCount)
    case .finished: 0
    }
  }

  /// Takes exactly `neededByteCount` bytes.
  public mutating func receive(_ bytes: Span<UInt8>) throws(ReentryError) -> Answer {
    precondition(bytes.count == neededByteCount, "a handshake is read exactly")
    switch state {
    case .greeting:
      return try receiveGreeting(bytes)
    case .sessionHeader, .header:
      let header: OptionReplyHeader
      do { header = try OptionReplyHeader(decoding: bytes) } catch { throw .violation }
      guard header.option == (state == .sessionHeader ? .session : .go) else { throw .violation }
      return try state == .sessionHeader ? receiveSession(header) : receiveReply(header)
    case .information:
      try receiveInformation(bytes)
      state = .header
      return .nothing
    case .skipping(let count):
      if count > bytes.count {
        state = .skipping(count - bytes.count)
        return .nothing
      }
      return finishSkipping()
    case .exportNameAnswer:
      do {
        let answer = try ExportNameAnswer(
          decoding: bytes.extracting(first: ExportNameAnswer.byteCount))
        export.byteCount = answer.exportByteCount
        export.flags = answer.flags
      } catch { throw .violation }
      state = .finished
      return .nothing
    case .finished:
      return .nothing
    }
  }

  private mutating func receiveGreeting(_ bytes: Span<UInt8>) throws(ReentryError) -> Answer {
    let greeting: ServerGreeting
    do { greeting = try ServerGreeting(decoding: bytes) } catch { throw .notAnNBDServer }
    // A server that has changed so much is another one.
    guard greeting.flags.contains(.fixedNewstyle) else { throw .violation }
    skipsZeroes = greeting.flags.contains(.noZeroes)
    let flags = ClientFlags(accepting: greeting.flags).rawValue
    for index in 0..<4 {
      opening[index] = UInt8(truncatingIfNeeded: flags >> UInt32(24 - index * 8))
    }
    state = isSessionAnswered ? .header : .sessionHeader
    return .opening
  }

  private mutating func receiveSession(_ header: OptionReplyHeader) throws(ReentryError) -> Answer {
    switch header.type {
    case .ack, .errUnsup: return skip(header, then: .nextHeader)
    case .errTLSRequired: throw .tlsRequired
    default: throw header.type.isError ? .sessionRefused : .violation
    }
  }

  private mutating func receiveReply(_ header: OptionReplyHeader) throws(ReentryError) -> Answer {
    replyCount += 1
    guard replyCount <= ClientNegotiation.informationReplyCountMaximum else { throw .violation }
    switch header.type {
    case .info:
      let count = Int(header.dataByteCount)
      if count <= Self.chunkByteCount, count >= 2 {
        state = .information(count)
      } else {
        return skip(header, then: .nextHeader)
      }
    case .ack:
      guard hasInformation, header.dataByteCount == 0 else { throw .violation }
      state = .finished
    case .errUnsup:
      // An old server; its text comes before the answer to EXPORT_NAME.
      return skip(header, then: .exportName)
    case .errUnknown: throw .unknownExport
    case .errTLSRequired: throw .tlsRequired
    default: throw header.type.isError ? .refused : .violation
    }
    return .nothing
  }

  private mutating func skip(_ header: OptionReplyHeader, then: AfterSkip) -> Answer {
    afterSkip = then
    guard header.dataByteCount > 0 else { return finishSkipping() }
    state = .skipping(Int(header.dataByteCount))
    return .nothing
  }

  private mutating func finishSkipping() -> Answer {
    switch afterSkip {
    case .nextHeader:
      state = .header
      return .nothing
    case .exportName:
      state = .exportNameAnswer
      return .exportName
    }
  }

  private mutating func receiveInformation(_ bytes: Span<UInt8>) throws(ReentryError) {
    switch InformationType(rawValue: bytes.bigEndian(UInt16.self, at: 0)) {
    case .export:
      guard bytes.count == 12 else { throw .violation }
      export.byteCount = bytes.bigEndian(UInt64.self, at: 2)
      export.flags = TransmissionFlags(rawValue: bytes.bigEndian(UInt16.self, at: 10))
      hasInformation = true
    case .blockSize:
      guard bytes.count == 14 else { throw .violation }
      let sizes = BlockSizes(
        minimum: bytes.bigEndian(UInt32.self, at: 2),
        preferred: bytes.bigEndian(UInt32.self, at: 6),
        maximumPayload: bytes.bigEndian(UInt32.self, at: 10))
      guard sizes.isValid else { throw .invalidBlockSizes }
      export.blockSizes = sizes
    default: break
    }
  }
}

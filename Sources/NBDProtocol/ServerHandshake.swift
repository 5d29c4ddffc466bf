// SPDX-License-Identifier: Apache-2.0
// The server's half of fixed newstyle negotiation, as a machine that touches nothing.
//
//   clientFlags ──► option ──► (findExport | listExports | checkSession: the caller answers)
//                     │  ▲                       │ └──► option
//                     ▼  │                       └─► entering (GO, EXPORT_NAME) ──► transmission
//                  skipping                      └─► closing
//
// Bytes go in by `receive`, in any split; `next` says what to do. A client can make the machine
// hold one option's data and one answer, never more: data that would not fit is skipped.

import WireFormat

/// What a client is told of an export.
public struct ExportFacts: Equatable, Sendable {
  /// The name that the export has, whatever it was asked for by.
  public var name: ByteString
  public var description: ByteString
  /// The size as the client sees it, in bytes.
  public var byteCount: UInt64
  /// What the export can do, before `SessionTerms.flags(of:)` adds what follows from the handshake.
  public var flags: TransmissionFlags
  /// Told to a client that asks, and to every client when requests must be aligned.
  public var blockSizes: BlockSizes

  public init(
    name: ByteString, description: ByteString, byteCount: UInt64, flags: TransmissionFlags,
    blockSizes: BlockSizes
  ) {
    self.name = name
    self.description = description
    self.byteCount = byteCount
    self.flags = flags
    self.blockSizes = blockSizes
  }
}

/// The negotiation of one connection: see the head of this file.
public struct ServerHandshake: Sendable {
  /// What the caller does next. After `send`, `next` is asked again; after `receive`, once more
  /// bytes have been handed in.
  public enum Action: Equatable, Sendable {
    /// More bytes are needed from the client.
    case receive
    /// To the client, all of it, before anything else.
    case send([UInt8])
    /// Answer with `answer(found:)` or `answer(refusing:text:)`. `isEntry`: on success the client
    /// is in the transmission phase.
    case findExport(ByteString, isEntry: Bool)
    /// Answer with `answer(listing:)` or `answer(refusing:text:)`.
    case listExports
    /// The client says which attachment it belongs to. Answer with `acceptSession()`, after which
    /// it is `identity`, or `answer(refusing:text:)`.
    case checkSession(SessionIdentity)
    /// The transmission phase begins; `received` are its first bytes, if any have come already.
    case enter(received: [UInt8])
    /// No export is entered, and nothing more is to be sent: the caller closes the connection.
    case close(Ending)
  }

  /// Why no export was entered.
  public enum Ending: Error, Equatable, Sendable {
    /// The client sent ABORT, and was answered.
    case aborted
    /// It set flags that were not offered.
    case clientFlags(UInt32)
    /// Where an option had to begin.
    case notAnOption(magic: UInt64)
    /// Above `skippedByteCountMaximum`, in bytes.
    case optionTooLong(UInt32)
    /// More than the `optionCountMaximum` of the initializer.
    case tooManyOptions
    /// An option other than EXPORT_NAME of a client that had not set the flag.
    case notFixedNewstyle(OptionCode)
    /// EXPORT_NAME has no other way to say no.
    case exportNameRefused
    /// Its answer has no room for what was agreed on.
    case exportNameAfterExtendedHeaders

    /// What happened, with the values seen, for the log.
    public var reason: String {
      switch self {
      case .aborted: "the client ended the negotiation"
      case .clientFlags(let flags): "the client set unknown flags 0x\(String(flags, radix: 16))"
      case .notAnOption(let magic):
        "the client sent 0x\(String(magic, radix: 16)), not an option; it does not speak NBD"
      case .optionTooLong(let count): "the client announced an option of \(count) bytes"
      case .tooManyOptions: "the client sent too many options"
      case .notFixedNewstyle(let option):
        "the client sent option \(option.rawValue) without the fixed newstyle"
      case .exportNameRefused: "the client named an export that it cannot have"
      case .exportNameAfterExtendedHeaders:
        "the client sent EXPORT_NAME after it had asked for extended headers"
      }
    }
  }

  /// Option data up to here are looked at. Longer data of a known option are answered TOO_BIG.
  public static let dataByteCountMaximum = UInt32(InformationRequest.byteCountMaximum)
  /// Option data up to here are skipped; a longer option ends the connection.
  public static let skippedByteCountMaximum: UInt32 = 1 << 20

  private struct Refusal: Equatable, Sendable {
    var option: OptionCode
    var type: OptionReplyType
    var text: ByteString
  }
  private enum State: Equatable, Sendable {
    case clientFlags
    case option
    case skipping(remaining: UInt32, then: Refusal)
    case awaitingExport(OptionCode, InformationRequest)
    /// LIST or SET_META_CONTEXT: the export must be there.
    case awaitingContexts(OptionCode, MetaContextRequest)
    case awaitingList
    case awaitingSession(SessionIdentity)
    case entering
    case closing(Ending)
  }

  private let offer: HandshakeFlags
  private let optionCountMaximum: Int
  private var state = State.clientFlags
  private var clientFlags: ClientFlags = []
  private var optionCount = 0
  private var input: [UInt8] = []
  private var consumed = 0
  private var output: [UInt8]

  /// The export that base:allocation was chosen for, by the last SET_META_CONTEXT.
  private var allocationExport: ByteString?

  /// What has been agreed on so far; of the contexts, once an export is entered.
  public private(set) var terms = SessionTerms()
  /// Which attachment the client belongs to, once it has said so and was accepted.
  public private(set) var identity: SessionIdentity?
  /// From now on options are answered SHUTDOWN.
  public var isStopping = false

  /// For a new connection, whose greeting is the first thing that `next` sends. A client may send
  /// `optionCountMaximum` options, whatever they are; one more ends the connection.
  public init(optionCountMaximum: Int = 64) {
    offer = [.fixedNewstyle, .noZeroes]
    self.optionCountMaximum = optionCountMaximum
    output = ServerGreeting(flags: offer).encoded
  }

  /// Hands in what the client sent. The caller keeps the pieces small (64 KiB and less), and asks
  /// `next` until it says `receive` before the next piece.
  public mutating func receive(_ bytes: Span<UInt8>) {
    input.removeSubrange(0..<consumed)
    consumed = 0
    input.reserveCapacity(input.count + bytes.count)
    for index in bytes.indices { input.append(bytes[index]) }
  }

  /// What to do now. Looks at all that was handed in, and after each action is asked again.
  public mutating func next() -> Action {
    while true {
      guard let action = step() else { continue }
      // Whatever comes next, the answers to what has been leave first, in one piece.
      switch action {
      case .receive, .enter, .close:
        guard output.isEmpty else {
          let bytes = output
          output = []
          return .send(bytes)
        }
      case .send, .findExport, .listExports, .checkSession:
        break
      }
      return action
    }
  }

  /// Nil when the state has moved on without anything for the caller to do.
  private mutating func step() -> Action? {
    switch state {
    case .clientFlags:
      guard let bytes = take(ClientFlags.byteCount) else { return .receive }
      clientFlags = ClientFlags(rawValue: bytes.span.bigEndian(UInt32.self, at: 0))
      let isKnown = clientFlags.isSubset(of: ClientFlags(accepting: offer))
      state = isKnown ? .option : .closing(.clientFlags(clientFlags.rawValue))
    case .option:
      return optionStep()
    case .skipping(let remaining, let refusal):
      let count = min(Int(remaining), input.count - consumed)
      consumed += count
      let left = remaining - UInt32(count)
      if left > 0 {
        state = .skipping(remaining: left, then: refusal)
        return .receive
      }
      state = .option
      reply(to: refusal.option, refusal.type, data: refusal.text.bytes)
    case .awaitingExport(let option, let request):
      return .findExport(request.name, isEntry: option != .info)
    case .awaitingContexts(_, let request):
      return .findExport(request.name, isEntry: false)
    case .awaitingList:
      return .listExports
    case .awaitingSession(let identity):
      return .checkSession(identity)
    case .entering:
      return .enter(received: Array(input[consumed...]))
    case .closing(let ending):
      return .close(ending)
    }
    return nil
  }

  private mutating func take(_ count: Int) -> [UInt8]? {
    guard input.count - consumed >= count else { return nil }
    defer { consumed += count }
    return Array(input[consumed..<(consumed + count)])
  }
}

// Options.
extension ServerHandshake {
  private mutating func optionStep() -> Action? {
    guard input.count - consumed >= OptionHeader.byteCount else { return .receive }
    let header: OptionHeader
    do {
      header = try OptionHeader(
        decoding: Array(input[consumed..<(consumed + OptionHeader.byteCount)]).span)
    } catch {
      // The length is right, so it is the magic.
      let magic = Array(input[consumed..<(consumed + 8)]).span.bigEndian(UInt64.self, at: 0)
      state = .closing(.notAnOption(magic: magic))
      return nil
    }
    if let ending = ending(for: header) {
      state = .closing(ending)
      return nil
    }
    // Whatever becomes of it, what was chosen before counts no more.
    if header.option == .setMetaContext { allocationExport = nil }
    if let refusal = refusal(for: header) {
      consumed += OptionHeader.byteCount
      optionCount += 1
      state = .skipping(remaining: header.dataByteCount, then: refusal)
      return nil
    }
    let byteCount = OptionHeader.byteCount + Int(header.dataByteCount)
    guard let packet = take(byteCount) else { return .receive }
    optionCount += 1
    handle(header.option, data: packet.span.extracting(OptionHeader.byteCount..<byteCount))
    return nil
  }

  /// Why the connection ends at this header, before any of its data.
  private func ending(for header: OptionHeader) -> Ending? {
    if optionCount >= optionCountMaximum { return .tooManyOptions }
    if header.option != .exportName, !clientFlags.contains(.fixedNewstyle) {
      return .notFixedNewstyle(header.option)
    }
    if header.dataByteCount > Self.skippedByteCountMaximum {
      return .optionTooLong(header.dataByteCount)
    }
    if header.option == .exportName,
      header.dataByteCount > UInt32(ExportString.byteCountMaximum) || isStopping
    {
      return .exportNameRefused
    }
    if header.option == .exportName, terms.style == .extended {
      return .exportNameAfterExtendedHeaders
    }
    return nil
  }

  /// The answer to options whose data do not matter: they are skipped, however many they are.
  private func refusal(for header: OptionHeader) -> Refusal? {
    let option = header.option
    switch option {
    case .exportName:
      return nil
    case .abort:
      return Refusal(option: option, type: .ack, text: "")
    case _ where isStopping:
      return Refusal(option: option, type: .errShutdown, text: "the server is stopping")
    case .list:
      guard header.dataByteCount > 0 else { return nil }
      return Refusal(option: option, type: .errInvalid, text: "LIST takes no data")
    case .info, .go:
      guard header.dataByteCount > Self.dataByteCountMaximum else { return nil }
      return Refusal(
        option: option, type: .errTooBig,
        text: "a name is at most 4096 bytes, and at most 64 items can be asked for")
    case .structuredReply:
      if terms.style == .extended {
        return Refusal(
          option: option, type: .errExtHeaderRequired, text: "extended headers are in use")
      }
      guard header.dataByteCount > 0 else { return nil }
      return Refusal(option: option, type: .errInvalid, text: "STRUCTURED_REPLY takes no data")
    case .extendedHeaders:
      guard header.dataByteCount > 0 else { return nil }
      return Refusal(option: option, type: .errInvalid, text: "EXTENDED_HEADERS takes no data")
    case .listMetaContext, .setMetaContext:
      if terms.style == .simple {
        return Refusal(
          option: option, type: .errInvalid, text: "contexts need structured replies first")
      }
      guard header.dataByteCount > UInt32(MetaContextRequest.byteCountMaximum) else { return nil }
      return Refusal(option: option, type: .errTooBig, text: "queries may be 64 KiB together")
    case .session:
      guard header.dataByteCount != UInt32(SessionIdentity.byteCount) else { return nil }
      return Refusal(
        option: option, type: .errInvalid,
        text: "a session takes 28 bytes; update rootlink or rootlinkd")
    case .startTLS:
      return Refusal(option: option, type: .errUnsup, text: "this server has no TLS")
    default:
      return Refusal(option: option, type: .errUnsup, text: "this server does not know the option")
    }
  }

  /// Options that `refusal` lets through, with all of their data.
  private mutating func handle(_ option: OptionCode, data: Span<UInt8>) {
    switch option {
    case .list:
      state = .awaitingList
    case .structuredReply:
      terms.style = .structured
      reply(to: option, .ack)
    case .extendedHeaders:
      terms.style = .extended
      reply(to: option, .ack)
    case .listMetaContext, .setMetaContext:
      do {
        state = .awaitingContexts(option, try MetaContextRequest(decoding: data))
      } catch {
        reply(to: option, malformed: error)
      }
    case .session:
      do {
        state = .awaitingSession(try SessionIdentity(decoding: data))
      } catch {
        let text = "\(error.reason); update rootlink or rootlinkd"
        reply(to: option, .errInvalid, data: ByteString(text).bytes)
      }
    case .exportName:
      let name = ByteString(copying: data)
      state =
        ExportString.isValid(name)
        ? .awaitingExport(option, InformationRequest(name: name, items: []))
        : .closing(.exportNameRefused)
    default:
      do {
        state = .awaitingExport(option, try InformationRequest(decoding: data))
      } catch {
        reply(to: option, malformed: error)
      }
    }
  }

  private mutating func reply(to option: OptionCode, malformed error: WireError) {
    var type = OptionReplyType.errInvalid
    if case .limit = error { type = .errTooBig }
    reply(to: option, type, data: ByteString("the request is malformed: \(error.reason)").bytes)
  }

  private mutating func reply(to option: OptionCode, _ type: OptionReplyType, data: [UInt8] = []) {
    output.append(
      encoding: OptionReplyHeader(
        option: option, type: type, dataByteCount: UInt32(truncatingIfNeeded: data.count)))
    output += data
    if option == .abort { state = .closing(.aborted) }
  }
}

// The caller's answers.
extension ServerHandshake {
  /// The export that `findExport` asked for.
  public mutating func answer(found facts: ExportFacts) {
    if case .awaitingContexts(let option, let request) = state {
      return answer(option, request, contextsOf: facts)
    }
    guard case .awaitingExport(let option, let request) = state else { return }
    let flags = terms.flags(of: facts.flags)
    if option != .info { terms.hasAllocationContext = allocationExport == facts.name }
    guard option != .exportName else {
      output.append(encoding: ExportNameAnswer(exportByteCount: facts.byteCount, flags: flags))
      if !clientFlags.contains(.noZeroes) {
        output += [UInt8](repeating: 0, count: ExportNameAnswer.paddingByteCount)
      }
      state = .entering
      return
    }
    var items: [InformationItem] = [.export(byteCount: facts.byteCount, flags: flags)]
    for type in request.items {
      switch type {
      case .name: items.append(.name(facts.name))
      case .description where !facts.description.isEmpty:
        items.append(.description(facts.description))
      case .blockSize: items.append(.blockSize(facts.blockSizes))
      default: break  // EXPORT is there already; the unknown is ignored.
      }
    }
    // Who does not ask may know all the same, and must where bytes are not served one by one.
    if facts.blockSizes.minimum > 1, !request.items.contains(.blockSize) {
      items.append(.blockSize(facts.blockSizes))
    }
    for item in items { reply(to: option, .info, data: item.encoded) }
    reply(to: option, .ack)
    state = option == .go ? .entering : .option
  }

  private mutating func answer(
    _ option: OptionCode, _ request: MetaContextRequest, contextsOf facts: ExportFacts
  ) {
    let isSet = option == .setMetaContext
    if isSet ? request.selectsAllocation : request.listsAllocation {
      let id = isSet ? MetaContext.allocationID : 0
      let context = MetaContext(id: id, name: MetaContext.allocationName)
      reply(to: option, .metaContext, data: context.encoded)
      if isSet { allocationExport = facts.name }
    }
    reply(to: option, .ack)
    state = .option
  }

  /// Every export that `listExports` asked for, in the order to be shown.
  public mutating func answer(listing exports: [ListedExport]) {
    guard case .awaitingList = state else { return }
    for export in exports { reply(to: .list, .server, data: export.encoded) }
    reply(to: .list, .ack)
    state = .option
  }

  /// Yes to what `checkSession` asked. The last session that a client names counts.
  public mutating func acceptSession() {
    guard case .awaitingSession(let asked) = state else { return }
    identity = asked
    reply(to: .session, .ack)
    state = .option
  }

  /// No to what `findExport`, `listExports` or `checkSession` asked; `text` is for people, and cut at 4096 bytes.
  public mutating func answer(refusing type: OptionReplyType, text: ByteString) {
    let option: OptionCode
    switch state {
    case .awaitingExport(let asked, _): option = asked
    case .awaitingContexts(let asked, _): option = asked
    case .awaitingList: option = .list
    case .awaitingSession: option = .session
    default: return
    }
    guard option != .exportName else {
      state = .closing(.exportNameRefused)
      return
    }
    state = .option
    reply(to: option, type, data: Array(text.bytes.prefix(ExportString.byteCountMaximum)))
  }
}

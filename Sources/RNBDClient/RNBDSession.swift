// SPDX-License-Identifier: Apache-2.0
// A session with a server of block devices, and its requests: what joins the machines of RTRSProtocol
// and RNBDProtocol to a transport. Reads no clock and waits for nothing.
//
//   accept ─► (device open?) ─► ClientSession ─► transport ─► server
//                │ no                 ▲                          │
//                ▼                    │ opened                   ▼
//              parked ────────────────┘                next ─► completed
//
// Tell the transport what became readable, then take `next` until nil, then sleep until
// `wakeNanoseconds`. From `init` on nothing here allocates.

public import RNBDProtocol
public import RTRSProtocol
public import WireFormat

/// One operation on a device, as the device's owner has it.
public struct BlockOperation: Equatable, Sendable {
  /// The place among the devices that the session was made with.
  public var device: Int
  public var operation: IOOperation
  public var flags: IOFlags
  /// In sectors of 512 bytes; means nothing for a flush.
  public var firstSector: UInt64
  /// Of the data, or the extent of an operation without data; 0 for a flush.
  public var byteCount: UInt32

  public init(
    device: Int, _ operation: IOOperation, flags: IOFlags = [], firstSector: UInt64,
    byteCount: UInt32
  ) {
    self.device = device
    self.operation = operation
    self.flags = flags
    self.firstSector = firstSector
    self.byteCount = byteCount
  }

  /// Data go this way; a flush asks for an answer like a read, as Linux's client does.
  var direction: RequestDirection {
    operation == .read || operation == .flush ? .toClient : .toServer
  }
  var dataByteCount: UInt32 {
    operation == .read || operation == .write ? byteCount : 0
  }
}

/// What the owner of a session learns from `next`.
public enum SessionEvent: Equatable, Sendable {
  /// Of a read without an error: the data lie in the transport's memory.
  case completed(request: UInt16, error: PeerErrno)
  case device(ControlEvent)
  case pathIsUp(Int)
  /// So many requests that were out are sent again.
  case pathIsLost(Int, PathLoss, repeatedCount: Int)
}

/// The requests of one session, on whatever paths there are; owns the transport.
@safe public struct RNBDSession<Transport: PathTransport & ~Copyable>: ~Copyable {
  private struct Entry {
    var operation = BlockOperation(device: 0, .flush, firstSector: 0, byteCount: 0)
    /// Waits until its device is open again.
    var isParked = false
    var isTaken = false
  }

  public var transport: Transport
  private var session: ClientSession
  private var conversation: DeviceConversation
  private var entries: [Entry]
  private var generation: UInt32 = 0
  private var isControlOut = false
  /// Of the control message that was made last, and the room for its answer.
  private var controlByteCounts: (user: UInt16, answer: UInt32) = (0, 0)
  private var parkedCount = 0
  /// Where devices that were refused are asked for again.
  private var retryNanoseconds = UInt64.max
  private let makeRandom: @Sendable () -> UInt64

  /// How long a device that was refused is left alone: right after a crash of this machine the server
  /// still has it open for us, for half a minute.
  public static var retryIntervalNanoseconds: UInt64 { 1_000_000_000 }

  /// `session` must have as many requests and paths as the transport.
  public init(
    _ session: ClientSession, devices: [OpenRequest], transport: consuming Transport,
    random: @escaping @Sendable () -> UInt64
  ) {
    entries = [Entry](repeating: Entry(), count: Int(session.controlRequest))
    self.session = session
    conversation = DeviceConversation(devices)
    self.transport = transport
    makeRandom = random
  }

  public var pathCount: Int { session.pathCount }
  public var connectedPathCount: Int { session.connectedPathCount }
  public func isConnected(_ path: Int) -> Bool { session.isConnected(path) }
  /// What the server announced of its chunks; nil before the first path was up.
  public var geometry: ChunkGeometry? { session.geometry }
  /// In hand, wherever.
  public var outstandingCount: Int {
    session.outstandingCount + parkedCount - (isControlOut ? 1 : 0)
  }
  public func isOpen(_ device: Int) -> Bool { conversation.isOpen(device) }
  /// What the server said of the device when it was opened last; nil before.
  public func answer(of device: Int) -> OpenAnswer? { conversation.geometry(of: device) }

  /// When `next` is to be called though nothing became readable; `UInt64.max`: never.
  public var wakeNanoseconds: UInt64 {
    // Without a path nobody can be asked again.
    connectedPathCount > 0
      ? min(session.wakeNanoseconds, retryNanoseconds) : session.wakeNanoseconds
  }

  /// A request whose number is free; the data of a write lie in the transport's memory already.
  public mutating func accept(_ request: UInt16, _ operation: BlockOperation) {
    entries[Int(request)].operation = operation
    entries[Int(request)].isTaken = true
    guard conversation.isOpen(operation.device) || session.isHeld else { return park(request) }
    hand(request)
  }

  private mutating func hand(_ request: UInt16) {
    let operation = entries[Int(request)].operation
    session.accept(
      request, operation.direction, dataByteCount: operation.dataByteCount,
      userByteCount: UInt16(IORequest.byteCount))
  }

  private mutating func park(_ request: UInt16) {
    entries[Int(request)].isParked = true
    parkedCount += 1
  }

  private mutating func unpark() {
    guard parkedCount > 0 else { return }
    for request in entries.indices
    where entries[request].isParked && conversation.isOpen(entries[request].operation.device) {
      entries[request].isParked = false
      parkedCount -= 1
      hand(UInt16(truncatingIfNeeded: request))
    }
  }

  /// Whether a request is in hand.
  public func has(_ request: UInt16) -> Bool { entries[Int(request)].isTaken }

  /// Gives up a request in hand that is not out; false for one that is.
  public mutating func abandon(_ request: UInt16) -> Bool {
    if entries[Int(request)].isParked {
      entries[Int(request)].isParked = false
      parkedCount -= 1
    } else if !session.abandon(request) {
      return false
    }
    entries[Int(request)].isTaken = false
    return true
  }

  /// How many requests are out on a path, and how long its last heartbeat took.
  public func inFlightCount(on path: Int) -> Int { session.inFlightCount(on: path) }
  public func latencyNanoseconds(of path: Int) -> UInt64 { session.latencyNanoseconds(of: path) }

  /// Has the server close a device, for good. No request for it may be in hand.
  public mutating func close(device: Int) { conversation.close(device) }

  /// Ends every path, for good.
  public mutating func close() {
    for path in 0..<session.pathCount { session.lost(path, .closed) }
  }

  /// What happened; nil when there is nothing left to do now.
  public mutating func next(at nanoseconds: UInt64) -> SessionEvent? {
    while true {
      if let event = transport.nextEvent() {
        if let told = handle(event, at: nanoseconds) { return told }
        continue
      }
      var isBusy = false
      for path in 0..<session.pathCount {
        while let action = session.next(path, at: nanoseconds) {
          isBusy = true
          if let told = perform(action, path, at: nanoseconds) { return told }
        }
      }
      if converse(at: nanoseconds) { isBusy = true }
      while let posting = session.nextPosting() {
        isBusy = true
        if let loss = send(posting) { session.lost(posting.path, loss) }
      }
      guard isBusy else { return nil }
    }
  }

  // MARK: - Paths

  private mutating func handle(
    _ event: TransportEvent, at nanoseconds: UInt64
  ) -> SessionEvent? {
    // SAFETY: the transport's own memory, which stays as it is until its next event.
    let bytes = unsafe transport.eventBytes()
    switch event {
    case .established(let path, let connection):
      unsafe session.established(path, connection: connection, answer: bytes.span)
    case .rejected(let path, let reason):
      unsafe session.rejected(path, reason: reason, answer: bytes.span)
    case .lost(let path, let loss): session.lost(path, loss)
    case .informed(let path): unsafe session.informed(path, bytes.span, at: nanoseconds)
    case .received(let path, let connection, let immediate):
      let receipt = unsafe session.received(
        path, connection: connection, immediate: immediate, bytes: bytes.span, at: nanoseconds)
      switch receipt {
      case .completed(let request, let error): return finished(request, error, at: nanoseconds)
      case .acknowledge:
        if let loss = transport.sendHeartbeat(path, isAcknowledgement: true) {
          session.lost(path, loss)
        }
      case .nothing, .pathLost: break
      }
    }
    return nil
  }

  private mutating func perform(
    _ action: PathAction, _ path: Int, at nanoseconds: UInt64
  ) -> SessionEvent? {
    let loss: PathLoss?
    switch action {
    case .connect(let request): loss = transport.connect(path, request)
    case .sendInformation: loss = transport.sendInformation(path, name: session.name)
    case .postReceives:
      loss = transport.postReceives(path)
      if loss == nil {
        return .pathIsUp(path)
      }
    case .sendHeartbeat: loss = transport.sendHeartbeat(path, isAcknowledgement: false)
    case .tearDown(let reason):
      transport.tearDown(path)
      let count = session.tornDown(path, random: makeRandom(), at: nanoseconds)
      return .pathIsLost(path, reason, repeatedCount: count)
    }
    if let loss { session.lost(path, loss) }
    return nil
  }

  private mutating func finished(
    _ request: UInt16, _ error: PeerErrno, at nanoseconds: UInt64
  ) -> SessionEvent? {
    guard request == session.controlRequest else {
      guard error == .notConnected else {
        entries[Int(request)].isTaken = false
        return .completed(request: request, error: error)
      }
      // The server has closed the device under us: it is opened again, and the request repeated.
      conversation.reopen(entries[Int(request)].operation.device)
      park(request)
      return nil
    }
    isControlOut = false
    let data = unsafe transport.data(of: request)
    // SAFETY: the transport's own memory; the server has answered and writes no more into it.
    let bytes = unsafe UnsafeRawBufferPointer(data).bindMemory(to: UInt8.self)
    let count = min(bytes.count, Int(controlByteCounts.answer))
    let event = unsafe conversation.answered(
      error: error, data: bytes.span.extracting(first: count))
    switch event {
    // Asked again over a new path, and not at once: its server may be somebody else's.
    case .malformed(let error): lose(.malformed(error))
    case .informationRefused(let error): lose(.rejected(error))
    default: break
    }
    if case .refused = event { retryNanoseconds = nanoseconds &+ Self.retryIntervalNanoseconds }
    unpark()
    return event.map { .device($0) }
  }

  private mutating func lose(_ loss: PathLoss) {
    for path in 0..<session.pathCount where session.isConnected(path) { session.lost(path, loss) }
  }

  // MARK: - Devices

  /// True when something was done.
  private mutating func converse(at nanoseconds: UInt64) -> Bool {
    guard session.connectedPathCount > 0 else { return false }
    if generation != session.generation {
      // The server may know nothing of before.
      if isControlOut, !session.abandon(session.controlRequest) { return false }
      isControlOut = false
      generation = session.generation
      conversation.begin()
    }
    if nanoseconds >= retryNanoseconds {
      retryNanoseconds = .max
      for device in 0..<conversation.deviceCount { conversation.retry(device) }
    }
    guard !isControlOut else { return false }
    guard let message = conversation.next() else {
      guard session.isHeld, conversation.isSettled else { return false }
      session.resume()
      return true
    }
    let request = session.controlRequest
    let counts = conversation.byteCounts(of: message)
    // SAFETY: the transport's own memory, which nobody reads while no control message is out.
    let room = unsafe transport.messages(of: request).bindMemory(to: UInt8.self)
    var output = unsafe OutputSpan(buffer: room, initializedCount: 0)
    conversation.encode(message, into: &output)
    _ = unsafe output.finalize(for: room)
    isControlOut = true
    controlByteCounts = counts
    session.accept(
      request, counts.answer > 0 ? .toClient : .toServer, dataByteCount: counts.answer,
      userByteCount: counts.user)
    return true
  }

  // MARK: - Requests

  /// Which the server has for no device: it answers ENOTCONN. What it says of a device that we have
  /// not, or that is another than before, must not be written to.
  private static var noDevice: UInt32 { .max }

  /// Writes the messages of a request behind one another, and posts it.
  private mutating func send(_ posting: Posting) -> PathLoss? {
    let request = posting.request
    let isControl = request == session.controlRequest
    // SAFETY: the transport's own memory, of a request that is not out.
    let room = unsafe transport.messages(of: request).bindMemory(to: UInt8.self)
    // The message of a control request is there already.
    let userByteCount = isControl ? Int(controlByteCounts.user) : IORequest.byteCount
    var output = unsafe OutputSpan(buffer: room, initializedCount: isControl ? userByteCount : 0)
    if !isControl {
      let operation = entries[Int(request)].operation
      let isFlush = operation.operation == .flush
      IORequest(
        device: conversation.isOpen(operation.device)
          ? conversation.number(of: operation.device) : Self.noDevice,
        sector: isFlush ? IORequest.noSector : operation.firstSector,
        operation: operation.operation, flags: operation.flags,
        dataByteCount: isFlush ? 0 : operation.byteCount
      ).encode(into: &output)
    }
    let message: RequestMessage
    switch posting.direction {
    case .toServer: message = .write(userByteCount: UInt16(userByteCount))
    case .toClient:
      var destination: RegionDescriptor?
      if posting.dataByteCount > 0 {
        destination = transport.destination(of: request, on: posting.path)
        destination?.length = posting.dataByteCount
      }
      message = .read(
        userByteCount: UInt16(userByteCount), destination: destination, wantsInvalidation: false)
    }
    message.encode(into: &output)
    let count = unsafe output.finalize(for: room)
    return transport.post(posting, messageByteCount: count)
  }
}

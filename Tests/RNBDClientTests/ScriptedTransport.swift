// SPDX-License-Identifier: Apache-2.0
// A transport without a wire, and the server behind it: a disk in memory that answers when it is told
// to, closes paths, and refuses.

import RNBDProtocol
import RTRSProtocol
import WireFormat

@testable import RNBDClient

/// What a test sees and changes while a session owns the transport.
@safe final class ScriptedServer {
  struct Sent: Equatable {
    var path: Int
    var connection: UInt16
    var request: UInt16
    var isRepeated: Bool
    var messages: [UInt8]
    var immediate: UInt32
    var direction: RequestDirection
    var data: [UInt8]
  }

  static let chunkDataByteCount: UInt32 = 8192
  static let depth: UInt16 = 8

  var disk: [UInt8]
  /// The next I/O is not answered before `answerAll`.
  var isSilent = false
  var openErrors: [PeerErrno] = []
  var ioErrors: [PeerErrno] = []
  var sectorCount: UInt64
  var events: [(TransportEvent, [UInt8])] = []
  var sent: [Sent] = []
  var unanswered: [Sent] = []
  /// By path: the connections that are there.
  var connectionCounts: [Int]
  var openCount = 0
  /// Of the session: the last so many that were opened are open.
  var deviceCount = 1
  var closed: [UInt32] = []
  var tearDownCount = 0
  /// Calls of the transport so far, and the one that fails.
  var callCount = 0
  var failingCall = 0
  /// Where a read's data go.
  @unsafe var place: ((UInt16) -> UnsafeMutableRawBufferPointer)?

  init(pathCount: Int, sectorCount: UInt64 = 128) {
    connectionCounts = Array(repeating: 0, count: pathCount)
    self.sectorCount = sectorCount
    disk = (0..<Int(sectorCount * 512)).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 &+ $0) }
  }

  func fails() -> Bool {
    callCount += 1
    return callCount == failingCall
  }

  func breakPath(_ path: Int) {
    events.append((.lost(path: path, .disconnected), []))
  }

  func answerAll() {
    isSilent = false
    for one in unanswered { answer(one) }
    unanswered = []
  }

  func answer(_ one: Sent) {
    var error = PeerErrno.success
    let type = UInt16(one.messages[0]) | UInt16(one.messages[1]) << 8
    var reply: [UInt8] = []
    switch type {
    case 0: reply = SessionInformation(isAnswer: true).encoded
    case 2:
      openCount += 1
      if !openErrors.isEmpty { error = openErrors.removeFirst() }
      reply = OpenAnswer(device: UInt32(openCount), sectorCount: sectorCount).encoded
    case 4:
      guard let request = try? IORequest(decoding: one.messages.span.extracting(0..<32)) else {
        error = .invalid
        break
      }
      if !ioErrors.isEmpty { error = ioErrors.removeFirst() }
      let isOpen = (openCount - deviceCount + 1...openCount).contains(Int(request.device))
      if !isOpen { error = .notConnected }
      if error == .success, request.operation == .read || request.operation == .write {
        let start = Int(request.sector) * 512
        let range = start..<(start + Int(request.dataByteCount))
        if request.operation == .read { reply = Array(disk[range]) }
        if request.operation == .write { disk.replaceSubrange(range, with: one.data) }
      }
    case 5:
      if let request = try? CloseRequest(decoding: one.messages.span.extracting(0..<8)) {
        closed.append(request.device)
      }
    default: break
    }
    if error == .success, let place = unsafe place {
      let room = unsafe place(one.request)
      for (index, byte) in reply.enumerated() { unsafe room[index] = byte }
    }
    let chunk = one.immediate >> (28 - 3)
    let immediate = Immediate.response(
      ChunkResponse(chunk: chunk, error: error, isInvalidated: false))
    events.append(
      (
        .received(path: one.path, connection: one.connection, immediate: immediate.rawValue), []
      ))
  }
}

@safe struct ScriptedTransport: PathTransport, ~Copyable {
  let server: ScriptedServer
  let layout: TransportLayout
  @unsafe let data: UnsafeMutableRawBufferPointer
  @unsafe let messages: UnsafeMutableRawBufferPointer
  @unsafe var told: UnsafeMutableBufferPointer<UInt8>
  var toldCount = 0

  init(_ server: ScriptedServer, sizes: TransportSizes) {
    self.server = server
    layout = TransportLayout(sizes: sizes)
    unsafe data = .allocate(byteCount: layout.dataPagesByteCount, alignment: 8)
    unsafe messages = .allocate(byteCount: layout.messagePagesByteCount, alignment: 8)
    unsafe told = .allocate(capacity: 4096)
    let layout = layout
    let pages = unsafe data
    unsafe server.place = { request in
      unsafe UnsafeMutableRawBufferPointer(
        rebasing: pages[
          layout.dataOffset(request)..<(layout.dataOffset(request) + layout.dataRoom(request))])
    }
  }

  deinit {
    unsafe data.deallocate()
    unsafe messages.deallocate()
    unsafe told.deallocate()
  }

  mutating func nextEvent() -> TransportEvent? {
    guard !server.events.isEmpty else { return nil }
    let (event, bytes) = server.events.removeFirst()
    for (index, byte) in bytes.enumerated() { unsafe told[index] = byte }
    toldCount = bytes.count
    return event
  }
  borrowing func eventBytes() -> UnsafeBufferPointer<UInt8> {
    unsafe UnsafeBufferPointer(rebasing: told[..<toldCount])
  }

  private static var failure: PathLoss { .unreachable(errno: 5) }

  mutating func connect(_ path: Int, _ request: ConnectionRequest) -> PathLoss? {
    if server.fails() { return Self.failure }
    server.connectionCounts[path] += 1
    guard
      let geometry = try? ChunkGeometry(
        queueDepth: ScriptedServer.depth,
        dataByteCountMaximum: ScriptedServer.chunkDataByteCount, headerByteCountMaximum: 4096)
    else { return Self.failure }
    server.events.append(
      (
        .established(path: path, connection: request.connection),
        ConnectionAnswer(accepting: geometry, flags: []).encoded
      ))
    return nil
  }
  mutating func sendInformation(_ path: Int, name: SessionName) -> PathLoss? {
    if server.fails() { return Self.failure }
    let byteCount = (ScriptedServer.chunkDataByteCount + 4096) * UInt32(ScriptedServer.depth)
    let answer = PathInformationAnswer(
      regions: [RegionDescriptor(address: 1 << 32, key: 7, length: byteCount)])
    server.events.append((.informed(path: path), answer.encoded))
    return nil
  }
  mutating func postReceives(_ path: Int) -> PathLoss? {
    server.fails() ? Self.failure : nil
  }
  mutating func sendHeartbeat(_ path: Int, isAcknowledgement: Bool) -> PathLoss? {
    server.fails() ? Self.failure : nil
  }
  mutating func tearDown(_ path: Int) {
    server.connectionCounts[path] = 0
    server.tearDownCount += 1
    // Nothing comes from a queue pair that is gone.
    server.unanswered.removeAll { $0.path == path }
    server.events.removeAll { event, _ in
      switch event {
      case .received(let of, _, _), .informed(let of), .established(let of, _): of == path
      default: false
      }
    }
  }

  borrowing func data(of request: UInt16) -> UnsafeMutableRawBufferPointer {
    let start = layout.dataOffset(request)
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: data[start..<(start + layout.dataRoom(request))])
  }
  borrowing func messages(of request: UInt16) -> UnsafeMutableRawBufferPointer {
    let start = layout.messageOffset(request)
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: messages[start..<(start + layout.messageRoom(request))])
  }
  borrowing func destination(of request: UInt16, on path: Int) -> RegionDescriptor {
    RegionDescriptor(address: UInt64(layout.dataOffset(request)), key: 9, length: 0)
  }

  mutating func post(_ posting: Posting, messageByteCount: Int) -> PathLoss? {
    if server.fails() { return Self.failure }
    let room = unsafe messages(of: posting.request)
    let bytes = (0..<messageByteCount).map { unsafe room[$0] }
    var data: [UInt8] = []
    if posting.direction == .toServer {
      let place = unsafe self.data(of: posting.request)
      data = (0..<Int(posting.dataByteCount)).map { unsafe place[$0] }
    }
    let sent = ScriptedServer.Sent(
      path: posting.path, connection: posting.connection, request: posting.request,
      isRepeated: posting.isRepeated, messages: bytes, immediate: posting.immediate,
      direction: posting.direction, data: data)
    server.sent.append(sent)
    if server.isSilent, bytes[0] == 4 {
      server.unanswered.append(sent)
    } else {
      server.answer(sent)
    }
    return nil
  }
}

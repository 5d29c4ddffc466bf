// SPDX-License-Identifier: Apache-2.0
// A server in this process and clients that say exactly what a test wants said.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import NBDServer
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Serves exports on a Unix socket, or on a port of the loopback; what it reports is kept.
final class ServerUnderTest: Sendable {
  let server: NBDServer
  let registry: SessionRegistry
  let attachments: Attachments
  let table: ExportTable
  private let directory: TemporaryDirectory
  private let listener: Listener
  private let address: SocketAddress
  private let events: EventLog

  final class EventLog: Sendable {
    let list = Mutex<[SessionEvent]>([])
  }

  init(
    _ exports: [Export], limits: NBDServerLimits = NBDServerLimits(),
    attachments: Attachments = Attachments(), connectionCountMaximum: Int = 100,
    overTCP: Bool = false
  ) throws {
    directory = try TemporaryDirectory()
    if overTCP {
      listener = try #require(try Listener.listen(on: .tcp(host: "127.0.0.1", port: 0)).first)
      let port = try #require(listener.address.fields(separatedBy: 0x3a).last)
      address = SocketAddress(
        ipv4: [127, 0, 0, 1], port: UInt16(try #require(port.decimal(maximum: 65535))))
    } else {
      let path = ByteString(directory.path("socket"))
      listener = try Listener.unix(path, isPrivate: true)
      address = try SocketAddress(unixPath: path)
    }
    registry = SessionRegistry(connectionCountMaximum: connectionCountMaximum)
    let events = EventLog()
    self.events = events
    self.attachments = attachments
    table = ExportTable(exports)
    server = NBDServer(
      table: table, registry: registry, attachments: attachments, limits: limits
    ) { event in
      events.list.withLock { $0.append(event) }
    }
  }

  convenience init(
    _ backend: any BlockBackend, access: AccessMode = .readWrite, overTCP: Bool = false
  ) throws {
    // On a busy machine a handshake takes its time.
    var limits = NBDServerLimits()
    limits.handshakeMilliseconds = 60_000
    try self.init(
      [Export(name: "disk", access: access, base: backend)], limits: limits, overTCP: overTCP)
  }

  /// A connection that has said nothing yet.
  func connect() throws -> TestClient {
    let client = try TestClient(to: address)
    if let connection = try listener.accept() {
      let isTCP = connection.client.bytes.starts(with: "tcp:".utf8)
      let name = isTCP ? connection.client : "test"
      server.serve(connection.takeDescriptor(), client: name)
    }
    return client
  }

  /// A connection in the transmission phase.
  func enter(
    _ export: ByteString = "disk", as identity: SessionIdentity? = nil
  ) throws -> TestClient {
    let client = try ask(for: export, as: identity)
    while true {
      let bytes = try client.receive(OptionReplyHeader.byteCount)
      let head = try OptionReplyHeader(decoding: bytes.span)
      let data = try client.receive(Int(head.dataByteCount))
      guard head.type == .info else { break }
      if case .export(_, let flags) = try InformationItem(decoding: data.span) {
        client.flags = flags
      }
    }
    return client
  }

  /// A connection that has asked to enter, and may be waited for.
  func ask(for export: ByteString = "disk", as identity: SessionIdentity?) throws -> TestClient {
    let client = try connect()
    _ = try client.receive(ServerGreeting.byteCount)
    try client.send(ClientFlags([.fixedNewstyle, .noZeroes]).encoded)
    if let identity {
      let reply = try client.option(.session, identity.encoded)
      #expect(reply.type == .ack, "\(reply.text)")
    }
    let data = InformationRequest(name: export, items: []).encoded
    try client.send(
      OptionHeader(option: .go, dataByteCount: UInt32(data.count)).encoded + data)
    return client
  }

  /// What the server says to a client that is refused: at the session, or at GO.
  func refusal(
    _ export: ByteString = "disk", as identity: SessionIdentity
  ) throws -> (type: OptionReplyType, text: String) {
    let client = try connect()
    _ = try client.receive(ServerGreeting.byteCount)
    try client.send(ClientFlags([.fixedNewstyle, .noZeroes]).encoded)
    let reply = try client.option(.session, identity.encoded)
    guard reply.type == .ack else { return reply }
    return try client.option(.go, InformationRequest(name: export, items: []).encoded)
  }

  var reported: [SessionEvent] { events.list.withLock { $0 } }

  /// How sessions ended.
  var closings: [(reason: String, counters: SessionCounters)] {
    reported.compactMap { event in
      if case .closed(_, _, _, let reason, let counters) = event { (reason, counters) } else { nil }
    }
  }

  /// Why exports were not opened.
  var failures: [String] {
    reported.compactMap { event in
      if case .notOpened(_, _, let reason, _) = event { reason } else { nil }
    }
  }

  /// Waits until no connection is left.
  func waitForEnd() throws {
    try wait("the end of the sessions") { registry.connectionCount == 0 }
  }
}

/// What a client with an attachment says of itself.
func identity(
  _ generation: UInt64, slot: UInt16 = 0, _ flags: SessionFlags = [], token: UInt64 = 1
) -> SessionIdentity {
  SessionIdentity(
    token: SessionToken(high: 0, low: token), generation: generation, slot: slot, flags: flags)
}

/// One connection of a client.
final class TestClient {
  private let socket: StreamSocket
  private var sentByteCount: UInt64 = 0
  /// What GO told.
  fileprivate(set) var flags: TransmissionFlags = []
  /// Every wait of a test ends.
  static var deadline: Deadline { .milliseconds(20_000) }

  /// The socket's, for tests that read and write at once.
  var number: CInt { socket.descriptor.rawValue }

  init(to address: SocketAddress) throws(SystemError) {
    socket = try StreamSocket.connect(to: address, until: Self.deadline)
  }

  func send(_ bytes: [UInt8]) throws {
    try socket.send(bytes, until: Self.deadline)
    sentByteCount += UInt64(bytes.count)
  }

  /// Over TCP: until everything that was sent lies in the server's socket, or was taken from it.
  func waitForArrival() throws {
    try wait("the acknowledgement") {
      var (acknowledged, received) = (UInt64(0), UInt64(0))
      // SAFETY: two integers of ours.
      let result = unsafe clinux_tcp_byte_counts(
        socket.descriptor.rawValue, &acknowledged, &received)
      return result == 0 && acknowledged > sentByteCount  // The first one is that of the SYN.
    }
  }

  func receive(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let before = bytes.count
      try socket.receive(into: &bytes, maximum: count - bytes.count, until: Self.deadline)
      try #require(bytes.count > before, "the server closed after \(before) of \(count) bytes")
    }
    return bytes
  }

  /// Everything until the server closes.
  func receiveToEnd() throws -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let before = bytes.count
      do {
        try socket.receive(into: &bytes, maximum: 65536, until: Self.deadline)
      } catch {
        guard error == .connectionReset else { throw error }
        return bytes
      }
      if bytes.count == before { return bytes }
    }
  }

  /// Sends an option and gives its first reply.
  func option(
    _ option: OptionCode, _ data: [UInt8]
  ) throws -> (type: OptionReplyType, text: String) {
    try send(
      OptionHeader(option: option, dataByteCount: UInt32(data.count)).encoded + data)
    let bytes = try receive(OptionReplyHeader.byteCount)
    let header = try OptionReplyHeader(decoding: bytes.span)
    let text = try receive(Int(header.dataByteCount))
    return (header.type, String(decoding: text, as: UTF8.self))
  }

  /// Whether the server says something; for what it must not say.
  func hasInput(within milliseconds: UInt64) throws -> Bool {
    do {
      var byte: [UInt8] = []
      try socket.receive(into: &byte, maximum: 1, until: .milliseconds(milliseconds))
      return true
    } catch {
      guard error == .timedOut else { throw error }
      return false
    }
  }

  func reply() throws -> SimpleReply {
    let bytes = try receive(SimpleReply.byteCount)
    return try SimpleReply(decoding: bytes.span)
  }

  /// Sends a request, with a payload for WRITE, and returns the error of its reply; the data of a
  /// READ are taken off the stream.
  @discardableResult
  func ask(_ request: Request, _ payload: [UInt8] = []) throws -> ErrorNumber {
    try send(request.encoded + payload)
    let reply = try reply()
    #expect(reply.cookie == request.cookie)
    if request.command == .read, reply.error == .none {
      lastData = try receive(Int(request.length))
    }
    return reply.error
  }
  private(set) var lastData: [UInt8] = []
}

/// Keeps what a backend was asked for.
final class RecordingBackend: BlockBackend {
  enum Call: Equatable {
    case read(UInt64, Int)
    case write(UInt64, Int, isDurable: Bool)
    case zero(Range<UInt64>, mayPunch: Bool, isDurable: Bool)
    case trim(Range<UInt64>, isDurable: Bool)
    case flush
  }
  let byteCount: UInt64
  let blockSizes: BackendBlockSizes
  let capabilities: BackendCapabilities = [.write, .trim, .isShared]
  private let list = Mutex<[Call]>([])
  var calls: [Call] { list.withLock { $0 } }

  init(byteCount: UInt64, minimum: UInt32 = 1) {
    self.byteCount = byteCount
    blockSizes = BackendBlockSizes(minimum: minimum, preferred: 4096)
  }

  private func add(_ call: Call) { list.withLock { $0.append(call) } }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    add(.read(offset, buffer.count))
  }
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    add(.write(offset, bytes.count, isDurable: isDurable))
  }
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    add(.zero(range, mayPunch: mayPunch, isDurable: isDurable))
  }
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    add(.trim(range, isDurable: isDurable))
  }
  func flush() throws(BackendError) { add(.flush) }
}

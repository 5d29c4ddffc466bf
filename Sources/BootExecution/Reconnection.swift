// SPDX-License-Identifier: Apache-2.0
// One attempt to bring a connection back, a step at a time and never blocking, in memory that was
// taken beforehand: connect, enter the export, see that it is the same one.
//
//   connect ─► greeting ─► GO ─► same size, access, commands? ─► read identifiers ─► same content?

import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

/// Why an attempt came to nothing.
enum ReconnectionError: Error, Equatable, Sendable {
  case system(SystemError)
  case timedOut
  case closed
  case reentry(ReentryError)
  case differentSize(UInt64)
  case differentAccess
  case fewerCommands
  case differentBlocks
  case readFailed(UInt32)
  case differentContent
  /// A copy on another server is in use by now.
  case otherSiteInUse

  /// Whether what answered is something else than what was attached.
  var isDifferentExport: Bool {
    switch self {
    case .differentSize, .differentAccess, .fewerCommands, .differentBlocks, .differentContent:
      true
    default: false
    }
  }

  var text: StaticString {
    switch self {
    case .system(.connectionRefused): "it refuses the connection"
    case .system(.networkUnreachable): "there is no route to it"
    case .system: "the connection failed"
    case .timedOut: "it does not answer"
    case .closed: "it closed the connection"
    case .reentry(let error): error.text
    case .differentSize: "the export has another size than the one that was attached"
    case .differentAccess: "the export was writable or read-only and is the other now"
    case .fewerCommands: "the export has lost a command that the device uses"
    case .differentBlocks: "the export wants larger blocks or smaller requests than the device has"
    case .readFailed: "the export cannot be read"
    case .differentContent: "another image is there under the name of the one that was attached"
    case .otherSiteInUse: "another server is in use by now"
    }
  }
}

/// What an export must still be.
struct ExpectedExport: Sendable {
  var byteCount: UInt64
  var flags: TransmissionFlags
  var blockByteCount: UInt64
  var payloadByteCount: UInt64
  var identity: ContentIdentity

  /// The commands that the kernel was told of: it goes on using them.
  static let commands: TransmissionFlags = [
    .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn,
  ]

  func check(_ export: ReenteredExport, connectionCount: Int) throws(ReconnectionError) {
    guard export.byteCount / 512 == byteCount / 512 else {
      throw .differentSize(export.byteCount)
    }
    guard export.flags.contains(.readOnly) == flags.contains(.readOnly) || flags.contains(.readOnly)
    else { throw .differentAccess }
    var needed = flags.intersection(Self.commands)
    if connectionCount == 1 { needed.remove(.canMultiConn) }
    guard needed.isSubset(of: export.flags) else { throw .fewerCommands }
    if let sizes = export.blockSizes {
      guard UInt64(sizes.minimum) <= blockByteCount,
        UInt64(sizes.maximumPayload) >= payloadByteCount
      else { throw .differentBlocks }
    }
  }
}

/// A class, so that its parts are changed in place. Its buffer is its own and never handed out.
@safe final class Reconnection {
  enum Progress: Equatable {
    /// Wait for these poll(2) events.
    case pending(CShort)
    case ready
  }

  private enum Stage { case connecting, negotiating, requesting, replying }

  private static let requestByteCount = 28
  private static let replyByteCount = 16
  private static let inputByteCountMaximum = 16 + IdentityReader.regionByteCountMaximum

  private let expected: ExpectedExport
  private let connectionCount: Int
  private let detection: Detection
  private var entry: ExportReentry
  private var reader: IdentityReader
  private var request: [UInt8]
  private let input: UnsafeMutableBufferPointer<UInt8>
  private var inputCount = 0
  private var sending = ExportReentry.Answer.nothing
  private var sentCount = 0
  private var stage = Stage.connecting
  /// In the upper half; below it is a tag that is in no order. Source: SessionFlags.
  private var cookieCounter: UInt64 = 0
  private var cookie: UInt64 { cookieCounter << 32 | 0xffff_ffff }
  private(set) var descriptor: CInt = -1
  private(set) var deadline = Deadline.never

  var identity: ContentIdentity { reader.identity }

  /// `isCounted`: requests on the connection will have counted cookies.
  init(_ plan: KeeperPlan, slot: UInt16, isCounted: Bool = false) {
    expected = ExpectedExport(
      byteCount: plan.byteCount, flags: plan.flags, blockByteCount: plan.blockByteCount,
      payloadByteCount: plan.payloadByteCount, identity: plan.identity)
    connectionCount = Int(plan.connectionCount)
    detection = plan.detection
    entry = ExportReentry(
      name: plan.export,
      identity: SessionIdentity(
        token: plan.token, generation: 0, slot: slot,
        flags: isCounted ? [.resume, .countedCookies] : .resume))
    reader = Self.reader(of: plan.byteCount, plan.blockByteCount)
    request = [UInt8](repeating: 0, count: Self.requestByteCount)
    // For as long as the process lives.
    unsafe input = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: Self.inputByteCountMaximum)
    unsafe input.initialize(repeating: 0)
  }

  private static func reader(of byteCount: UInt64, _ block: UInt64) -> IdentityReader {
    IdentityReader(
      exportByteCount: byteCount,
      minimumBlockByteCount: UInt32(truncatingIfNeeded: min(block, 4096)))
  }

  /// Opens a socket and begins to connect.
  func start(_ path: borrowing KeeperPath) throws(ReconnectionError) {
    do throws(SystemError) {
      let unix = path.address.isUnix
      descriptor = try checked(
        clinux_socket(path.address.family, CInt(clinux_SOCK_STREAM), 0))
      if !unix { try Self.setOptions(descriptor, detection) }
      if let source = path.source {
        var raw = source.raw
        _ = try checked(unsafe clinux_bind(descriptor, &raw))  // SAFETY: ours, copied.
      }
      var raw = path.address.raw
      let result = unsafe clinux_connect(descriptor, &raw)  // SAFETY: ours, copied.
      if result != -SystemError.inProgress.errno { _ = try checked(result) }
    } catch {
      close()
      throw .system(error)
    }
    stage = .connecting
    inputCount = 0
    sentCount = 0
    sending = .nothing
    deadline = .milliseconds(detection.attemptMilliseconds)
    entry.restart(generation: clinux_boottime_nanoseconds())
    reader = Self.reader(of: expected.byteCount, expected.blockByteCount)
  }

  static func setOptions(
    _ descriptor: CInt, _ detection: Detection
  ) throws(SystemError) {
    func set(_ option: Int, _ value: CInt) throws(SystemError) {
      _ = try checked(
        clinux_set_option(descriptor, CInt(clinux_IPPROTO_TCP), CInt(option), value))
    }
    try set(clinux_TCP_NODELAY, 1)
    try set(clinux_TCP_KEEPIDLE, detection.keepAliveIdleSeconds)
    try set(clinux_TCP_KEEPINTVL, detection.keepAliveIntervalSeconds)
    try set(clinux_TCP_KEEPCNT, Detection.keepAliveCount)
    try set(clinux_TCP_USER_TIMEOUT, detection.userTimeoutMilliseconds)
    _ = try checked(
      clinux_set_option(descriptor, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_KEEPALIVE), 1))
  }

  /// Hands the connection on.
  func release() -> CInt {
    let number = descriptor
    descriptor = -1
    return number
  }

  func close() {
    if descriptor >= 0 { _ = clinux_close(descriptor) }
    descriptor = -1
  }

  /// Goes as far as it can. On an error the socket is closed.
  func advance() throws(ReconnectionError) -> Progress {
    do throws(ReconnectionError) {
      if deadline.hasPassed { throw .timedOut }
      return try advanceOrThrow()
    } catch {
      close()
      throw error
    }
  }

  private func advanceOrThrow() throws(ReconnectionError) -> Progress {
    while true {
      switch stage {
      case .connecting:
        let ready = clinux_poll(descriptor, CShort(clinux_POLLOUT), 0)
        if ready == 0 { return .pending(CShort(clinux_POLLOUT)) }
        let error = clinux_socket_error(descriptor)
        if error < 0 { throw .system(SystemError(errno: 0 &- error)) }
        stage = .negotiating
      case .negotiating:
        guard try send() else { return .pending(CShort(clinux_POLLOUT)) }
        if entry.isFinished {
          try expected.check(entry.export, connectionCount: connectionCount)
          guard reader.region != nil else { return try finish() }
          prepareRequest()
          stage = .requesting
          continue
        }
        let needed = entry.neededByteCount
        guard try receive(needed) else { return .pending(CShort(clinux_POLLIN)) }
        do throws(ReentryError) {
          // SAFETY: `needed` bytes were received.
          sending = try entry.receive(unsafe input.span.extracting(first: needed))
        } catch { throw .reentry(error) }
        inputCount = 0
        sentCount = 0
      case .requesting:
        guard try sendRequest() else { return .pending(CShort(clinux_POLLOUT)) }
        stage = .replying
      case .replying:
        guard let region = reader.region else { return try finish() }
        guard try receive(Self.replyByteCount) else { return .pending(CShort(clinux_POLLIN)) }
        try checkReply()
        let all = Self.replyByteCount + region.byteCount
        guard try receive(all) else { return .pending(CShort(clinux_POLLIN)) }
        // SAFETY: `all` bytes were received.
        reader.examine(unsafe input.span.extracting(Self.replyByteCount..<all))
        guard reader.region != nil else { return try finish() }
        prepareRequest()
        stage = .requesting
      }
    }
  }

  private func finish() throws(ReconnectionError) -> Progress {
    guard expected.identity.accepts(reader.identity) else { throw .differentContent }
    return .ready
  }

  /// True when everything is sent.
  private func send() throws(ReconnectionError) -> Bool {
    switch sending {
    case .nothing: return true
    case .opening: return try send(entry.opening)
    case .exportName: return try send(entry.exportName)
    }
  }

  private func sendRequest() throws(ReconnectionError) -> Bool { try send(request) }

  private func send(_ bytes: borrowing [UInt8]) throws(ReconnectionError) -> Bool {
    while sentCount < bytes.count {
      let result = unsafe bytes.withUnsafeBytes { raw in
        // SAFETY: `sentCount` is below the array's count.
        unsafe clinux_send(descriptor, raw.baseAddress! + sentCount, raw.count - sentCount, 0)
      }
      if result == -Int(SystemError.tryAgain.errno) { return false }
      if result == -Int(SystemError.interrupted.errno) { continue }
      if result < 0 { throw .system(SystemError(errno: CInt(truncatingIfNeeded: 0 &- result))) }
      sentCount += result
    }
    return true
  }

  /// True when the input holds `count` bytes. Never reads further: the kernel goes on from there.
  private func receive(_ count: Int) throws(ReconnectionError) -> Bool {
    while inputCount < count {
      // SAFETY: `count` is at most the buffer's.
      let result = unsafe clinux_recv(
        descriptor, input.baseAddress! + inputCount, count - inputCount, 0)
      if result == -Int(SystemError.tryAgain.errno) { return false }
      if result == -Int(SystemError.interrupted.errno) { continue }
      if result < 0 { throw .system(SystemError(errno: CInt(truncatingIfNeeded: 0 &- result))) }
      if result == 0 { throw .closed }
      inputCount += result
    }
    return true
  }

  /// READ of the reader's region. Source: NBD `doc/proto.md`, "Request message".
  private func prepareRequest() {
    guard let region = reader.region else { return }
    cookieCounter &+= 1
    inputCount = 0
    sentCount = 0
    put(UInt64(Request.magic), 4, at: 0)
    put(0, 4, at: 4)  // No flags, READ.
    put(cookie, 8, at: 8)
    put(region.offset, 8, at: 16)
    put(UInt64(region.byteCount), 4, at: 24)
  }

  private func put(_ value: UInt64, _ byteCount: Int, at offset: Int) {
    for index in 0..<byteCount {
      request[offset + index] = UInt8(
        truncatingIfNeeded: value >> UInt64((byteCount - 1 - index) * 8))
    }
  }

  private func checkReply() throws(ReconnectionError) {
    // SAFETY: the reply's header was received.
    let bytes = unsafe input.span.extracting(first: Self.replyByteCount)
    guard bytes.bigEndian(UInt32.self, at: 0) == SimpleReply.magic,
      bytes.bigEndian(UInt64.self, at: 8) == cookie
    else { throw .reentry(.violation) }
    let error = bytes.bigEndian(UInt32.self, at: 4)
    guard error == 0 else { throw .readFailed(error) }
  }
}

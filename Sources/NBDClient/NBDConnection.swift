// SPDX-License-Identifier: Apache-2.0
// One connection from the first packet to the export: connects, drives the handshake, and gives
// the socket with nothing read beyond it. Each part has its own deadline.

public import LinuxSystem
public import NBDProtocol
public import WireFormat

/// How long the parts of an attempt may take.
public struct ConnectionLimits: Sendable {
  /// 5 s: three SYNs of Linux (at 0, 1 and 3 s) have then been lost.
  public var connectMilliseconds: UInt64 = 5_000
  /// 10 s for the whole handshake: qemu-nbd drops a client that takes longer.
  public var negotiateMilliseconds: UInt64 = 10_000

  /// The defaults of the properties.
  public init() {}
}

/// Why an address gave no export.
public indirect enum ConnectionError: Error, Equatable, Sendable {
  /// No connection came about; `timedOut` when nothing answered.
  case notConnected(address: ByteString, SystemError)
  /// Connected, and then silent.
  case silent(address: ByteString, NegotiationStage, seconds: UInt64)
  /// It broke during the handshake.
  case lost(address: ByteString, SystemError)
  /// The handshake ended without an export.
  case notNegotiated(address: ByteString, NegotiationError)

  /// What happened, with the address, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notConnected(let address, .timedOut):
      (
        "no answer from \(address.printable)",
        "check the link, the server's address and its firewall"
      )
    case .notConnected(let address, .connectionRefused):
      (
        "\(address.printable) refuses the connection: nothing listens there",
        "start the server or check the port"
      )
    case .notConnected(let address, .networkUnreachable):
      ("no route to \(address.printable)", "check the address and the gateway of the lease")
    case .notConnected(let address, let error):
      ("cannot connect to \(address.printable): \(error.text)", "check the link and the server")
    case .silent(let address, .greeting, let seconds):
      (
        "\(address.printable) accepted the connection and sent nothing for \(seconds) s",
        "an NBD server speaks first; check the port (a web server waits like this)"
      )
    case .silent(let address, let stage, let seconds):
      (
        "\(address.printable) went silent \(stageText(stage)) for \(seconds) s",
        "check the server's load and its disk"
      )
    case .lost(let address, let error):
      ("the connection to \(address.printable) broke: \(error.text)", "check the server")
    case .notNegotiated(let address, let error):
      ("\(address.printable): \(error.report.reason)", error.report.advice)
    }
  }

  /// Whether the same attempt may succeed later.
  public var mayPass: Bool {
    if case .notNegotiated(_, let error) = self { return error.mayPass }
    return true
  }
}

private func stageText(_ stage: NegotiationStage) -> String {
  switch stage {
  case .greeting: "before its greeting"
  case .options: "while the options were discussed"
  case .exportInformation: "after it named the export"
  }
}

/// A connection that has reached an export. The socket is the kernel's or the caller's to use.
public struct NBDConnection: ~Copyable {
  /// Non-blocking; nothing has been read of it beyond the handshake.
  public let socket: StreamSocket
  /// What the server offers under the first of the names that it has.
  public let export: NegotiatedExport
  /// Of the server, as it was asked for.
  public let address: SocketAddress
  /// How long the connection took; for the log.
  public let connectMilliseconds: UInt64
  /// How long the handshake took on this connection; for the log.
  public let negotiateMilliseconds: UInt64

  /// Asks for each of `names` in turn, on one connection where the server allows it. `identity`:
  /// which attachment the connection belongs to, for a server that fences its predecessor.
  public static func open(
    to address: SocketAddress, from source: SocketAddress? = nil, names: [ByteString],
    identity: SessionIdentity? = nil,
    limits: ConnectionLimits = ConnectionLimits(), until deadline: Deadline = .never
  ) throws(ConnectionError) -> NBDConnection {
    var names = names[...]
    while true {
      do {
        return try openOnce(
          to: address, from: source, names: Array(names), identity: identity, limits: limits,
          until: deadline)
      } catch .notNegotiated(_, .closedAfterExportName) where names.count > 1 {
        // An old server hangs up on an unknown name: the next one needs a connection of its own.
        names = names.dropFirst()
      } catch { throw error }
    }
  }

  /// Hands the socket's descriptor on, unclosed.
  public consuming func releaseSocket() -> CInt { socket.releaseDescriptor() }

  private static func openOnce(
    to address: SocketAddress, from source: SocketAddress?, names: [ByteString],
    identity: SessionIdentity?, limits: ConnectionLimits, until deadline: Deadline
  ) throws(ConnectionError) -> NBDConnection {
    let start = MonotonicTime.now
    let socket: StreamSocket
    do {
      socket = try StreamSocket.connect(
        to: address, from: source,
        until: deadline.earlier(of: .milliseconds(limits.connectMilliseconds)))
    } catch { throw .notConnected(address: address.text, error) }
    let connected = MonotonicTime.now
    let export = try negotiate(
      on: socket, address: address.text, names: names, identity: identity, limits: limits,
      until: deadline)
    return NBDConnection(
      socket: socket, export: export, address: address,
      connectMilliseconds: connected.milliseconds(since: start),
      negotiateMilliseconds: MonotonicTime.now.milliseconds(since: connected))
  }
}

/// Runs the handshake over a connected stream.
private func negotiate(
  on socket: borrowing StreamSocket, address: ByteString, names: [ByteString],
  identity: SessionIdentity?, limits: ConnectionLimits, until deadline: Deadline
) throws(ConnectionError) -> NegotiatedExport {
  let end = deadline.earlier(of: .milliseconds(limits.negotiateMilliseconds))
  var negotiation = ClientNegotiation(candidates: names, identity: identity)
  while true {
    if let export = negotiation.finishedExport { return export }
    let needed = negotiation.neededByteCount
    var bytes: [UInt8] = []
    do {
      bytes = try receiveExactly(needed, from: socket, until: end)
    } catch {
      throw connectionError(error, address: address, stage: negotiation.stage, limits: limits)
    }
    guard bytes.count == needed else {
      throw .notNegotiated(address: address, negotiation.ended(after: bytes))
    }
    let answer: [UInt8]
    do {
      answer = try negotiation.receive(bytes)
    } catch {
      // A soft goodbye, if it can be said at once; the error counts either way.
      try? socket.send(negotiation.farewell, until: .milliseconds(0))
      throw .notNegotiated(address: address, error)
    }
    do {
      try socket.send(answer, until: end)
    } catch {
      throw connectionError(error, address: address, stage: negotiation.stage, limits: limits)
    }
  }
}

private func connectionError(
  _ error: SystemError, address: ByteString, stage: NegotiationStage, limits: ConnectionLimits
) -> ConnectionError {
  error == .timedOut
    ? .silent(address: address, stage, seconds: limits.negotiateMilliseconds / 1000)
    : .lost(address: address, error)
}

/// Fewer bytes than asked for mean that the peer has ended the stream. Never reads further.
private func receiveExactly(
  _ count: Int, from socket: borrowing StreamSocket, until deadline: Deadline
) throws(SystemError) -> [UInt8] {
  var bytes: [UInt8] = []
  while bytes.count < count {
    let before = bytes.count
    try socket.receive(into: &bytes, maximum: count - before, until: deadline)
    if bytes.count == before { break }
  }
  return bytes
}

// SPDX-License-Identifier: Apache-2.0
// A socket that waits for connections.

import BlockServer
import CLinux
import LinuxSystem
import WireFormat

/// A socket that waits for connections of NBD's clients, or of others; closed with the object, and
/// its path removed if it made one.
public final class Listener: Sendable {
  /// Why nothing can be listened on.
  public enum ListenError: Error, Equatable, Sendable {
    /// The host has no address that this machine could listen on.
    case unknownHost(ByteString)
    /// Somebody listens there already, or the path is no socket.
    case inUse(ByteString)
    /// The system does not let this user listen there.
    case noPermission(ByteString)
    /// An address of RDMA, which is `RNBDServer`'s.
    case notSupported(ByteString)
    /// Whatever else the system said.
    case system(ByteString, SystemError)

    /// What happened, with the address that was wanted, and what the administrator can do about it.
    public var report: (reason: String, advice: String) {
      switch self {
      case .unknownHost(let address):
        ("this machine has no address for \(address.printable)", "check the host of --listen")
      case .inUse(let address):
        (
          "\(address.printable) is in use",
          "stop the other server, or listen on another port or path with --listen"
        )
      case .noPermission(let address):
        (
          "\(address.printable) may not be listened on",
          "choose a port above 1023, or a path in a directory that rootlinkd may write to"
        )
      case .notSupported(let address):
        ("\(address.printable) speaks RNBD and not NBD", "use tcp: or unix:")
      case .system(let address, let error):
        ("\(address.printable) cannot be listened on: \(error.text)", "check --listen")
      }
    }
  }

  /// How many connections the kernel keeps until they are accepted.
  private static let backlog: CInt = 511

  /// What may lie in a Unix socket until the client takes it; the kernel counts its own overhead in.
  private static let unixSendByteCount: CInt = 512 << 10

  /// As it can be given to a client, with the port that the kernel chose: `tcp:127.0.0.1:43210`.
  public let address: ByteString
  let descriptor: FileDescriptor
  /// Removed at the end.
  private let path: ByteString?
  private let isUnix: Bool
  /// Who had connected before the listener was ours has inherited nothing from it; nil otherwise.
  private let adoptedSilenceSeconds: UInt64?

  private init(
    address: ByteString, descriptor: consuming FileDescriptor, path: ByteString?,
    isUnix: Bool = false, adoptedSilenceSeconds: UInt64? = nil
  ) {
    self.address = address
    self.descriptor = descriptor
    self.path = path
    self.isUnix = isUnix
    self.adoptedSilenceSeconds = adoptedSilenceSeconds
  }

  deinit {
    if let path { try? removeFile(path) }
  }

  /// Ready for poll(2) when somebody connects.
  public var pollNumber: CInt { descriptor.rawValue }

  /// One listener for each address that the host name has. `silenceSeconds`, 1 to 86400: a TCP
  /// client that was not heard from for so long is taken for dead.
  public static func listen(
    on wanted: ListenAddress, silenceSeconds: UInt64 = 120
  ) throws(ListenError) -> [Listener] {
    switch wanted {
    case .tcp(let host, let port):
      return try tcp(host: host, port: port, silenceSeconds: silenceSeconds)
    case .unix(let path): return [try unix(path, isPrivate: false)]
    case .rdma(let host, let port): throw .notSupported(host + ByteString(":\(port)"))
    }
  }

  /// A socket that listens already, from whoever started this process; its path is not ours to remove.
  public static func adopt(
    _ descriptor: consuming FileDescriptor, silenceSeconds: UInt64 = 120
  ) -> Listener {
    let number = descriptor.rawValue
    _ = clinux_set_blocking(number, 0)
    let local = localAddress(of: number)
    let isUnix = local?.isUnix ?? false
    let text = local?.text ?? "?"
    return Listener(
      address: isUnix ? text : "tcp:" + text, descriptor: descriptor, path: nil,
      isUnix: isUnix, adoptedSilenceSeconds: silenceSeconds)
  }

  private static func tcp(
    host: ByteString, port: UInt16, silenceSeconds: UInt64
  ) throws(ListenError) -> [Listener] {
    let isV6 = host.bytes.contains(UInt8(ascii: ":"))
    let shown = "tcp:" + (isV6 ? "[" + host + "]" : host) + ByteString(":\(port)")
    var listeners: [Listener] = []
    while let address = try resolve(host: host, port: port, index: listeners.count, shown: shown) {
      do {
        listeners.append(try tcp(address, isWildcard: host == "::", silenceSeconds: silenceSeconds))
      } catch {
        // A kernel without IPv6 still serves the other family.
        if error.errno == 97 || error.errno == 99, host == "::" {
          return try tcp(host: "0.0.0.0", port: port, silenceSeconds: silenceSeconds)
        }
        throw ListenError(error, shown)
      }
      if listeners.count == 16 { break }
    }
    return listeners
  }

  private static func resolve(
    host: ByteString, port: UInt16, index: Int, shown: ByteString
  ) throws(ListenError) -> SocketAddress? {
    do { return try resolveListener(host: host, port: port, index: index) } catch {
      throw error.errno == 99 ? .unknownHost(shown) : .system(shown, error)
    }
  }

  private static func tcp(
    _ address: SocketAddress, isWildcard: Bool, silenceSeconds: UInt64
  ) throws(SystemError) -> Listener {
    let number = try checked(clinux_socket(address.family, CInt(clinux_SOCK_STREAM), 0))
    let descriptor = FileDescriptor(owning: number)
    _ = try checked(
      clinux_set_option(number, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_REUSEADDR), 1))
    if address.family == CInt(clinux_AF_INET6) {
      // The wildcard takes both families, whatever the system's default is.
      _ = try checked(
        clinux_set_option(
          number, CInt(clinux_IPPROTO_IPV6), CInt(clinux_IPV6_V6ONLY), isWildcard ? 0 : 1))
    }
    setTimes(number, silenceSeconds: silenceSeconds)
    try bindAndListen(number, address)
    return Listener(
      address: "tcp:" + (localAddress(of: number)?.text ?? address.text), descriptor: descriptor,
      path: nil)
  }

  /// `isPrivate`: for this user alone. A socket that nobody listens on any more is replaced.
  public static func unix(_ path: ByteString, isPrivate: Bool) throws(ListenError) -> Listener {
    let shown = "unix:" + path
    do {
      return try unix(path, shown: shown, isPrivate: isPrivate)
    } catch {
      throw ListenError(error, shown)
    }
  }

  private static func unix(
    _ path: ByteString, shown: ByteString, isPrivate: Bool
  ) throws(SystemError) -> Listener {
    let address = try SocketAddress(unixPath: path)
    if fileExists(path) {
      guard isAbandoned(path, address) else { throw SystemError(errno: 98) }  // EADDRINUSE
      try removeFile(path)
    }
    let number = try checked(clinux_socket(CInt(clinux_AF_UNIX), CInt(clinux_SOCK_STREAM), 0))
    let descriptor = FileDescriptor(owning: number)
    if isPrivate {
      var raw = address.raw
      // SAFETY: an address of ours, copied.
      _ = try checked(unsafe clinux_bind_unix_private(number, &raw))
      _ = try checked(clinux_listen(number, backlog))
    } else {
      try bindAndListen(number, address)
    }
    return Listener(address: shown, descriptor: descriptor, path: path, isUnix: true)
  }

  /// A socket that refuses connections was left by a server that is gone. Other files refuse
  /// them, too (a disk image, /dev/null): what is not a socket is not ours to remove.
  private static func isAbandoned(_ path: ByteString, _ address: SocketAddress) -> Bool {
    var status = clinux_status()
    // SAFETY: a terminated copy, and a structure of ours that the call fills.
    let result = try? unsafe withCString(path) { unsafe clinux_stat($0, &status) }
    guard result == 0, status.mode & 0o170000 == 0o140000 else { return false }  // S_IFSOCK
    do {
      _ = try StreamSocket.connect(to: address, until: .milliseconds(1000))
      return false
    } catch {
      return error == .connectionRefused
    }
  }

  private static func bindAndListen(
    _ number: CInt, _ address: SocketAddress
  ) throws(SystemError) {
    var raw = address.raw
    _ = try checked(unsafe clinux_bind(number, &raw))  // SAFETY: an address of ours, copied.
    _ = try checked(clinux_listen(number, backlog))
  }

  private static func localAddress(of number: CInt) -> SocketAddress? {
    var raw = clinux_address()
    // SAFETY: a structure of ours that the call fills.
    return unsafe clinux_local_address(number, &raw) < 0 ? nil : SocketAddress(raw: raw)
  }
}

extension Listener.ListenError {
  fileprivate init(_ error: SystemError, _ address: ByteString) {
    switch error.errno {
    case 98: self = .inUse(address)
    case 1, 13: self = .noPermission(address)
    case 99: self = .unknownHost(address)
    default: self = .system(address, error)
    }
  }
}

// Accepting.
extension Listener {
  /// A connection that has come, ready for `NBDServer.serve`, and whose it is; nil when it is gone
  /// again. Throws what is wrong with this machine: no descriptors, no memory.
  public func accept() throws(SystemError) -> AcceptedConnection? {
    var raw = clinux_address()
    // SAFETY: a structure of ours that the call fills.
    let number = unsafe clinux_accept(descriptor.rawValue, &raw)
    switch -number {
    case 23, 24, 105, 12:  // ENFILE, EMFILE, ENOBUFS, ENOMEM
      throw SystemError(errno: -number)
    case 1...: return nil
    default: break
    }
    let connection = FileDescriptor(owning: number)
    if !isUnix {
      if let adoptedSilenceSeconds {
        Self.setTimes(number, silenceSeconds: adoptedSilenceSeconds)
      }
      return AcceptedConnection(
        descriptor: connection, client: "tcp:" + SocketAddress(raw: raw).text)
    }
    // Best effort: the long replies of a deep queue then leave in one go. TCP finds its own size.
    _ = clinux_set_option(
      number, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_SNDBUF), Self.unixSendByteCount)
    return AcceptedConnection(descriptor: connection, client: address)
  }
}

extension Listener {
  /// Has the kernel notice a dead client: one that is idle by probes, which begin when half of the
  /// time has passed, and one that owes acknowledgements, or takes nothing, by their absence. What
  /// it accepts inherits all of it, which saves six calls a connection.
  /// Failures are harmless: connections are slower, or dead clients are noticed later.
  private static func setTimes(_ number: CInt, silenceSeconds: UInt64) {
    let silenceSeconds = CInt(min(max(silenceSeconds, 1), 86_400))
    let tcp = CInt(clinux_IPPROTO_TCP)
    _ = clinux_set_option(number, tcp, CInt(clinux_TCP_NODELAY), 1)
    _ = clinux_set_option(number, CInt(clinux_SOL_SOCKET), CInt(clinux_SO_KEEPALIVE), 1)
    _ = clinux_set_option(number, tcp, CInt(clinux_TCP_KEEPIDLE), max(silenceSeconds / 2, 1))
    _ = clinux_set_option(number, tcp, CInt(clinux_TCP_KEEPINTVL), max(silenceSeconds / 12, 1))
    _ = clinux_set_option(number, tcp, CInt(clinux_TCP_KEEPCNT), 6)
    // In milliseconds. With it the number of probes does not count, only the time.
    _ = clinux_set_option(number, tcp, CInt(clinux_TCP_USER_TIMEOUT), silenceSeconds * 1000)
  }
}

/// A connection that was accepted, and not yet served.
public struct AcceptedConnection: ~Copyable {
  /// Non-blocking.
  public let descriptor: FileDescriptor
  /// As the log calls it: `tcp:192.0.2.1:4321`; of a Unix socket, the listener's own address.
  public let client: ByteString

  init(descriptor: consuming FileDescriptor, client: ByteString) {
    self.descriptor = descriptor
    self.client = client
  }

  /// Hands the descriptor on, which is closed by its new owner.
  public consuming func takeDescriptor() -> FileDescriptor { descriptor }
}

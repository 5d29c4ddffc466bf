// SPDX-License-Identifier: Apache-2.0
// One device to attach: from where, as what, how, and who said so.

import WireFormat

/// One way to a server.
public struct TargetPath: Equatable, Sendable {
  /// Which local address to use; nil leaves it to routing.
  public var source: ServerAddress?
  public var server: ServerAddress
  /// Of TCP, or of RDMA's connection manager; means nothing for a Unix socket.
  public var port: UInt16

  public init(source: ServerAddress? = nil, server: ServerAddress, port: UInt16) {
    self.source = source
    self.server = server
    self.port = port
  }
}

/// Who named a server that the parameter itself left out.
public enum ServerOrigin: Equatable, Sendable {
  /// `field` is the key in the file `path`; it starts with "root-path" when it came from inside one.
  case lease(interface: ByteString, field: ByteString, path: ByteString)
  /// The second field of `ip=`, where that is a boot server.
  case ipParameter
}

/// One device to attach. What neither the command line nor a lease said is nil, and the default of
/// the program that attaches holds.
public struct AttachmentTarget: Equatable, Sendable {
  /// Which of the two the server speaks; NBD over TCP or a Unix socket, RNBD over RDMA.
  public enum BlockProtocol: Equatable, Sendable { case nbd, rnbd }
  /// What is asked of the server. `migration` is RNBD's alone.
  public enum AccessMode: Equatable, Sendable { case readWrite, readOnly, migration }
  /// `io_mode=` of RNBD's control file: taken so that its lines work, and told to nobody.
  public enum IOMode: Equatable, Sendable { case block, file }
  /// How a request's path is chosen.
  public enum PathPolicy: Equatable, Sendable { case roundRobin, minInFlight, minLatency }

  public static let nbdPort: UInt16 = 10809  // Source: IANA, "nbd".
  public static let rnbdPort: UInt16 = 1234  // Source: `dest_port` in Linux `rnbd-clt-sysfs.c`.

  public var blockProtocol: BlockProtocol
  /// Ways to one server, in the order in which they are tried; used together where there are several
  /// connections.
  public var paths: [TargetPath]
  /// NBD: other servers that hold the same image; one is used when the server stays away.
  public var replicas: [TargetPath] = []
  /// NBD: candidate names in the order in which they are tried, all on one connection. Empty only
  /// while a lease's root-path is awaited.
  public var exports: [ByteString] = []
  /// Nil when nothing speaks of TLS.
  public var tls: TLSPolicy?
  /// Nil: any that is free. Never with a partition.
  public var device: DeviceName?
  /// Of `device`, or of the one that is to be found.
  public var driver: DeviceName.Driver
  /// At most this many, and never more than one unless the server says CAN_MULTI_CONN.
  public var connectionCount: UInt32 = 1
  public var accessMode = AccessMode.readWrite
  /// Bytes; nil leaves it to the server.
  public var blockSize: UInt32?
  /// Of one request, in seconds; nil leaves it to the program.
  public var requestTimeoutSeconds: UInt32?
  /// How long a dead connection may be awaited; nil leaves it to the program, 0 is for ever.
  public var deadTimeSeconds: UInt32?
  /// How long a system that goes down waits for its server; nil leaves it to the program, 0 is for
  /// ever.
  public var shutdownTimeSeconds: UInt32?
  /// How long the machine of the server may say nothing, 1 to 3600; nil leaves it to the program.
  public var silenceSeconds: UInt32?
  /// How long the server may owe an answer, 1 to 3600; nil leaves it to the program.
  public var answerSeconds: UInt32?
  /// "nbdroot=", "root=", "netroot=", "root-path of lease eth0"...
  public var origin: ByteString
  /// Nil when the parameter itself names the server.
  public var serverOrigin: ServerOrigin?

  // RNBD only.
  /// Nil while no name could be derived yet.
  public var session: ByteString?
  /// The server's name of the export, 1 to 255 bytes. Nil for NBD.
  public var devicePath: ByteString?
  /// Nil for NBD.
  public var ioMode: IOMode?
  /// Connections of a path that carry requests, of which 15 at most are made; nil:
  /// `connectionCount`.
  public var queueCount: UInt32?
  /// Nil leaves it to the program.
  public var pathPolicy: PathPolicy?

  public init(
    blockProtocol: BlockProtocol, paths: [TargetPath], device: DeviceName?,
    driver: DeviceName.Driver,
    origin: ByteString
  ) {
    self.blockProtocol = blockProtocol
    self.paths = paths
    self.device = device
    self.driver = driver
    self.origin = origin
  }

  /// RNBD: whether both devices can be opened over one session.
  public func sharesSession(with other: AttachmentTarget) -> Bool {
    session != nil && session == other.session && paths == other.paths
      && queueCount == other.queueCount && pathPolicy == other.pathPolicy
  }

  /// Whether a server or an export name must still come from a lease.
  public var isPending: Bool {
    if blockProtocol == .nbd, exports.isEmpty { return true }
    for path in paths where path.server == .pending { return true }
    return false
  }

  /// Whether it is reached otherwise than over a Unix socket; true while its server is pending.
  public var needsNetwork: Bool {
    for path in paths where path.server.needsNetwork { return true }
    return false
  }
}

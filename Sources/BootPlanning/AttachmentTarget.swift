// SPDX-License-Identifier: Apache-2.0
// One device to attach: from where, as what, how, and who said so.

import WireFormat

/// One way to a server.
public struct TargetPath: Equatable, Sendable {
  /// Which local address to use; nil leaves it to routing.
  public var source: ServerAddress?
  public var server: ServerAddress
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

public struct AttachmentTarget: Equatable, Sendable {
  public enum BlockProtocol: Equatable, Sendable { case nbd, rnbd }
  public enum AccessMode: Equatable, Sendable { case readWrite, readOnly, migration }
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
  public var tls: TLSPolicy?
  /// Nil: any that is free. Never with a partition.
  public var device: DeviceName?
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
  /// How long the machine of the server may say nothing, and the server owe an answer; nil leaves
  /// it to the program.
  public var silenceSeconds: UInt32?
  public var answerSeconds: UInt32?
  /// "nbdroot=", "root=", "netroot=", "root-path of lease eth0"...
  public var origin: ByteString
  public var serverOrigin: ServerOrigin?

  // RNBD only.
  /// Nil while no name could be derived yet.
  public var session: ByteString?
  public var devicePath: ByteString?
  public var ioMode: IOMode?
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

  public var needsNetwork: Bool {
    for path in paths where path.server.needsNetwork { return true }
    return false
  }
}

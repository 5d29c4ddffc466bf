// SPDX-License-Identifier: Apache-2.0
// The family `nbd`: what the kernel's driver is asked, and what it says. Numbers: `enum`s in Linux
// `include/uapi/linux/nbd-netlink.h`.
//
// The kernel sets no NESTED bit in its own nests and does not ask for it in ours.

public import WireFormat

/// How the family is called, and how much of it one message may carry.
public enum NBDFamily {
  /// Source: `NBD_GENL_FAMILY_NAME`.
  public static let name: ByteString = "nbd"
  /// Source: `NBD_GENL_VERSION`.
  public static let version: UInt8 = 1
  /// The group that hears LINK_DEAD.
  public static let multicastGroup: ByteString = "nbd_mc_group"
  /// Connections of one device. The kernel has no limit; the attribute would hold 5,461.
  public static let socketCountMaximum = 256
  /// An identifier is shown through a sysfs page of 4096 bytes, end of line included.
  public static let backendIdentifierByteCountMaximum = 1024

  enum Command {
    static let connect: UInt8 = 1
    static let disconnect: UInt8 = 2
    static let reconfigure: UInt8 = 3
    static let linkDead: UInt8 = 4
    static let status: UInt8 = 5
  }

  enum Attribute {
    static let index: UInt16 = 1
    static let sizeByteCount: UInt16 = 2
    static let blockByteCount: UInt16 = 3
    static let timeout: UInt16 = 4
    static let serverFlags: UInt16 = 5
    static let sockets: UInt16 = 7
    static let deadTimeout: UInt16 = 8
    static let deviceList: UInt16 = 9
    static let backendIdentifier: UInt16 = 10
  }

  static func append(sockets: [UInt32], to attributes: inout NetlinkAttributeWriter) {
    precondition(sockets.count <= socketCountMaximum, "a device has at most 256 connections")
    var items = NetlinkAttributeWriter()
    for socket in sockets {
      var item = NetlinkAttributeWriter()
      item.append(1, socket)
      items.append(1, nest: item)
    }
    attributes.append(Attribute.sockets, nest: items)
  }

  static func append(identifier: ByteString, to attributes: inout NetlinkAttributeWriter) {
    precondition(
      identifier.count <= backendIdentifierByteCountMaximum && !identifier.bytes.contains(0),
      "a backend identifier is short and holds no NUL")
    attributes.append(Attribute.backendIdentifier, text: identifier)
  }
}

/// CONNECT: these sockets, whose handshake is over, become a block device. Client flags
/// (`NBD_CFLAG_*`) are not sent: with DISCONNECT_ON_CLOSE a probe by udev would end the device.
public struct NBDConnectMessage: Equatable, Sendable {
  /// Nil: the first device that nobody uses or has open, or a new one.
  public var index: UInt32?
  /// Cut to whole 512-byte sectors by the kernel.
  public var sizeByteCount: UInt64
  /// A power of two from 512 to the page size.
  public var blockByteCount: UInt64
  /// A request unanswered for so long is sent again on another socket; 0 for never.
  public var timeoutSeconds: UInt64
  /// How long requests wait for a new socket when none is left; 0: they fail at once.
  public var deadTimeoutSeconds: UInt64
  /// The server's transmission flags.
  public var serverFlags: UInt64
  /// Descriptor numbers. More than one needs CAN_MULTI_CONN among the server's flags.
  public var sockets: [UInt32]
  /// What sysfs shows as `backend`; nil: nothing, and no RECONFIGURE has to name it. At most
  /// `NBDFamily.backendIdentifierByteCountMaximum` bytes without NUL: a longer one traps.
  public var backendIdentifier: ByteString?

  public init(
    index: UInt32? = nil, sizeByteCount: UInt64, blockByteCount: UInt64,
    timeoutSeconds: UInt64 = 0, deadTimeoutSeconds: UInt64 = 0, serverFlags: UInt64,
    sockets: [UInt32], backendIdentifier: ByteString? = nil
  ) {
    self.index = index
    self.sizeByteCount = sizeByteCount
    self.blockByteCount = blockByteCount
    self.timeoutSeconds = timeoutSeconds
    self.deadTimeoutSeconds = deadTimeoutSeconds
    self.serverFlags = serverFlags
    self.sockets = sockets
    self.backendIdentifier = backendIdentifier
  }

  /// Behind the netlink header. Zero timeouts are left out: they are the defaults.
  public var payload: [UInt8] {
    var attributes = NetlinkAttributeWriter()
    if let index { attributes.append(NBDFamily.Attribute.index, index) }
    attributes.append(NBDFamily.Attribute.sizeByteCount, sizeByteCount)
    attributes.append(NBDFamily.Attribute.blockByteCount, blockByteCount)
    if timeoutSeconds != 0 { attributes.append(NBDFamily.Attribute.timeout, timeoutSeconds) }
    attributes.append(NBDFamily.Attribute.serverFlags, serverFlags)
    NBDFamily.append(sockets: sockets, to: &attributes)
    if deadTimeoutSeconds != 0 {
      attributes.append(NBDFamily.Attribute.deadTimeout, deadTimeoutSeconds)
    }
    if let backendIdentifier {
      NBDFamily.append(identifier: backendIdentifier, to: &attributes)
    }
    return GenericMessage.encode(
      command: NBDFamily.Command.connect, version: NBDFamily.version, attributes: attributes)
  }
}

/// DISCONNECT: ends every connection of a device; what is in flight fails.
public struct NBDDisconnectMessage: Equatable, Sendable {
  /// N of /dev/nbdN.
  public var index: UInt32
  public init(index: UInt32) { self.index = index }

  /// Behind the netlink header.
  public var payload: [UInt8] {
    var attributes = NetlinkAttributeWriter()
    attributes.append(NBDFamily.Attribute.index, index)
    return GenericMessage.encode(
      command: NBDFamily.Command.disconnect, version: NBDFamily.version, attributes: attributes)
  }
}

/// RECONFIGURE: each socket takes the place of one that is dead. When none is dead the socket is
/// dropped and the answer is still success.
public struct NBDReconfigureMessage: Equatable, Sendable {
  /// N of /dev/nbdN.
  public var index: UInt32
  /// Nil leaves the size as it is.
  public var sizeByteCount: UInt64?
  /// As CONNECT has both; nil leaves them as they are.
  public var timeoutSeconds: UInt64?
  public var deadTimeoutSeconds: UInt64?
  /// Descriptor numbers; empty: the rest is changed alone.
  public var sockets: [UInt32]
  /// Required, and compared, when CONNECT gave one.
  public var backendIdentifier: ByteString?

  public init(
    index: UInt32, sizeByteCount: UInt64? = nil, timeoutSeconds: UInt64? = nil,
    deadTimeoutSeconds: UInt64? = nil, sockets: [UInt32], backendIdentifier: ByteString?
  ) {
    self.index = index
    self.sizeByteCount = sizeByteCount
    self.timeoutSeconds = timeoutSeconds
    self.deadTimeoutSeconds = deadTimeoutSeconds
    self.sockets = sockets
    self.backendIdentifier = backendIdentifier
  }

  /// Behind the netlink header.
  public var payload: [UInt8] {
    var attributes = NetlinkAttributeWriter()
    attributes.append(NBDFamily.Attribute.index, index)
    if let sizeByteCount {
      attributes.append(NBDFamily.Attribute.sizeByteCount, sizeByteCount)
    }
    if let timeoutSeconds { attributes.append(NBDFamily.Attribute.timeout, timeoutSeconds) }
    if !sockets.isEmpty { NBDFamily.append(sockets: sockets, to: &attributes) }
    if let deadTimeoutSeconds {
      attributes.append(NBDFamily.Attribute.deadTimeout, deadTimeoutSeconds)
    }
    if let backendIdentifier {
      NBDFamily.append(identifier: backendIdentifier, to: &attributes)
    }
    return GenericMessage.encode(
      command: NBDFamily.Command.reconfigure, version: NBDFamily.version, attributes: attributes)
  }
}

/// What the driver says: answers to requests, and events from its group.
public enum NBDKernelMessage: Equatable, Sendable {
  /// One device of the answer to STATUS.
  public struct DeviceStatus: Equatable, Sendable {
    public let index: UInt32
    /// Configured *or merely open*: the `pid` file in sysfs says whether it is attached.
    public let isConnected: Bool
    public init(index: UInt32, isConnected: Bool) {
      self.index = index
      self.isConnected = isConnected
    }
  }

  /// The answer to CONNECT: the device that it became.
  case connected(index: UInt32)
  /// A socket of this device died by itself. One event a socket.
  case linkDead(index: UInt32)
  /// The answer to STATUS, in the driver's order.
  case status([DeviceStatus])

  /// Throws for a command that the driver does not send, and when the device or the list that it is
  /// about is missing or of another size.
  public init(decoding message: GenericMessage) throws(WireError) {
    switch message.command {
    case NBDFamily.Command.connect:
      self = .connected(index: try Self.index(message))
    case NBDFamily.Command.linkDead:
      self = .linkDead(index: try Self.index(message))
    case NBDFamily.Command.status:
      guard let list = message.attributes.last(NBDFamily.Attribute.deviceList) else {
        throw .value(field: "device list", actual: 0)
      }
      var devices: [DeviceStatus] = []
      for item in try list.nested() {
        let fields = try item.nested()
        guard let index = fields.last(1), let connected = fields.last(2) else {
          throw .value(field: "device item", actual: UInt64(fields.count))
        }
        devices.append(
          DeviceStatus(
            index: try index.integer(UInt32.self),
            isConnected: try connected.integer(UInt8.self) != 0))
      }
      self = .status(devices)
    default:
      throw .value(field: "nbd command", actual: UInt64(message.command))
    }
  }

  private static func index(_ message: GenericMessage) throws(WireError) -> UInt32 {
    guard let attribute = message.attributes.last(NBDFamily.Attribute.index) else {
      throw .value(field: "device index", actual: 0)
    }
    return try attribute.integer(UInt32.self)
  }
}

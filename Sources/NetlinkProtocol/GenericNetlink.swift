// SPDX-License-Identifier: Apache-2.0
// Generic netlink: families by name, with ids that the kernel deals out. The controller, a family
// with a fixed id, turns a name into an id and the ids of its multicast groups.

public import WireFormat

/// The 4 bytes behind the netlink header, and the attributes behind them.
/// Source: `struct genlmsghdr` in Linux `include/uapi/linux/genetlink.h`.
public struct GenericMessage: Equatable, Sendable {
  public static let headerByteCount = 4

  /// Of the family: the same number means something else to another.
  public var command: UInt8
  /// Of the family, as the sender has it; nobody here compares it.
  public var version: UInt8
  public var attributes: [NetlinkAttribute]

  /// The payload of a netlink message whose type is the id of the family.
  public static func encode(
    command: UInt8, version: UInt8, attributes: NetlinkAttributeWriter
  ) -> [UInt8] {
    [command, version, 0, 0] + attributes.bytes
  }

  /// Throws for fewer bytes than `headerByteCount`, and as `NetlinkAttribute.decode` does.
  public init(decoding payload: ArraySlice<UInt8>) throws(WireError) {
    guard payload.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: payload.count)
    }
    command = payload[payload.startIndex]
    version = payload[payload.startIndex + 1]
    attributes = try NetlinkAttribute.decode(payload.dropFirst(Self.headerByteCount))
  }
}

/// What the controller says of a family. Source: `CTRL_*` in Linux `genetlink.h`.
public struct GenericFamily: Equatable, Sendable {
  /// A multicast group. Name and `id` belong together for one boot at most, as the family's do.
  public struct Group: Equatable, Sendable {
    public let name: ByteString
    public let id: UInt32
  }
  /// The controller's own family id.
  public static let controllerType: UInt16 = 0x10
  /// Source: `GENL_NAMSIZ`, with the NUL.
  public static let nameByteCountMaximum = 15

  /// The type of all messages of the family; `controllerType` at least.
  public let id: UInt16
  /// Those that came with a name and an id.
  public let groups: [Group]

  /// The payload of the question. The kernel tries to load the family's module on it.
  public static func request(name: ByteString) -> [UInt8] {
    precondition(name.count <= nameByteCountMaximum, "a family's name has at most 15 bytes")
    var attributes = NetlinkAttributeWriter()
    attributes.append(2, text: name)
    return GenericMessage.encode(command: 3, version: 2, attributes: attributes)
  }

  /// `message` is CTRL_CMD_NEWFAMILY. Throws for another command, for an id that is missing or
  /// below `controllerType`, and for attributes of another size than their numbers.
  public init(decoding message: GenericMessage) throws(WireError) {
    guard message.command == 1 else {
      throw .value(field: "controller command", actual: UInt64(message.command))
    }
    guard let id = message.attributes.last(1) else { throw .value(field: "family id", actual: 0) }
    self.id = try id.integer(UInt16.self)
    guard self.id >= Self.controllerType else {
      throw .value(field: "family id", actual: UInt64(self.id))
    }
    var groups: [Group] = []
    if let list = message.attributes.last(7) {
      for item in try list.nested() {
        let fields = try item.nested()
        guard let name = fields.last(1), let id = fields.last(2) else { continue }
        groups.append(Group(name: name.text, id: try id.integer(UInt32.self)))
      }
    }
    self.groups = groups
  }

  /// Nil when the family has no such group.
  public func group(named name: ByteString) -> UInt32? {
    for group in groups where group.name == name { return group.id }
    return nil
  }
}

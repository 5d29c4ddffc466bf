// SPDX-License-Identifier: Apache-2.0
// The one request of the kernel's RDMA family that is used here: make a soft device.

public import WireFormat

/// A device of `kind` (`rxe`, `siw`) on a network interface. The kernel loads the module for it
/// and acknowledges. EEXIST: there is one. Source: `nldev_newlink` in Linux
/// `drivers/infiniband/core/nldev.c`, numbers from `rdma_netlink.h`.
public struct RDMALinkRequest: Equatable, Sendable {
  /// Of the socket. Source: `NETLINK_RDMA`.
  public static let socketProtocol: Int32 = 20
  /// Source: `RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK)`.
  public static let type: UInt16 = 5 << 10 | 3

  /// Of the device to be made.
  public var name: ByteString
  public var kind: ByteString
  /// The network interface that it is made of.
  public var interface: ByteString

  public init(name: ByteString, kind: ByteString, interface: ByteString) {
    self.name = name
    self.kind = kind
    self.interface = interface
  }

  /// Behind the netlink header: no header of a family comes first.
  public var payload: [UInt8] {
    var writer = NetlinkAttributeWriter()
    writer.append(2, text: name)  // RDMA_NLDEV_ATTR_DEV_NAME
    writer.append(65, text: kind)  // RDMA_NLDEV_ATTR_LINK_TYPE
    writer.append(51, text: interface)  // RDMA_NLDEV_ATTR_NDEV_NAME
    return writer.bytes
  }
}

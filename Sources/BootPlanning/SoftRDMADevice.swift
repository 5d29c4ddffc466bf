// SPDX-License-Identifier: Apache-2.0
// `rootlink.rdma=rxe:eth0`: an RDMA device that the kernel makes of an Ethernet interface.

public import WireFormat

/// What is to be made before an RNBD server can be reached without RDMA hardware.
public struct SoftRDMADevice: Equatable, Sendable {
  public enum Kind: Equatable, Sendable {
    /// RoCE version 2, over UDP.
    case rxe
    /// iWARP, over TCP.
    case siw
  }

  public var kind: Kind
  /// 1 to 15 bytes; it must be there when the device is made.
  public var interface: ByteString

  public init(kind: Kind, interface: ByteString) {
    self.kind = kind
    self.interface = interface
  }

  /// As the kernel's request has it.
  public var kindName: ByteString { kind == .rxe ? "rxe" : "siw" }
  /// What the device is called: `rxe_eth0`.
  public var name: ByteString { kindName + "_" + interface }
  /// As `rootlink.rdma=` has it.
  public var text: ByteString { kindName + ":" + interface }

  /// Source: `IFNAMSIZ` in Linux `if.h`, with its NUL.
  static let interfaceByteCountMaximum = 15

  static func device(from text: Text) throws(SyntaxError) -> SoftRDMADevice {
    guard let (kindText, interface) = text.cut(at: .colon) else {
      throw SyntaxError(at: text, expected: .softDevice)
    }
    let kind: Kind
    if kindText.isEqual(to: "rxe") {
      kind = .rxe
    } else if kindText.isEqual(to: "siw") {
      kind = .siw
    } else {
      throw SyntaxError(at: kindText, expected: .softDevice)
    }
    var isName = !interface.isEmpty && interface.count <= interfaceByteCountMaximum
    for byte in interface where byte <= 0x20 || byte == 0x2f || byte >= 0x7f { isName = false }
    guard isName else { throw SyntaxError(at: interface, expected: .interfaceName) }
    return SoftRDMADevice(kind: kind, interface: ByteString(interface))
  }
}

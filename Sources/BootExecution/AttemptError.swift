// SPDX-License-Identifier: Apache-2.0
public import LinuxSystem
public import NBDClient
public import NBDDriver
public import WireFormat

/// Why one attempt to attach one target came to nothing.
public indirect enum AttemptError: Error, Equatable, Sendable {
  case unresolved(ResolutionError)
  case unknownInterface(ByteString)
  case unusableAddress(ByteString, SystemError)
  case connection(ConnectionError)
  /// A further connection shows another size or other flags than the first.
  case connectionsDiffer(address: ByteString)
  /// The export was entered and its first blocks cannot be read.
  case unreadable(address: ByteString, SystemError)
  case driver(AttachError)
  case ublk(UblkAttachError)
  case firstRead(device: ByteString, SystemError)
  case tlsMissing(server: ByteString)
  case protocolMissing
  case noRDMADevice
  /// `ibnbd-root=` names what no server can have.
  case rnbdName(WireError)
  /// What is asked for is there under another number.
  case attachedAlready(name: ByteString, device: ByteString)
  /// Of the process behind the device.
  case rnbd(reason: ByteString, advice: ByteString)

  public var report: (reason: String, advice: String) {
    switch self {
    case .unresolved(let error): error.report
    case .unknownInterface(let name):
      (
        "there is no interface '\(name.printable)' for a link-local server",
        "check the name behind the % of the address"
      )
    case .unusableAddress(let address, let error):
      ("'\(address.printable)' cannot be used: \(error.text)", "check the address")
    case .connection(let error): error.report
    case .connectionsDiffer(let address):
      (
        "\(address.printable) shows another size or other flags on a second connection",
        "use one connection, or check that the server has one image under this name"
      )
    case .unreadable(let address, let error):
      (
        "the export of \(address.printable) cannot be read: \(error.text)",
        "look at the server's log and at its disk"
      )
    case .driver(let error): error.report
    case .ublk(let error): error.report
    case .firstRead(let device, let error):
      (
        "\(device.printable) is attached and cannot be read: \(error.text)",
        "look at the server's log and at its disk"
      )
    case .tlsMissing(let server):
      (
        "an nbds address asks for TLS with \(server.printable), which this version cannot do",
        "use nbd:// on a network that you trust"
      )
    case .protocolMissing:
      (
        "ibnbd-root= asks for RDMA, which this build does not have",
        "use nbdroot= for a connection over TCP"
      )
    case .noRDMADevice:
      (
        "this machine has no RDMA device",
        "load its driver, or make a soft device with rootlink.rdma=rxe:eth0"
      )
    case .rnbdName(let error):
      (
        "ibnbd-root= cannot be used: \(error.reason)", "correct sessname= and device_path="
      )
    case .attachedAlready(let name, let device):
      (
        "'\(name.printable)' is \(device.printable) already", "use that, or detach it first"
      )
    case .rnbd(let reason, let advice):
      // Our own words, in which a peer's are escaped already.
      (
        String(decoding: reason.bytes, as: UTF8.self), String(decoding: advice.bytes, as: UTF8.self)
      )
    }
  }

  /// Whether the same attempt may succeed later: a server can come up, a driver cannot.
  public var mayPass: Bool {
    switch self {
    case .connection(let error): error.mayPass
    case .driver(.geometry): true
    case .unresolved(.notAName), .driver, .ublk, .tlsMissing, .protocolMissing, .rnbdName,
      .attachedAlready:
      false
    case .noRDMADevice, .rnbd: true
    case .unresolved, .unknownInterface, .unusableAddress, .connectionsDiffer, .unreadable,
      .firstRead:
      true
    }
  }
}

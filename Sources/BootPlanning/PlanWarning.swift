// SPDX-License-Identifier: Apache-2.0
// What a plan took for granted, for one line on the console each.

import WireFormat

/// What was passed over, guessed, or read in one of two ways.
public enum PlanWarning: Equatable, Sendable {
  /// `nbdroot=1234/foo`: digits before the first slash are a port.
  case numberIsPort(UInt16)
  /// `host,2000`: the number is an export's name, not a port.
  case numberIsExportName(ByteString)
  /// `2001:db8::1:10809`: all of it was taken as an address.
  case addressMayEndInPort(ByteString)
  /// Text that only looks like an address, with a port glued to it.
  case addressWithPortNeedsBrackets(address: ByteString, port: ByteString)
  case netrootIgnored(ByteString)
  case deviceAlreadyTaken(DeviceName, parameter: ByteString)
  case unknownNBDOption(ByteString)
  /// Nothing but option 54 of the lease could be the server.
  case serverIsDHCPServer(ByteString, interface: ByteString)
  case rootPathUnusable(ByteString)
  case leaseFileTooLong(path: ByteString, maximum: Int)
  case tooManyLeaseFiles(count: Int, maximum: Int)

  public var text: String {
    switch self {
    case .numberIsPort(let port):
      "\(port) was read as a port; write nbd://\(port)/ for a host of that name"
    case .numberIsExportName(let name):
      "'\(name.printable)' was read as an export name; write host:port/name for a port"
    case .addressMayEndInPort(let address):
      "\(address.printable) was read as an address without a port; write [address]:port for a port"
    case .addressWithPortNeedsBrackets(let address, let port):
      "\(address.printable):\(port.printable) was read as a host without a port, and is not an "
        + "address; write [\(address.printable)]:\(port.printable)"
    case .netrootIgnored(let value):
      "netroot=\(value.printable) is ignored because root= names a server too"
    case .deviceAlreadyTaken(let device, let parameter):
      "\(parameter.printable)= is ignored because \(device.path) is taken by another parameter"
    case .unknownNBDOption(let option):
      "the option '\(option.printable)' has no meaning here and is ignored"
    case .serverIsDHCPServer(let server, let interface):
      "no server was named; trying the DHCP server \(server.printable) of \(interface.printable), "
        + "which is a guess"
    case .rootPathUnusable(let path):
      "the lease's root-path '\(path.printable)' is not one of ours and was ignored"
    case .leaseFileTooLong(let path, let maximum):
      "\(path.printable) is longer than \(maximum) bytes and was ignored"
    case .tooManyLeaseFiles(let count, let maximum):
      "of \(count) lease files only \(maximum) were read"
    }
  }
}

// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// A place where a server could have been named, and what stood there.
public struct ServerSource: Equatable, Sendable {
  public enum Place: Equatable, Sendable {
    case rootPath, nextServer, ipParameter, serverName, dhcpServer
  }
  public let place: Place
  /// Nil when there was nothing.
  public let content: ByteString?

  public var text: String {
    let name =
      switch place {
      case .rootPath: "root-path"
      case .nextServer: "next-server"
      case .ipParameter: "second field of ip="
      case .serverName: "option 66 or sname"
      case .dhcpServer: "DHCP server"
      }
    return content.map { "\(name) '\($0.printable(limit: 80))'" } ?? "no \(name)"
  }
}

/// Why there is no plan.
public indirect enum PlanError: Error, Equatable, Sendable {
  /// `column` is the 1-based place in the command line; nil for a value that a lease gave.
  case malformed(parameter: ByteString, value: ByteString, column: Int?, SyntaxError)
  /// `parameter` means nothing without `missing`.
  case incomplete(parameter: ByteString, missing: ByteString)
  /// The root-path that was asked for is for NFS, iSCSI...
  case foreignRootPath(ByteString, interface: ByteString)
  /// `parameter` leaves the server to the network, and the network named none.
  case serverUnknown(parameter: ByteString, leasePaths: [ByteString], lookedAt: [ServerSource])
  case commandLineTooLong(byteCount: Int, maximum: Int)
  case tooManyTargets(maximum: Int)
}

extension PlanError {
  /// Whether what was asked is wrong (exit status 2), rather than the network (exit status 1).
  public var isRequestWrong: Bool {
    switch self {
    case .malformed(_, _, let column, _): column != nil
    case .incomplete, .commandLineTooLong, .tooManyTargets: true
    case .foreignRootPath, .serverUnknown: false
    }
  }

  public var report: (reason: String, advice: String) {
    switch self {
    case .malformed(let parameter, let value, let column, let error):
      let place = column.map { ", \($0) of the command line" } ?? ""
      let seen = error.found.isEmpty ? "the end" : "'\(error.found.printable(limit: 40))'"
      return (
        "\(parameter.printable)=\(value.printable(limit: 120)): character \(error.offset + 1) of "
          + "the value\(place): \(error.expected.text) expected, found \(seen)",
        column == nil
          ? "correct the root-path (option 17) that the DHCP server sends"
          : "correct \(parameter.printable)= as rootlink-cmdline(7) describes"
      )
    case .incomplete(let parameter, let missing):
      return (
        "\(parameter.printable)= is there without \(missing.printable)=",
        "add \(missing.printable)= to the command line"
      )
    case .foreignRootPath(let path, let interface):
      return (
        "the root-path '\(path.printable)' of the lease of \(interface.printable) belongs to "
          + "another protocol",
        "name the server in nbdroot=, or send a root-path such as nbd://HOST/EXPORT"
      )
    case .serverUnknown(let parameter, let paths, let lookedAt):
      let files = Array(paths.prefix(4)).printableList
      var sources = ""
      for source in lookedAt { sources += (sources.isEmpty ? "" : ", ") + source.text }
      return (
        "\(parameter.printable)= leaves the server to DHCP, which named none: "
          + (paths.isEmpty ? "no lease was found" : "looked in \(files)")
          + (sources.isEmpty ? "" : "; \(sources)"),
        "name the server in \(parameter.printable)=, or set next-server or root-path in the "
          + "DHCP server"
      )
    case .commandLineTooLong(let count, let maximum):
      return (
        "the command line has \(count) bytes, above the limit of \(maximum)", "shorten it"
      )
    case .tooManyTargets(let maximum):
      return (
        "the command line names more than \(maximum) devices to attach", "name fewer devices"
      )
    }
  }
}

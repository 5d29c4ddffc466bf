// SPDX-License-Identifier: Apache-2.0
// Where a server listens: `tcp:HOST:PORT`, `tcp:[V6]:PORT`, `unix:PATH`, `rdma:HOST[:PORT]`.

import WireFormat

/// Where a server listens; written as `text` gives it.
public enum ListenAddress: Equatable, Sendable {
  /// Host names are left to the resolver; port 0 lets the kernel choose.
  case tcp(host: ByteString, port: UInt16)
  /// A socket in this machine's file system; the path has 1 to 107 bytes.
  case unix(path: ByteString)
  /// Of an InfiniBand or RoCE device, found by its address.
  case rdma(host: ByteString, port: UInt16)

  /// Both families, IANA's port for NBD.
  public static let standard = ListenAddress.tcp(host: "::", port: 10809)
  /// Source: `RTRS_PORT` in Linux `drivers/block/rnbd/rnbd-proto.h`.
  public static let standardRDMAPort: UInt16 = 1234

  /// Why a text is no address; `advice` is one for all.
  public enum ParseError: Error, Equatable, Sendable {
    /// The whole text, which begins with none of the schemes.
    case scheme(ByteString)
    /// The whole text; what is behind its last colon is no number from 0 to 65535.
    case port(ByteString)
    /// The whole text: it has no host, or an IPv6 address without brackets.
    case host(ByteString)
    /// Of a socket's path, in bytes.
    case pathLength(Int)

    /// What is wrong with the text, and how to write it.
    public var report: (reason: String, advice: String) {
      let forms = "write tcp:HOST:PORT, tcp:[V6]:PORT, unix:PATH or rdma:HOST[:PORT]"
      return switch self {
      case .scheme(let text): ("'\(text.printable)' begins with no known kind of address", forms)
      case .port(let text): ("'\(text.printable)' has no port from 0 to 65535 at its end", forms)
      case .host(let text): ("'\(text.printable)' has no host", forms)
      case .pathLength(let count):
        ("a socket path of \(count) bytes", "give a path of 1 to 107 bytes after unix:")
      }
    }
  }

  /// Parses what stands behind `--listen` or in the configuration. A host name is not looked up.
  public init(_ text: ByteString) throws(ParseError) {
    if let path = text.dropping(prefix: "unix:") {
      // Source: unix(7), sun_path holds 108 bytes with its end.
      guard (1...107).contains(path.count), !path.bytes.contains(0) else {
        throw .pathLength(path.count)
      }
      self = .unix(path: path)
    } else if let rest = text.dropping(prefix: "tcp:") {
      let (host, port) = try Self.hostAndPort(rest, of: text)
      self = .tcp(host: host, port: port)
    } else if let rest = text.dropping(prefix: "rdma:") {
      let hasPort = !rest.hasSuffix("]") && rest.bytes.contains(UInt8(ascii: ":"))
      let (host, port) = try Self.hostAndPort(
        hasPort ? rest : rest + ByteString(":\(Self.standardRDMAPort)"), of: text)
      self = .rdma(host: host, port: port)
    } else {
      throw .scheme(text)
    }
  }

  private static func hostAndPort(
    _ rest: ByteString, of text: ByteString
  ) throws(ParseError) -> (ByteString, UInt16) {
    let colon = UInt8(ascii: ":")
    guard let last = rest.bytes.lastIndex(of: colon),
      let port = ByteString(rest.bytes[(last + 1)...]).decimal(maximum: 65535)
    else { throw .port(text) }
    var host = ByteString(rest.bytes[..<last])
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = ByteString(host.bytes.dropFirst().dropLast())
    } else if host.bytes.contains(colon) {
      throw .host(text)  // An IPv6 address without brackets: its end and the port look alike.
    }
    guard !host.isEmpty, !host.bytes.contains(0) else { throw .host(text) }
    return (host, UInt16(port))
  }
}

extension ListenAddress {
  /// As it can be written again.
  public var text: ByteString {
    func hostAndPort(_ host: ByteString, _ port: UInt16) -> ByteString {
      let isV6 = host.bytes.contains(UInt8(ascii: ":"))
      return (isV6 ? "[" + host + "]" : host) + ByteString(":\(port)")
    }
    return switch self {
    case .tcp(let host, let port): "tcp:" + hostAndPort(host, port)
    case .unix(let path): "unix:" + path
    case .rdma(let host, let port): "rdma:" + hostAndPort(host, port)
    }
  }
}

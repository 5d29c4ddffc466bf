// SPDX-License-Identifier: Apache-2.0
// NBD URIs: `nbd://host[:port]/export`, and with TLS or over a Unix socket. Here, unlike in the
// other forms, names are percent-decoded, brackets are required around IPv6 and an empty port is
// the default. Source: NBD `doc/uri.md`; a missing host is the lease's server, an addition of ours.

import WireFormat

enum NBDURI {
  /// `sun_path` without its NUL. Source: Linux `include/uapi/linux/un.h`.
  static let socketPathByteCountMaximum = 107

  /// The scheme is one of ours, in capitals or not.
  static func isNBD(_ value: Text) -> Bool {
    guard let end = value.schemeEnd else { return false }
    return Scheme(value[..<end]) != nil
  }

  private enum Scheme {
    case tcp(tls: Bool)
    case unix(tls: Bool)

    var isUnix: Bool { if case .unix = self { true } else { false } }
    var isTLS: Bool {
      switch self {
      case .tcp(let tls), .unix(let tls): tls
      }
    }

    init?(_ text: Text) {
      let small = Text(text.map { $0.isLetter ? $0 | 0x20 : $0 })
      if small.isEqual(to: "nbd") {
        self = .tcp(tls: false)
      } else if small.isEqual(to: "nbds") {
        self = .tcp(tls: true)
      } else if small.isEqual(to: "nbd+unix") {
        self = .unix(tls: false)
      } else if small.isEqual(to: "nbds+unix") {
        self = .unix(tls: true)
      } else {
        return nil
      }
    }
  }

  static func request(from value: Text) throws(SyntaxError) -> NBDRequest {
    guard let schemeEnd = value.schemeEnd, let scheme = Scheme(value[..<schemeEnd]) else {
      throw SyntaxError(at: value, expected: .anyScheme)
    }
    if let index = value.firstIndex(of: 0x23) {
      throw SyntaxError(at: value[index...], expected: .noFragment)
    }
    let rest = value[(schemeEnd + 3)...]
    let authorityEnd = rest.firstIndex { $0 == .slash || $0 == 0x3f } ?? rest.endIndex
    let authority = rest[..<authorityEnd]
    let path = rest[authorityEnd...]
    let queryStart = path.firstIndex(of: 0x3f) ?? path.endIndex

    var request = NBDRequest()
    let identity = try readAuthority(authority, into: &request, isUnix: scheme.isUnix)
    let name = try decoded(path[..<queryStart].dropFirst(), nul: .exportWithoutNUL)
    guard name.count <= NBDRequest.exportByteCountMaximum else {
      throw SyntaxError(
        at: path, expected: .exportWithinLimit(maximum: NBDRequest.exportByteCountMaximum))
    }
    request.exports = [name]

    var query = Query()
    try query.read(path[queryStart...].dropFirst())
    switch (scheme, query.socket) {
    case (.unix, nil): throw SyntaxError(at: path[path.endIndex...], expected: .socketKey)
    case (.unix, .some(let socket)): request.server = .unixSocket(socket)
    case (.tcp, nil): break
    case (.tcp, .some):
      throw SyntaxError(at: path[(query.socketStart ?? path.endIndex)...], expected: .noSocketKey)
    }
    request.tls = query.policy(
      isRequired: scheme.isTLS, identity: identity, server: request.server)
    return request
  }

  /// Sets server and port; returns the user.
  private static func readAuthority(
    _ authority: Text, into request: inout NBDRequest, isUnix: Bool
  ) throws(SyntaxError) -> ByteString? {
    var identity: ByteString?
    var hostPort = authority
    if let (user, tail) = authority.cutLast(at: .at) {
      identity = try decoded(user, nul: .noNUL)
      hostPort = tail
    }
    guard !hostPort.isEmpty else { return identity }
    guard !isUnix else { throw SyntaxError(at: hostPort, expected: .emptyAuthority) }
    var portText = hostPort[hostPort.endIndex...]
    if hostPort.first == .openBracket {
      guard let close = hostPort.firstIndex(of: .closeBracket) else {
        throw SyntaxError(at: hostPort, expected: .closingBracket)
      }
      let inside = hostPort[(hostPort.startIndex + 1)..<close]
      guard let address = ServerGrammar.ipv6(Text(try decoded(inside, nul: .noNUL).bytes)) else {
        throw SyntaxError(at: inside, expected: .ipv6)
      }
      request.server = address
      let after = hostPort[(close + 1)...]
      guard after.isEmpty || after.first == .colon else {
        throw SyntaxError(at: after, expected: .afterBracket)
      }
      portText = after.dropFirst()
    } else if let (host, port) = hostPort.cut(at: .colon) {
      guard !port.contains(.colon) else {
        throw SyntaxError(at: hostPort, expected: .bracketedIPv6)
      }
      if !host.isEmpty { request.server = try ServerGrammar.host(host) }
      portText = port
    } else {
      request.server = try ServerGrammar.host(hostPort)
    }
    if !portText.isEmpty { request.port = try ServerGrammar.port(portText) }
    return identity
  }

  /// Without percent encoding. `nul` is what to say about a NUL byte; nil allows them.
  static func decoded(
    _ text: Text, nul: SyntaxError.Expectation?
  ) throws(SyntaxError) -> ByteString {
    guard text.contains(.percent) || text.contains(0) else { return ByteString(text) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count)
    var index = text.startIndex
    while index < text.endIndex {
      let start = index
      var byte = text[index]
      index += 1
      if byte == .percent {
        guard index + 1 < text.endIndex, let high = text[index].hexadecimalDigit,
          let low = text[index + 1].hexadecimalDigit
        else { throw SyntaxError(at: text[start...], expected: .percentEncoding) }
        byte = high << 4 | low
        index += 2
      }
      if byte == 0, let nul { throw SyntaxError(at: text[start...], expected: nul) }
      bytes.append(byte)
    }
    return ByteString(bytes)
  }

  /// What stands after `?`.
  private struct Query {
    var socket: ByteString?
    var socketStart: Int?
    var authentication: TLSPolicy.Authentication?
    var hostName: ByteString?
    var verifiesPeer: Bool?

    mutating func read(_ text: Text) throws(SyntaxError) {
      var rest = text
      while !rest.isEmpty {
        let end = rest.firstIndex { $0 == 0x26 || $0 == 0x3b } ?? rest.endIndex
        if end > rest.startIndex { try readPair(rest[..<end]) }
        rest = rest[end...].dropFirst()
      }
    }

    private mutating func readPair(_ pair: Text) throws(SyntaxError) {
      let (key, value) = pair.cut(at: .equals) ?? (pair, pair[pair.endIndex...])
      if key.hasPrefix("x-") { return }
      if key.isEqual(to: "socket") {
        let path = try decoded(value, nul: nil)
        guard !path.isEmpty, path.count <= NBDURI.socketPathByteCountMaximum,
          !path.bytes.dropFirst().contains(0), path.count > 1 || path.bytes[0] != 0
        else { throw SyntaxError(at: value, expected: .socketPath) }
        socket = path
        socketStart = key.startIndex
      } else if key.isEqual(to: "tls-type") {
        if value.isEqual(to: "anon") {
          authentication = .anonymous
        } else if value.isEqual(to: "x509") {
          authentication = .x509
        } else if value.isEqual(to: "psk") {
          authentication = .preSharedKey
        } else {
          throw SyntaxError(at: value, expected: .tlsType)
        }
      } else if key.isEqual(to: "tls-hostname") {
        let name = try decoded(value, nul: .noNUL)
        guard !name.isEmpty else { throw SyntaxError(at: value, expected: .value) }
        hostName = name
      } else if key.isEqual(to: "tls-verify-peer") {
        guard value.count == 1, value.first == 0x30 || value.first == 0x31 else {
          throw SyntaxError(at: value, expected: .zeroOrOne)
        }
        verifiesPeer = value.first == 0x31
      } else {
        throw SyntaxError(at: key, expected: .uriKey)
      }
    }

    func policy(isRequired: Bool, identity: ByteString?, server: ServerAddress?) -> TLSPolicy? {
      guard
        isRequired || authentication != nil || hostName != nil || verifiesPeer != nil
      else { return nil }
      var policy = TLSPolicy()
      policy.isRequired = isRequired
      policy.authentication = authentication
      policy.identity = identity
      policy.verifiesPeer = verifiesPeer ?? true
      if policy.verifiesPeer {
        policy.verifiedName = hostName
        if hostName == nil, case .hostName(let name) = server { policy.verifiedName = name }
      }
      return policy
    }
  }
}

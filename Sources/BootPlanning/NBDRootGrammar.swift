// SPDX-License-Identifier: Apache-2.0
// The values of `nbdroot=` and of a lease's root-path: three grammars that share their characters.
//
//   the kernel patch   [ipv4 ":"] port "/" export
//   its correction     [[host] [":" port]] ["/" [export]]
//   Debian's script    server "," export "," device, host ":" path, and the two above
//
// Where they collide one rule decides, in the order of `request(from:in:)`. A name that could be
// meant with or without its leading slash yields two candidates.

import WireFormat

enum NBDRootGrammar {
  enum Place: Equatable { case parameter, rootPath }

  /// Empty and `dhcp` are a request that leaves everything to the lease; the caller looks for them
  /// first when a root-path could say more.
  static func request(from value: Text, in place: Place) throws(SyntaxError) -> NBDRequest {
    if value.isEmpty || value.isEqual(to: "dhcp") { return NBDRequest() }
    if value.schemeEnd != nil { return try NBDURI.request(from: value) }
    if value.hasPrefix("nbd:") { return try DracutForm.request(from: value) }
    let beforeSlash = value[..<(value.firstIndex(of: .slash) ?? value.endIndex)]
    if let comma = commaOutsideBrackets(beforeSlash) {
      return try commaForm(server: value[..<comma], rest: value[(comma + 1)...])
    }
    if value.first == .openBracket { return try bracketedForm(value) }
    if beforeSlash.contains(.colon), let request = try addressForm(beforeSlash, in: value) {
      return request
    }
    if beforeSlash.isAllDigits { return try portForm(beforeSlash, in: value) }
    if value.first == .slash {
      var request = NBDRequest()
      request.exports = try NBDRequest.candidates(
        withSlash: value, slashFirst: place == .rootPath)
      return request
    }
    return try hostForm(value)
  }

  private static func commaOutsideBrackets(_ text: Text) -> Int? {
    var isInBrackets = false
    for index in text.indices {
      switch text[index] {
      case .openBracket: isInBrackets = true
      case .closeBracket: isInBrackets = false
      case .comma where !isInBrackets: return index
      default: break
      }
    }
    return nil
  }

  /// `server,export[,device]`. With two commas or more the last field must be a device, and the
  /// export name keeps the commas between.
  private static func commaForm(server: Text, rest: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    if server.first == .openBracket {
      let (address, after) = try ServerGrammar.bracketed(server)
      guard after.isEmpty else { throw SyntaxError(at: after, expected: .serverWithoutPort) }
      request.server = address
    } else if let colon = server.firstIndex(of: .colon), ServerGrammar.ipv6(server) == nil {
      throw SyntaxError(at: server[colon...], expected: .serverWithoutPort)
    } else {
      request.server = try ServerGrammar.leaseOrHost(server)
    }
    var name = rest
    if let (head, tail) = rest.cutLast(at: .comma) {
      guard let device = DeviceName(tail), device.driver == .nbd else {
        throw SyntaxError(at: tail, expected: .device)
      }
      request.device = device
      name = head
    }
    request.exports = [try NBDRequest.checkedExport(name)]
    if name.isAllDigits { request.warnings.append(.numberIsExportName(ByteString(name))) }
    return request
  }

  private static func bracketedForm(_ value: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    let (address, rest) = try ServerGrammar.bracketed(value)
    request.server = address
    guard rest.isEmpty || rest.first == .slash || rest.first == .colon else {
      throw SyntaxError(at: rest, expected: .afterBracket)
    }
    try addPortAndExport(rest, to: &request)
    return request
  }

  /// An IPv6 address without brackets has no port. Nil when the text is no such address.
  private static func addressForm(
    _ address: Text, in value: Text
  ) throws(SyntaxError) -> NBDRequest? {
    var request = NBDRequest()
    if let server = ServerGrammar.ipv6(address) {
      request.server = server
      if let (head, tail) = address.cutLast(at: .colon), tail.isAllDigits, tail.count >= 2,
        IPv6Address(head) != nil
      {
        request.warnings.append(.addressMayEndInPort(ByteString(address)))
      }
    } else if let (head, tail) = address.cutLast(at: .colon), tail.isAllDigits,
      IPv6Address(head) != nil
    {
      // Five digits: no address, whatever was meant. The name will not resolve; the warning says
      // what to write.
      request.server = .hostName(ByteString(address))
      request.warnings.append(
        .addressWithPortNeedsBrackets(address: ByteString(head), port: ByteString(tail)))
    } else {
      return nil
    }
    try addPortAndExport(value[address.endIndex...], to: &request)
    return request
  }

  /// `port[/export]`, the kernel patch's short form.
  private static func portForm(_ digits: Text, in value: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    let port = try ServerGrammar.port(digits)
    request.port = port
    request.warnings.append(.numberIsPort(port))
    try addPortAndExport(value[digits.endIndex...], to: &request)
    return request
  }

  private static func hostForm(_ value: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    let end = value.firstIndex { $0 == .colon || $0 == .slash } ?? value.endIndex
    request.server = try ServerGrammar.leaseOrHost(value[..<end])
    try addPortAndExport(value[end...], to: &request)
    return request
  }

  /// What follows a server: nothing, `/export`, `:/path`, `:port`, `:port/export` or `:export`.
  static func addPortAndExport(_ rest: Text, to request: inout NBDRequest) throws(SyntaxError) {
    guard let first = rest.first else { return }
    if first == .slash {
      request.exports = [try NBDRequest.checkedExport(rest.dropFirst())]
      return
    }
    let after = rest.dropFirst()
    if after.first == .slash {
      request.exports = try NBDRequest.candidates(withSlash: after, slashFirst: true)
      return
    }
    let token = after[..<(after.firstIndex(of: .slash) ?? after.endIndex)]
    if token.isAllDigits {
      request.port = try ServerGrammar.port(token)
      request.exports = [try NBDRequest.checkedExport(after[token.endIndex...].dropFirst())]
    } else {
      request.exports = [try NBDRequest.checkedExport(after)]
    }
  }
}

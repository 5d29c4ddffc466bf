// SPDX-License-Identifier: Apache-2.0
// From what one value says to a target: the lease and the companion parameters fill what it left
// out.

import WireFormat

struct TargetBuilder {
  let input: PlanningInput
  let parameters: BootParameters
  let network: NetworkParameters
  let lease: Lease?
  /// The files that were looked at, for the account of a server that could not be found.
  let leasePaths: [ByteString]
  var warnings: [PlanWarning] = []
  /// `rootlink.path=` and `rootlink.replica=` belong to the first device.
  private var arePathsTaken = false

  init(
    input: PlanningInput, parameters: BootParameters, network: NetworkParameters, lease: Lease?,
    leasePaths: [ByteString]
  ) {
    self.input = input
    self.parameters = parameters
    self.network = network
    self.lease = lease
    self.leasePaths = leasePaths
  }

  /// Runs a grammar over a parameter's value, from `prefixByteCount` on.
  func read<Value>(
    _ parameter: KernelParameter, droppingFirst prefixByteCount: Int = 0,
    with grammar: (Text) throws(SyntaxError) -> Value
  ) throws(PlanError) -> Value {
    let value = parameter.value ?? ByteString()
    do throws(SyntaxError) {
      return try grammar(value.bytes[...].dropFirst(prefixByteCount))
    } catch {
      throw .malformed(
        parameter: parameter.name, value: value, column: parameter.offset + error.offset + 1, error)
    }
  }

  /// `nbdserver=` and `nbdport=` fill in for `parameter` when `usesCompanions` is set.
  mutating func nbd(
    _ request: NBDRequest, parameter: ByteString, origin: ByteString, usesCompanions: Bool = false
  ) throws(PlanError) -> Wish {
    var server = request.server
    var serverOrigin: ServerOrigin?
    if server == nil, usesCompanions, let companion = parameters.nbdServer {
      server = try read(companion, with: AliasGrammar.server)
    }
    if server == nil { (server, serverOrigin) = try chosenServer(for: parameter) }
    var port = request.port
    if port == nil, usesCompanions, let companion = parameters.nbdPort {
      port = try read(companion, with: ServerGrammar.port)
    }
    let path = TargetPath(
      server: server ?? .pending, port: port ?? AttachmentTarget.nbdPort)
    var target = AttachmentTarget(
      blockProtocol: .nbd, paths: [path], device: nil, driver: try driver(), origin: origin)
    target.exports = request.exports
    target.tls = request.tls
    target.serverOrigin = serverOrigin
    target.accessMode = request.accessMode
    target.blockSize = request.options.blockSize
    target.requestTimeoutSeconds = request.options.timeoutSeconds
    target.connectionCount = try connectionCount(from: request.options)
    try addTimes(to: &target)
    if !arePathsTaken {
      arePathsTaken = true
      target.paths += try furtherPaths(parameters.paths, port: path.port)
      target.replicas = try furtherPaths(parameters.replicas, port: path.port)
    }
    warnings += request.warnings
    var wish = Wish(target: target, device: request.device)
    wish.fileSystem = request.fileSystem
    wish.mountOptions = request.mountOptions
    return wish
  }

  /// A target of which only a lease that is still to come will say more.
  mutating func pendingNBD(parameter: ByteString) throws(PlanError) -> Wish {
    var request = NBDRequest()
    request.exports = []
    request.server = .pending
    return try nbd(request, parameter: parameter, origin: "root-path")
  }

  /// What a root-path asks for. It has no place in the command line.
  mutating func rootPath(
    _ path: LeaseValue<ByteString>, of lease: Lease, parameter: ByteString
  ) throws(PlanError) -> Wish {
    let rootPath = RootPath(path.value)
    guard !rootPath.isForeign else {
      throw .foreignRootPath(path.value, interface: lease.interface)
    }
    let request: NBDRequest
    do throws(SyntaxError) {
      request = try NBDRootGrammar.request(from: rootPath.text, in: .rootPath)
    } catch {
      throw .malformed(parameter: "root-path", value: path.value, column: nil, error)
    }
    let origin: ByteString = "root-path of lease " + lease.interface
    var wish = try nbd(
      request, parameter: parameter, origin: origin, usesCompanions: request.server == nil)
    if let server = request.server, server.needsNetwork {
      wish.target.serverOrigin = .lease(
        interface: lease.interface, field: "root-path in " + path.key, path: path.path)
    }
    return wish
  }

  mutating func rnbd(
    _ request: RNBDRequest, parameter: ByteString
  ) throws(PlanError) -> Wish {
    let port = request.port ?? AttachmentTarget.rnbdPort
    var serverOrigin: ServerOrigin?
    var paths: [TargetPath] = []
    for path in request.paths.isEmpty ? [RNBDRequest.Path()] : request.paths {
      var server = path.server
      if server == nil { (server, serverOrigin) = try chosenServer(for: parameter) }
      paths.append(TargetPath(source: path.source, server: server ?? .pending, port: port))
    }
    var target = AttachmentTarget(
      blockProtocol: .rnbd, paths: paths, device: nil, driver: .ublk, origin: parameter + "=")
    target.serverOrigin = serverOrigin
    target.session = request.session ?? derivedSession(first: paths[0])
    target.devicePath = request.devicePath
    target.accessMode = request.accessMode ?? .readWrite
    target.ioMode = request.ioMode ?? .block
    target.queueCount = request.queueCount
    target.pathPolicy = try pathPolicy()
    target.connectionCount = try connectionCount(from: NBDOptions())
    try addTimes(to: &target)
    return Wish(target: target, device: request.device)
  }

  /// `clt_<host name or hardware address>-srv_<first destination>`.
  private func derivedSession(first path: TargetPath) -> ByteString? {
    guard let server = path.server.text else { return nil }
    var client = network.hostName ?? lease?.hostName
    if client == nil {
      let name = network.bootInterface ?? lease?.interface
      for interface in input.interfaces where interface.hardwareAddress.count == 6 {
        if name == nil ? input.interfaces.count == 1 : interface.name == name {
          client = Self.hexadecimal(interface.hardwareAddress)
        }
      }
    }
    guard let client else { return nil }
    return "clt_" + client + "-srv_" + server
  }

  private static func hexadecimal(_ address: [UInt8]) -> ByteString {
    var text = ""
    for byte in address {
      if !text.isEmpty { text += ":" }
      text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
    return ByteString(text)
  }

  private mutating func chosenServer(
    for parameter: ByteString
  ) throws(PlanError) -> (ServerAddress?, ServerOrigin?) {
    var lookedAt: [ServerSource] = []
    if let choice = ServerChoice.choose(lease: lease, network: network, lookedAt: &lookedAt) {
      if let warning = choice.warning, !warnings.contains(warning) { warnings.append(warning) }
      return (choice.server, choice.origin)
    }
    if input.allowsMissingLease { return (.pending, nil) }
    throw .serverUnknown(parameter: parameter, leasePaths: leasePaths, lookedAt: lookedAt)
  }

  private func connectionCount(from options: NBDOptions) throws(PlanError) -> UInt32 {
    if let count = options.connectionCount { return count }
    guard let parameter = parameters.connections else { return 1 }
    return try read(parameter) { (text) throws(SyntaxError) in
      try ServerGrammar.number(text, minimum: 1, maximum: NBDOptions.connectionMaximum)
    }
  }

  private func pathPolicy() throws(PlanError) -> AttachmentTarget.PathPolicy? {
    guard let parameter = parameters.pathPolicy else { return nil }
    return try read(parameter) { (text) throws(SyntaxError) in
      if text.isEqual(to: "round-robin") { return .roundRobin }
      if text.isEqual(to: "min-inflight") { return .minInFlight }
      guard text.isEqual(to: "min-latency") else {
        throw SyntaxError(at: text, expected: .pathPolicy)
      }
      return .minLatency
    }
  }

  private func driver() throws(PlanError) -> DeviceName.Driver {
    guard let parameter = parameters.driver else { return .nbd }
    return try read(parameter) { (text) throws(SyntaxError) in
      if text.isEqual(to: "nbd") { return .nbd }
      guard text.isEqual(to: "ublk") else { throw SyntaxError(at: text, expected: .driver) }
      return .ublk
    }
  }

  private func furtherPaths(
    _ words: [KernelParameter], port: UInt16
  ) throws(PlanError) -> [TargetPath] {
    var paths: [TargetPath] = []
    for word in words {
      let found = try read(word) { (text) throws(SyntaxError) in
        guard paths.count < PathGrammar.pathCountMaximum else {
          throw SyntaxError(at: text, expected: .atMostPaths(PathGrammar.pathCountMaximum))
        }
        return try PathGrammar.path(text)
      }
      paths.append(
        TargetPath(source: found.source, server: found.server, port: found.port ?? port))
    }
    return paths
  }

  private func addTimes(to target: inout AttachmentTarget) throws(PlanError) {
    func seconds(
      _ parameter: KernelParameter?, _ minimum: UInt64, _ maximum: UInt64
    ) throws(PlanError) -> UInt32? {
      guard let parameter else { return nil }
      return try read(parameter) { (text) throws(SyntaxError) in
        try ServerGrammar.number(text, minimum: minimum, maximum: maximum)
      }
    }
    target.deadTimeSeconds = try seconds(parameters.deadTime, 0, Planner.timeMaximumSeconds)
    target.shutdownTimeSeconds = try seconds(
      parameters.shutdownTime, 0, Planner.timeMaximumSeconds)
    target.silenceSeconds = try seconds(parameters.silence, 1, Planner.detectionMaximumSeconds)
    target.answerSeconds = try seconds(parameters.answer, 1, Planner.detectionMaximumSeconds)
  }
}

// SPDX-License-Identifier: Apache-2.0
// What to attach and what to mount. The first of these that is there decides:
//
//   1 root= with a server      2 netroot= with a server (all of them)
//   3 ibnbd-root= (all of them; nbdroot= if they fail)      4 nbdroot=
//   5 the aliases of other boot scripts      6 a lease's root-path, if something asks for it
//
// `nbd0=` to `nbd7=` come on top. Nothing of this: the plan is empty, which is no error.

import WireFormat

/// What the command line and the leases in `input` ask for. Reads no file, socket or clock.
public func plan(for input: PlanningInput) throws(PlanError) -> AttachmentPlan {
  var planner = try Planner(input)
  return try planner.plan()
}

struct Planner {
  static let targetCountMaximum = 32
  static let timeMaximumSeconds: UInt64 = 604_800  // A week.
  static let detectionMaximumSeconds: UInt64 = 3600

  private let parameters: BootParameters
  private let network: NetworkParameters
  private let selection: LeaseSelection
  private let allowsMissingLease: Bool
  private let root: RootParameter
  /// `root=` with a server in front of a `root=` that names the device to mount.
  private let earlierServer: KernelParameter?
  private var builder: TargetBuilder

  init(_ input: PlanningInput) throws(PlanError) {
    var byteCount = 0
    for text in input.commandLines { byteCount += text.count }
    guard byteCount <= PlanningInput.commandLineByteCountMaximum else {
      throw .commandLineTooLong(
        byteCount: byteCount, maximum: PlanningInput.commandLineByteCountMaximum)
    }
    var words: [KernelParameter] = []
    for text in input.commandLines { words += KernelParameter.split(text) }
    parameters = BootParameters(words)
    network = NetworkParameters(parameters, in: input)
    selection = LeaseSelection(from: input, network: network)
    allowsMissingLease = input.allowsMissingLease
    root = RootParameter(parameters.roots.last)
    earlierServer = Self.earlierServer(in: parameters.roots, root: root)
    builder = TargetBuilder(
      input: input, parameters: parameters, network: network, lease: selection.lease,
      leasePaths: selection.paths)
  }

  private static func earlierServer(
    in roots: [KernelParameter], root: RootParameter
  ) -> KernelParameter? {
    guard case .device = root else { return nil }
    var server: KernelParameter?
    for parameter in roots {
      if case .server = RootParameter(parameter) { server = parameter }
    }
    return server
  }

  mutating func plan() throws(PlanError) -> AttachmentPlan {
    var fallback: [Wish] = []
    var wishes = try deciding(fallback: &fallback)
    for (number, parameter) in parameters.numbered {
      wishes.append(try numbered(number, parameter))
    }
    if wishes.isEmpty { wishes = try fromLease() }
    guard wishes.count <= Self.targetCountMaximum else {
      throw .tooManyTargets(maximum: Self.targetCountMaximum)
    }

    var plan = AttachmentPlan()
    plan.warnings = selection.warnings + builder.warnings
    if !wishes.isEmpty {
      let assignment = try deviceAssignment()
      plan.warnings += assignment.assign(to: &wishes)
      plan.warnings += assignment.assign(to: &fallback)
      if let parameter = parameters.softRDMA {
        plan.softRDMA = try builder.read(parameter, with: SoftRDMADevice.device)
      }
      plan.attachTimeoutSeconds = try attachTimeoutSeconds()
    }
    for wish in wishes { plan.targets.append(wish.target) }
    Self.nameSessionsApart(&plan.targets)
    for wish in fallback { plan.fallbackTargets.append(wish.target) }
    plan.root = plannedRoot(on: wishes.first)
    if let first = fallback.first { plan.fallbackRoot = plannedRoot(on: first) }
    plan.deviceWait = deviceWait
    plan.lease = selection.lease
    plan.interface = network.bootInterface
    if plan.interface == nil, let name = selection.lease?.interface, !name.isEmpty {
      plan.interface = name
    }
    plan.resolver = resolver
    plan.initProgram = parameters.initProgram
    return plan
  }

  // MARK: What to attach

  private mutating func deciding(fallback: inout [Wish]) throws(PlanError) -> [Wish] {
    let netroots = parameters.netroots.filter { RootParameter.namesServer($0.valueText) }
    if let wish = try rootServer() {
      for netroot in netroots {
        builder.warnings.append(.netrootIgnored(ByteString(netroot.valueText)))
      }
      return [wish]
    }
    if !netroots.isEmpty {
      var wishes: [Wish] = []
      for (index, netroot) in netroots.enumerated() {
        // dracut joins several files: the same word may well come twice.
        if netroots[..<index].contains(where: { $0.value == netroot.value }) { continue }
        wishes.append(try server(netroot))
      }
      return wishes
    }
    if !parameters.rnbdRoots.isEmpty {
      var wishes: [Wish] = []
      for parameter in parameters.rnbdRoots {
        let request = try builder.read(parameter, with: RNBDGrammar.request)
        wishes.append(try builder.rnbd(request, parameter: parameter.name))
      }
      if let parameter = parameters.nbdRoot { fallback = [try nbdRoot(parameter)] }
      return wishes
    }
    if let parameter = parameters.nbdRoot { return [try nbdRoot(parameter)] }
    return try aliases()
  }

  /// `root=` with a server.
  private mutating func rootServer() throws(PlanError) -> Wish? {
    if let earlierServer { return try server(earlierServer) }
    switch root {
    case .server(let parameter):
      return try server(parameter)
    case .overlay(let parameter):
      var wish = try server(
        parameter, droppingFirst: RootParameter.overlayPrefix.utf8.count)
      wish.isOverlay = true
      wish.target.accessMode = .readOnly
      return wish
    default:
      return nil
    }
  }

  private mutating func server(
    _ parameter: KernelParameter, droppingFirst prefixByteCount: Int = 0
  ) throws(PlanError) -> Wish {
    let request = try builder.read(parameter, droppingFirst: prefixByteCount) {
      (text) throws(SyntaxError) in
      try NBDRootGrammar.request(from: text, in: .parameter)
    }
    return try builder.nbd(request, parameter: parameter.name, origin: parameter.name + "=")
  }

  private mutating func nbdRoot(_ parameter: KernelParameter) throws(PlanError) -> Wish {
    let value = parameter.valueText
    if value.isEmpty || value.isEqual(to: "dhcp") {
      if let lease = selection.lease, let path = lease.rootPath {
        return try builder.rootPath(path, of: lease, parameter: parameter.name)
      }
      if selection.lease == nil, allowsMissingLease, parameters.nbdServer == nil {
        return try builder.pendingNBD(parameter: parameter.name)
      }
    }
    let request = try builder.read(parameter) { (text) throws(SyntaxError) in
      try NBDRootGrammar.request(from: text, in: .parameter)
    }
    return try builder.nbd(
      request, parameter: parameter.name, origin: parameter.name + "=",
      usesCompanions: value.schemeEnd == nil)
  }

  private mutating func aliases() throws(PlanError) -> [Wish] {
    if parameters.aliasHost != nil || parameters.aliasName != nil {
      guard let host = parameters.aliasHost else {
        throw .incomplete(parameter: "nbd_name", missing: "nbd_host")
      }
      guard let name = parameters.aliasName else {
        throw .incomplete(parameter: "nbd_host", missing: "nbd_name")
      }
      var request = NBDRequest()
      request.server = try builder.read(host, with: AliasGrammar.server)
      request.exports = [try builder.read(name, with: NBDRequest.checkedExport)]
      if let port = parameters.aliasPort {
        request.port = try builder.read(port, with: ServerGrammar.port)
      }
      return [try builder.nbd(request, parameter: host.name, origin: host.name + "=")]
    }
    if let parameter = parameters.archisoServer {
      var request = NBDRequest()
      request.server = try builder.read(parameter, with: AliasGrammar.server)
      if let name = parameters.archisoName {
        request.exports = [try builder.read(name, with: NBDRequest.checkedExport)]
      }
      return [try builder.nbd(request, parameter: parameter.name, origin: parameter.name + "=")]
    }
    if let parameter = parameters.nbdServer {
      let request = NBDRequest()
      return [
        try builder.nbd(
          request, parameter: parameter.name, origin: parameter.name + "=", usesCompanions: true)
      ]
    }
    var wishes: [Wish] = []
    for parameter in parameters.libreelec {
      let request = try builder.read(parameter, droppingFirst: 4, with: AliasGrammar.triple)
      wishes.append(
        try builder.nbd(request, parameter: parameter.name, origin: parameter.name + "="))
    }
    return wishes
  }

  /// Devices of one name that do not share a session have two of one name, and a server takes a name
  /// once.
  private static func nameSessionsApart(_ targets: inout [AttachmentTarget]) {
    for index in targets.indices {
      guard let session = targets[index].session else { continue }
      for earlier in targets[..<index]
      where earlier.session == session && !earlier.sharesSession(with: targets[index]) {
        targets[index].session = session + ByteString("_\(index)")
      }
    }
  }

  private mutating func numbered(
    _ number: UInt32, _ parameter: KernelParameter
  ) throws(PlanError) -> Wish {
    let request = try builder.read(parameter, with: AliasGrammar.triple)
    var wish = try builder.nbd(request, parameter: parameter.name, origin: parameter.name + "=")
    wish.device = DeviceName(.nbd, number)
    wish.isDeviceFixed = true
    return wish
  }

  /// Only a lease can say what `root=dhcp` and `root=/dev/nbd0` alone mean. A root-path without a
  /// scheme is NFS to dracut, so it counts only where a device of ours was asked for.
  private mutating func fromLease() throws(PlanError) -> [Wish] {
    var asksForDevice = false
    if case .device = root { asksForDevice = true }
    var asksForLease = root == .lease
    for netroot in parameters.netroots where RootParameter.meansLease(netroot.valueText) {
      asksForLease = true
    }
    guard asksForDevice || asksForLease else { return [] }
    guard let lease = selection.lease else {
      return allowsMissingLease ? [try builder.pendingNBD(parameter: "root")] : []
    }
    guard let path = lease.rootPath, !path.value.isEmpty else { return [] }
    let rootPath = RootPath(path.value)
    if rootPath.isExplicit {
      return [try builder.rootPath(path, of: lease, parameter: "root")]
    }
    guard asksForDevice else { return [] }
    guard rootPath.request != nil else {
      builder.warnings.append(.rootPathUnusable(path.value))
      return []
    }
    return [try builder.rootPath(path, of: lease, parameter: "root")]
  }

  private func deviceAssignment() throws(PlanError) -> DeviceAssignment {
    var assignment = DeviceAssignment()
    switch root {
    case .device(let device): assignment.rootDevice = device.wholeDevice
    case .foreign(let device): assignment.rootDevice = device?.wholeDevice
    case .anyDevice: assignment.anyDeviceWillDo = true
    default: break
    }
    if let parameter = parameters.nbdDevice {
      assignment.nbdDevice = try builder.read(parameter) { (text) throws(SyntaxError) in
        guard let device = DeviceName(text) else { throw SyntaxError(at: text, expected: .device) }
        return device.wholeDevice
      }
    }
    return assignment
  }

  // MARK: What to mount

  private func plannedRoot(on wish: Wish?) -> PlannedRoot {
    var planned = PlannedRoot()
    var takesFields = true
    switch root {
    case .device(let device): planned.device = ByteString(device.path)
    case .anyDevice:
      planned.device = "/dev/root"
      planned.needsRootLink = true
    case .other(let text):
      planned.device = text
      takesFields = false
    case .foreign: takesFields = false
    case .absent, .lease, .server, .overlay:
      if let device = wish?.device { planned.device = ByteString(device.path) }
    }
    planned.fileSystem = parameters.rootFileSystem
    planned.flags = parameters.rootFlags
    planned.isReadOnly = parameters.isReadOnly
    guard let wish, takesFields else { return planned }
    if let fileSystem = wish.fileSystem { planned.fileSystem = fileSystem }
    if !wish.mountOptions.flags.isEmpty { planned.flags = wish.mountOptions.flags }
    planned.isReadOnly = parameters.isReadOnly ?? wish.mountOptions.isReadOnly
    if wish.isOverlay {
      planned.isOverlay = true
      planned.isReadOnly = true
    }
    return planned
  }

  private var deviceWait: DeviceWait {
    if parameters.rootWait != .usual { return parameters.rootWait }
    // initramfs-tools waits 30 s at least, whatever rootdelay= says.
    return parameters.rootDelaySeconds.map { .seconds(max(30, $0)) } ?? .usual
  }

  private func attachTimeoutSeconds() throws(PlanError) -> UInt32 {
    guard let parameter = parameters.timeout else {
      return AttachmentPlan().attachTimeoutSeconds
    }
    return try builder.read(parameter) { (text) throws(SyntaxError) in
      try ServerGrammar.number(text, maximum: Self.timeMaximumSeconds)
    }
  }

  private var resolver: ResolverConfiguration {
    var resolver = ResolverConfiguration()
    for server in network.nameServers + (selection.lease?.nameServers ?? []) {
      if resolver.nameServers.count < Lease.nameServerCountMaximum,
        !resolver.nameServers.contains(server)
      {
        resolver.nameServers.append(server)
      }
    }
    resolver.searchDomains = selection.lease?.searchDomains ?? []
    return resolver
  }
}

extension KernelParameter {
  var valueText: Text { value?.bytes[...] ?? [] }
}

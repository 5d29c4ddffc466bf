// SPDX-License-Identifier: Apache-2.0
// Brings up the network of a machine that has none: every interface that may be meant at once, the
// first that gets an address is taken.
//
//   links ─► candidates ─carrier─► asking (DHCP, routers) ─► checking (IPv6) ─► done ─► leases in /run
//     ▲                                 │
//     └──────── changes, datagrams, time ┘
//
// One loop, one thread; the protocols are machines that touch nothing.

public import BootPlanning
import CLinux
public import DHCPProtocol
public import LinuxSystem
import NetlinkProtocol
import WireFormat

/// All interfaces that are brought up together, until `run` comes back.
public struct NetworkBringUp: ~Copyable {
  /// Once one interface is there others are not waited for longer than this.
  static let patienceMilliseconds: UInt64 = 10_000
  /// A switch port or a server may not listen yet when the first question leaves.
  static let firstWaitMilliseconds: UInt32 = 1000
  /// A server without a root path may be the one of the building, and another one ours.
  static let rootPathPatienceMilliseconds: UInt32 = 1500
  /// When it is said what is waited for, in milliseconds from the beginning; then again and again.
  static let complaintMilliseconds: [UInt64] = [5_000, 20_000, 60_000]

  let parameters: StartParameters
  let wantsRootPath: Bool
  let log: Log
  var routes: RouteSocket
  var links: [LinkDescription] = []
  var wishes: [NetworkWish] = []
  var candidates: [Candidate] = []
  /// In the order in which they were ready; some of them also when `run` throws.
  public internal(set) var configured: [InterfaceConfiguration] = []
  private let begin = MonotonicTime.now
  private var firstDone: MonotonicTime?
  private var complaintCount = 0
  private var madeVLANs: [ByteString] = []

  /// `prefersIPv6`: all that is to be reached has an address of IPv6, so without `ip=` routers are
  /// asked instead of DHCP. `wantsRootPath`: only a lease can say what to attach.
  public init(
    _ parameters: StartParameters, prefersIPv6: Bool, wantsRootPath: Bool, log: Log
  ) throws(NetworkError) {
    self.parameters = parameters
    self.wantsRootPath = wantsRootPath
    self.log = log
    do { routes = try RouteSocket() } catch { throw .system(step: "netlink", error) }
    var requests = parameters.interfaces
    if requests.isEmpty { requests = [InterfaceRequest(prefersIPv6 ? .either6 : .dhcp)] }
    for request in requests where request.method != .none {
      var wish = NetworkWish(request: request)
      if let name = request.interface ?? parameters.bootDevice {
        wish.interface = name
      } else if let vlan = parameters.vlans.first {
        wish.interface = vlan.name
      } else {
        wish.hardwareAddress = parameters.bootHardwareAddress
      }
      wishes.append(wish)
    }
  }

  deinit {
    for candidate in candidates {
      for number in candidate.descriptors { _ = clinux_close(number) }
    }
  }

  var now: UInt64 { MonotonicTime.now.nanoseconds / 1_000_000 }

  /// Comes back when every wish is fulfilled, or one is and the others take too long.
  public mutating func run(until deadline: Deadline) throws(NetworkError) {
    try setLoopbackUp()
    while true {
      routes.drainChanges()
      do { links = try routes.links() } catch { throw .netlink(step: "interfaces", error) }
      try makeVLANs()
      try addCandidates()
      try startCandidates()
      var next = try act(at: now)
      try check()
      if isComplete { return finish() }
      complain()
      if deadline.hasPassed {
        throw .gaveUp(seconds: MonotonicTime.now.milliseconds(since: begin) / 1000, waiting)
      }
      // Now and then all is looked at anew, should an event have been lost.
      next = min(next, now + 500)
      waitForSomething(until: next, deadline)
      receive()
    }
  }

  private mutating func setLoopbackUp() throws(NetworkError) {
    do {
      for link in try routes.links() where link.isLoopback && !link.isUp {
        try routes.make(
          .change(index: link.index, isUp: true, mtuByteCount: nil, hardwareAddress: nil))
      }
    } catch { throw .netlink(step: "loopback", error) }
  }

  // MARK: Interfaces

  private mutating func makeVLANs() throws(NetworkError) {
    for vlan in parameters.vlans where !madeVLANs.contains(vlan.name) {
      guard let parent = link(named: vlan.parent) else { continue }
      madeVLANs.append(vlan.name)
      do {
        try routes.make(
          .change(index: parent.index, isUp: true, mtuByteCount: nil, hardwareAddress: nil))
        if link(named: vlan.name) == nil {
          try routes.make(
            .makeVLAN(
              name: vlan.name, parentIndex: parent.index, identifier: vlan.identifier))
        }
        links = try routes.links()
      } catch { throw .netlink(step: "vlan=", error) }
    }
  }

  private func link(named name: ByteString) -> LinkDescription? {
    for link in links where link.name == name { return link }
    return nil
  }

  private func mayServe(_ link: LinkDescription, _ wish: NetworkWish) -> Bool {
    if let name = wish.interface { return link.name == name }
    guard link.isEthernet, link.kind.isEmpty else { return false }
    if let address = wish.hardwareAddress { return link.hardwareAddress == address }
    for vlan in parameters.vlans where vlan.parent == link.name { return false }
    // What another `ip=` is about, were it only to leave it alone.
    for request in parameters.interfaces where request.interface == link.name { return false }
    return true
  }

  private mutating func addCandidates() throws(NetworkError) {
    for (number, wish) in wishes.enumerated() where !wish.isFulfilled {
      for link in links where mayServe(link, wish) {
        var isKnown = false
        for one in candidates where one.link.index == link.index && one.wish == number {
          isKnown = true
        }
        if isKnown { continue }
        let candidate = Candidate(wish: number, link: link)
        if wish.request.method.hearsRouters {
          // Before the link is up, for the kernel asks routers at once.
          candidate.routers = try? RouterSocket(interface: link.index)
        }
        do {
          if let address = wish.request.hardwareAddress, address != link.hardwareAddress {
            try routes.make(
              .change(index: link.index, isUp: false, mtuByteCount: nil, hardwareAddress: address))
          }
          try routes.make(
            .change(index: link.index, isUp: true, mtuByteCount: nil, hardwareAddress: nil))
          candidates.append(candidate)
          links = try routes.links()
        } catch {
          log.write(.warning, "\(link.name.printable) cannot be set up: \(error.reason)")
          candidate.close()
          candidate.stage = .abandoned
          candidates.append(candidate)
        }
      }
    }
  }

  private mutating func startCandidates() throws(NetworkError) {
    for index in candidates.indices where candidates[index].stage == .waitingForCarrier {
      let link = candidates[index].link
      guard links.contains(where: { $0.index == link.index && $0.hasCarrier }) else { continue }
      let wish = wishes[candidates[index].wish]
      guard !wish.isFulfilled else { continue }
      candidates[index].stage = .asking
      switch wish.request.method {
      case .none: candidates[index].stage = .abandoned
      case .fixed:
        let configuration = InterfaceConfiguration(link.name, fixed: wish.request)
        try apply(configuration, to: index)
      case .dhcp: startDHCP(index)
      case .dhcp6: startDHCPv6(index)
      case .routerAdvertisement, .either6: break
      case .linkLocal6:
        candidates[index].configuration = InterfaceConfiguration(link.name, isLeased: false)
        candidates[index].stage = .checking
      }
    }
  }

  private mutating func startDHCP(_ index: Int) {
    // The address may be one that was set, so it is looked up anew.
    let link = link(named: candidates[index].link.name) ?? candidates[index].link
    guard link.hardwareAddress.count == 6 else {
      log.write(
        .warning, "\(link.name.printable) is no Ethernet: DHCP is not asked there",
        next: "give it an address with ip=")
      candidates[index].stage = .abandoned
      return
    }
    var identity = DHCPIdentity(ethernetAddress: link.hardwareAddress)
    identity.hostName = parameters.hostName
    do {
      candidates[index].packets = try PacketSocket(interface: link.index)
    } catch {
      log.write(.warning, "\(link.name.printable): no packet socket: \(error.text)")
      candidates[index].stage = .abandoned
      return
    }
    candidates[index].client = DHCPClient(
      identity,
      rule: wantsRootPath
        ? .rootPathPreferred(patienceMilliseconds: Self.rootPathPatienceMilliseconds) : .first,
      firstWaitMilliseconds: Self.firstWaitMilliseconds, seed: randomValue(below: .max), at: now)
  }

  private mutating func startDHCPv6(_ index: Int) {
    let link = candidates[index].link
    guard candidates[index].client6 == nil, link.hardwareAddress.count == 6 else { return }
    do {
      candidates[index].messages6 = try DHCPv6Socket(interface: link.index, name: link.name)
    } catch {
      log.write(.warning, "\(link.name.printable): no socket for DHCPv6: \(error.text)")
      return
    }
    candidates[index].client6 = DHCPv6Client(
      identifier: DHCPv6Client.identifier(ethernetAddress: link.hardwareAddress),
      association: link.index, seed: randomValue(below: .max), at: now)
  }

  // MARK: Time and datagrams

  /// Does what is due; when the next thing is.
  private mutating func act(at now: UInt64) throws(NetworkError) -> UInt64 {
    var next = UInt64.max
    for index in candidates.indices {
      next = min(next, try actDHCP(index, at: now))
      next = min(next, try actDHCPv6(index, at: now))
      guard candidates[index].stage == .asking, candidates[index].routers != nil else { continue }
      if candidates[index].advertisement == nil {
        if now >= candidates[index].nextSolicitation {
          candidates[index].routers?.solicit()
          candidates[index].solicitationCount += 1
          candidates[index].nextSolicitation =
            now + (candidates[index].solicitationCount < 4 ? 500 : 4000)
        }
        next = min(next, candidates[index].nextSolicitation)
      }
    }
    return next
  }

  private mutating func actDHCP(_ index: Int, at now: UInt64) throws(NetworkError) -> UInt64 {
    while candidates[index].isWorking, candidates[index].client != nil {
      guard let action = candidates[index].client?.nextAction(at: now) else { break }
      switch action {
      case .send(let transmission): candidates[index].packets?.send(transmission)
      case .configure(let lease):
        complain(of: lease.unusable, candidates[index].link.name)
        var configuration = InterfaceConfiguration(
          candidates[index].link.name, lease,
          clientIdentifier: [1] + candidates[index].link.hardwareAddress)
        configuration.override(with: wishes[candidates[index].wish].request)
        try apply(configuration, to: index)
        return .max
      case .refused(let server, let message):
        log.write(
          .warning,
          "\(candidates[index].link.name.printable): the DHCP server \(server.text) took its "
            + "offer back" + (message.isEmpty ? "" : ": \(message.printable)"))
      case .wait(let until): return until ?? .max
      }
    }
    return .max
  }

  private func complain(of options: [UInt8], _ interface: ByteString) {
    guard !options.isEmpty else { return }
    var text = ""
    for option in options { text += (text.isEmpty ? "" : ", ") + "\(option)" }
    log.write(
      .warning, "\(interface.printable): malformed in the lease and left out: option \(text)",
      next: "correct it in the DHCP server")
  }

  private mutating func actDHCPv6(_ index: Int, at now: UInt64) throws(NetworkError) -> UInt64 {
    while candidates[index].stage == .asking, candidates[index].client6 != nil {
      guard let action = candidates[index].client6?.nextAction(at: now) else { break }
      switch action {
      case .send(let message): candidates[index].messages6?.send(message)
      case .configure(let lease):
        var configuration = InterfaceConfiguration(candidates[index].link.name, lease)
        configuration.take(candidates[index].advertisement)
        configuration.override(with: wishes[candidates[index].wish].request)
        try apply(configuration, to: index)
        return .max
      case .wait(let until): return until ?? .max
      }
    }
    return .max
  }

  private func waitForSomething(until next: UInt64, _ deadline: Deadline) {
    var set = [pollfd(fd: routes.changes.rawValue, events: CShort(clinux_POLLIN), revents: 0)]
    for candidate in candidates {
      for number in candidate.descriptors {
        set.append(pollfd(fd: number, events: CShort(clinux_POLLIN), revents: 0))
      }
    }
    let now = now
    let milliseconds = next > now ? CInt(truncatingIfNeeded: min(next - now, 1000)) : 0
    let limit = deadline.pollMilliseconds
    _ = unsafe set.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: as many structures as the count says.
      unsafe clinux_poll_all(
        buffer.baseAddress!, UInt(buffer.count), limit < 0 ? milliseconds : min(milliseconds, limit)
      )
    }
  }

  private mutating func receive() {
    let now = now
    for index in candidates.indices {
      if let packets = candidates[index].packets, var client = candidates[index].client {
        // A flood on the link must not keep the others from being heard.
        for _ in 0..<64 where packets.receive(into: &client, at: now) {}
        candidates[index].client = client
      }
      if let messages6 = candidates[index].messages6, var client6 = candidates[index].client6 {
        for _ in 0..<64 where messages6.receive(into: &client6, at: now) {}
        candidates[index].client6 = client6
      }
      if let advertisement = candidates[index].routers?.receive() {
        candidates[index].advertisement = advertisement
        let method = wishes[candidates[index].wish].request.method
        if method == .either6, advertisement.hasManagedAddresses { startDHCPv6(index) }
      }
    }
  }

  // MARK: The end

  private var isComplete: Bool {
    var doneCount = 0
    for wish in wishes where wish.isFulfilled { doneCount += 1 }
    if doneCount == wishes.count { return true }
    guard doneCount > 0, let firstDone else { return false }
    return MonotonicTime.now.milliseconds(since: firstDone) > Self.patienceMilliseconds
  }

  /// The candidate has its address: says so, leaves its lease, lets the others of its wish go.
  mutating func settle(_ index: Int, _ configuration: InterfaceConfiguration) {
    candidates[index].stage = .done
    candidates[index].close()
    let link = candidates[index].link
    var text = "\(link.name.printable): \(configuration.addressText)"
    if let server = configuration.serverIdentifier { text += " from \(server.text)" }
    if let seconds = configuration.leaseSeconds, seconds != .max { text += " for \(seconds) s" }
    if let gateway = configuration.gateway { text += ", gateway \(gateway.text)" }
    text += "; network \(MonotonicTime.now.milliseconds(since: begin)) ms"
    log.write(.notice, text)
    configured.append(configuration)
    if firstDone == nil { firstDone = .now }
    let number = candidates[index].wish
    wishes[number].isFulfilled = true
    leaveLease(configuration, link)
    for other in candidates.indices
    where candidates[other].wish == number && candidates[other].isWorking {
      candidates[other].stage = .abandoned
      candidates[other].close()
      guard candidates[other].wasDown else { continue }
      try? routes.make(
        .change(
          index: candidates[other].link.index, isUp: false, mtuByteCount: nil,
          hardwareAddress: nil))
    }
  }

  private mutating func finish() {
    for wish in wishes where !wish.isFulfilled {
      log.write(
        .warning,
        "\(wish.interface?.printable ?? "an interface") of ip= is not configured",
        next: "going on without it: \(waiting.report.reason)")
    }
  }

  private mutating func complain() {
    let passed = MonotonicTime.now.milliseconds(since: begin)
    let last = Self.complaintMilliseconds.count - 1
    let due =
      complaintCount <= last
      ? Self.complaintMilliseconds[complaintCount]
      : Self.complaintMilliseconds[last] * UInt64(complaintCount - last + 1)
    guard passed >= due else { return }
    complaintCount += 1
    let report = waiting.report
    log.write(.warning, report.reason, next: report.advice + ", waiting")
  }

  /// What keeps the network from being there: the furthest that a candidate has come.
  var waiting: NetworkWait {
    var working: [Candidate] = []
    for candidate in candidates where candidate.isWorking { working.append(candidate) }
    func names(_ stage: Candidate.Stage, _ condition: (Candidate) -> Bool) -> [ByteString] {
      var names: [ByteString] = []
      for one in working where one.stage == stage && condition(one) { names.append(one.link.name) }
      return names
    }
    let checking = names(.checking) { _ in true }
    if !checking.isEmpty { return .duplicateCheck(checking) }
    let version6 = names(.asking) { $0.client6 != nil }
    if !version6.isEmpty { return .dhcpv6Server(version6) }
    let version4 = names(.asking) { $0.client != nil }
    if !version4.isEmpty { return .dhcpServer(version4) }
    let routers = names(.asking) { $0.routers != nil }
    if !routers.isEmpty { return .router(routers) }
    let dark = names(.waitingForCarrier) { _ in true }
    if !dark.isEmpty { return .carrier(dark) }
    var wanted: ByteString?
    for wish in wishes where !wish.isFulfilled { wanted = wanted ?? wish.interface }
    var present: [ByteString] = []
    for link in links where !link.isLoopback { present.append(link.name) }
    return .interface(wanted: wanted, present: present)
  }
}

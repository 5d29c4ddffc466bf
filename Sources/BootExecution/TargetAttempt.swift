// SPDX-License-Identifier: Apache-2.0
// One attempt at one target: every path and every address of it in turn, until one gives an
// export that the kernel takes.

import BootPlanning
import CLinux
import LinuxSystem
import NBDClient
import NBDDriver
import NBDProtocol
import UblkDriver
import WireFormat

/// A target that is attached, and what it took.
struct AttachedTarget {
  var device: AttachedDevice
  var export: NegotiatedExport
  var server: SocketAddress
  /// Nil over a Unix socket.
  var local: SocketAddress?
  var connectionCount: Int
  var connectMilliseconds: UInt64
  var negotiateMilliseconds: UInt64
  var attachMilliseconds: UInt64
  var firstReadMilliseconds: UInt64
  var partitions: [ByteString]
  /// Why nobody will reconnect; nil when somebody does, or was not asked to.
  var keeperError: KeeperError?
}

/// Source: `connections` of nbd-client(8) has no limit, nbd.c has 256; a disk gains nothing from
/// more than a few, and the server pays for each.
let connectionCountMaximum: UInt32 = 16

struct TargetAttempt {
  /// What the connections of one attachment say alike.
  private struct Session {
    var token: SessionToken
    var flags: SessionFlags
  }

  let target: AttachmentTarget
  /// All that are to be attached over one session, `target` first.
  let together: [AttachmentTarget]
  let interface: InterfaceChoice
  /// Whether a process is to stay and reconnect.
  let isKept: Bool
  /// When the whole of it must be over.
  let deadline: Deadline

  /// How long a further path may keep the machine waiting that has one already.
  static let furtherPathMilliseconds: UInt64 = 2000

  private var detection: Detection {
    Detection(
      silenceSeconds: target.silenceSeconds.map { UInt64($0) },
      answerSeconds: target.answerSeconds.map { UInt64($0) })
  }

  /// The error is that of the last address; those before it are handed to `note`.
  func run(
    _ book: inout AddressBook, note: (AttemptError) -> Void
  ) throws(AttemptError) -> [AttachedTarget] {
    guard target.blockProtocol == .nbd else {
      #if ROOTLINK_RDMA
        return try attachRNBD(&book)
      #else
        throw .protocolMissing
      #endif
    }
    if target.tls?.isRequired == true {
      let server = target.paths.first?.server.text
      throw .tlsMissing(server: server ?? "the server of the lease")
    }
    var last: AttemptError?
    var paths: [KeeperPath] = []
    for (number, path) in (target.paths + target.replicas).enumerated() {
      do throws(AttemptError) {
        try add(path, number, to: &paths, &book)
      } catch {
        if !error.mayPass { throw error }
        if let earlier = last, earlier != error { note(earlier) }
        last = error
      }
    }
    for index in paths.indices {
      do throws(AttemptError) {
        do throws(AttemptError) {
          return [try attach(paths, first: index, driver: target.driver)]
        } catch .driver(.driverMissing) where UblkControl.isAvailable {
          // Anew: the server is to know how the requests are numbered.
          return [try attach(paths, first: index, driver: .ublk)]
        }
      } catch {
        if let earlier = last { note(earlier) }
        last = error
        if !error.mayPass { throw error }
      }
    }
    throw last ?? .protocolMissing
  }

  /// Every address of a path; those of the replicas are sites of their own.
  private func add(
    _ path: TargetPath, _ number: Int, to paths: inout [KeeperPath], _ book: inout AddressBook
  ) throws(AttemptError) {
    let addresses = try book.addresses(of: path.server, port: path.port, until: deadline)
    var source: SocketAddress?
    if let local = path.source {
      source = try book.addresses(of: local, port: 0, until: deadline).first
    }
    let site = number < target.paths.count ? 0 : number - target.paths.count + 1
    for (index, address) in addresses.enumerated()
    where paths.count < KeeperPlan.pathCountMaximum {
      paths.append(
        KeeperPath(address: address, source: source, site: UInt32(site), isMain: index == 0))
    }
  }

  private func attach(
    _ paths: [KeeperPath], first index: Int, driver: DeviceName.Driver
  ) throws(AttemptError) -> AttachedTarget {
    let session = Session(
      token: SessionToken(high: clinux_random(), low: clinux_random()),
      flags: driver == .ublk ? .countedCookies : [])
    let first = try connect(paths[index], names: target.exports, session, slot: 0, until: deadline)
    let identity: ContentIdentity
    let address = first.address.text
    do {
      identity = try readIdentity(of: first, until: deadline.earlier(of: .milliseconds(10_000)))
    } catch { throw .unreadable(address: address, error) }
    var plan = KeeperPlan(
      deviceIndex: 0, backendIdentifier: "", export: first.export.name, paths: paths,
      connectionCount: 1, byteCount: first.export.byteCount, flags: first.export.flags,
      blockByteCount: 512, payloadByteCount: 0, token: session.token, identity: identity,
      requestTimeoutSeconds: UInt64(target.requestTimeoutSeconds ?? 0),
      deadTimeSeconds: UInt64(target.deadTimeSeconds ?? 0),
      shutdownTimeSeconds: target.shutdownTimeSeconds.map { UInt64($0) }
        ?? ShutdownPatience.absenceSecondsDefault, detection: detection)
    if first.export.flags.contains(.canMultiConn) {
      var mains: UInt32 = 0
      for path in paths where path.site == paths[index].site && path.isMain { mains += 1 }
      plan.connectionCount = min(max(target.connectionCount, mains), connectionCountMaximum)
    }
    var connections = [
      LiveConnection(descriptor: first.socket.descriptor.rawValue, path: index)
    ]
    var others: [CInt] = []
    defer { for number in others { _ = FileDescriptor(owning: number) } }
    while connections.count < Int(plan.connectionCount) {
      let next = try connectFurther(plan, session, connections.count, from: index)
      guard next.export == first.export else { throw .connectionsDiffer(address: address) }
      others.append(next.descriptor)
      connections.append(LiveConnection(descriptor: next.descriptor, path: next.path))
    }
    return driver == .ublk
      ? try carry(connections, of: first, plan) : try hand(connections, of: first, plan)
  }

  /// One more connection, on its own path or, when that does not work, on that of the first.
  private func connectFurther(
    _ plan: KeeperPlan, _ session: Session, _ number: Int, from first: Int
  ) throws(AttemptError) -> (export: NegotiatedExport, descriptor: CInt, path: Int) {
    let home = plan.homePath(ofConnection: number, site: plan.paths[first].site)
    if home != first {
      let soon = deadline.earlier(of: .milliseconds(Self.furtherPathMilliseconds))
      if let next = try? connect(
        plan.paths[home], names: [plan.export], session, slot: UInt16(number), until: soon)
      {
        let export = next.export
        return (export, next.releaseSocket(), home)
      }
    }
    let next = try connect(
      plan.paths[first], names: [plan.export], session, slot: UInt16(number), until: deadline)
    let export = next.export
    return (export, next.releaseSocket(), first)
  }

  private func connect(
    _ path: KeeperPath, names: [ByteString], _ session: Session, slot: UInt16,
    until deadline: Deadline
  ) throws(AttemptError) -> NBDConnection {
    let address = path.address
    let identity = SessionIdentity(
      token: session.token, generation: clinux_boottime_nanoseconds(), slot: slot,
      flags: session.flags)
    let connection: NBDConnection
    do {
      connection = try NBDConnection.open(
        to: address, from: path.source, names: names, identity: identity, until: deadline)
    } catch { throw .connection(error) }
    if !address.isUnix {
      do { try Reconnection.setOptions(connection.socket.descriptor.rawValue, detection) } catch {
        throw .connection(.lost(address: address.text, error))
      }
    }
    return connection
  }

  /// Gives the sockets to the kernel and looks at the device for the first time.
  private func hand(
    _ connections: [LiveConnection], of first: borrowing NBDConnection, _ plan: KeeperPlan
  ) throws(AttemptError) -> AttachedTarget {
    let export = first.export
    var flags = export.flags
    if target.accessMode == .readOnly { flags.insert(.readOnly) }
    let sizes = export.blockSizes
    let server = first.address.text
    var minimum = sizes?.minimum ?? 1
    if let asked = target.blockSize { minimum = max(minimum, asked) }
    var sockets: [CInt] = []
    for connection in connections { sockets.append(connection.descriptor) }
    let request = AttachRequest(
      device: target.device.map { .index($0.number) } ?? .anyFree,
      sockets: sockets,
      geometry: ExportGeometry(
        sizeByteCount: export.byteCount, minimumBlockByteCount: minimum,
        maximumPayloadByteCount: sizes?.maximumPayload ?? BlockSizes.unnegotiatedMaximumPayload),
      transmissionFlags: flags.rawValue,
      timeoutSeconds: isKept
        ? detection.kernelTimeoutSeconds(
          plan.requestTimeoutSeconds, connectionCount: plan.connectionCount)
        : plan.requestTimeoutSeconds,
      deadTimeoutSeconds: isKept ? plan.kernelDeadTimeSeconds : plan.deadTimeSeconds,
      backendIdentifier: backendIdentifier(server: server, export: export.name),
      interface: interface)
    let start = MonotonicTime.now
    let attachment: Attachment
    do { attachment = try NBDDevice.attach(request) } catch { throw .driver(error) }
    let attachMilliseconds = MonotonicTime.now.milliseconds(since: start)
    let device = attachment.device
    var keeperError: KeeperError?
    if isKept {
      var plan = plan
      plan.deviceIndex = device.index
      plan.backendIdentifier = request.backendIdentifier
      plan.flags = flags
      plan.blockByteCount = attachment.geometry.blockByteCount
      plan.payloadByteCount = device.requestByteCountMaximum
      keeperError = keep(plan, connections, attachment.interface)
    }
    let look: FirstLook
    do {
      look = try device.takeFirstLook()
    } catch {
      // The next attempt needs the device; what cannot be read is of no use to anybody.
      try? device.detach(isForced: true)
      throw .firstRead(device: device.node, error)
    }
    let record = AttachmentRecord(
      server: server, export: export.name, attachedSeconds: wallClockSeconds(),
      ownerThread: device.ownerThread ?? 0, backendIdentifier: request.backendIdentifier,
      connectionCount: UInt32(sockets.count))
    try? device.write(record)  // For `rootlink status`; the device works without it.
    return AttachedTarget(
      device: .nbd(device), export: export, server: first.address,
      local: first.address.isUnix ? nil : first.socket.localAddress, connectionCount: sockets.count,
      connectMilliseconds: first.connectMilliseconds,
      negotiateMilliseconds: first.negotiateMilliseconds, attachMilliseconds: attachMilliseconds,
      firstReadMilliseconds: look.readMilliseconds, partitions: look.partitions,
      keeperError: keeperError)
  }

  private func keep(
    _ plan: KeeperPlan, _ connections: [LiveConnection], _ interface: DriverInterface
  ) -> KeeperError? {
    guard interface == .netlink else { return .noNetlink }
    try? plan.write()  // For a keeper that takes over; this one does not need it.
    do throws(KeeperError) {
      try KeeperProcess.start(plan, connections: connections)
      if plan.connectionCount == 1, plan.requestTimeoutSeconds == 0 {
        // Now, never later: Linux 6.12 waits here until no request is in flight. Without it
        // requests are repeated 30 s after a loss.
        try? NBDDevice(index: plan.deviceIndex).setRequestTimer(
          milliseconds: KeeperTimes.requestLookMilliseconds)
      }
      return nil
    } catch {
      // Nobody would end the waiting of requests.
      NBDDevice(index: plan.deviceIndex).setDeadTime(
        seconds: plan.deadTimeSeconds, backendIdentifier: plan.backendIdentifier)
      return error
    }
  }
}

/// Reads what identifies the content, over a connection that nobody else uses yet.
func readIdentity(
  of connection: borrowing NBDConnection, until deadline: Deadline
) throws(SystemError) -> ContentIdentity {
  let minimum = connection.export.blockSizes?.minimum ?? 1
  var reader = IdentityReader(
    exportByteCount: connection.export.byteCount, minimumBlockByteCount: minimum)
  var cookie: UInt64 = 0xffff_ffff  // A tag that is in no order. Source: SessionFlags.
  while let region = reader.region {
    cookie += 1 << 32
    let request = Request(
      flags: [], command: .read, cookie: cookie, offset: region.offset,
      length: UInt32(region.byteCount))
    try connection.socket.send(request.encoded, until: deadline)
    var bytes: [UInt8] = []
    let needed = SimpleReply.byteCount + region.byteCount
    while bytes.count < needed {
      let before = bytes.count
      try connection.socket.receive(into: &bytes, maximum: needed - before, until: deadline)
      guard bytes.count > before else { throw .connectionReset }
      guard bytes.count >= SimpleReply.byteCount else { continue }
      let reply: SimpleReply
      do {
        reply = try SimpleReply(decoding: bytes.span.extracting(first: SimpleReply.byteCount))
      } catch { throw .connectionReset }
      guard reply.cookie == cookie else { throw .connectionReset }
      guard reply.error.rawValue == 0 else { throw .inputOutput }
    }
    reader.examine(bytes.span.extracting(SimpleReply.byteCount..<needed))
  }
  return reader.identity
}

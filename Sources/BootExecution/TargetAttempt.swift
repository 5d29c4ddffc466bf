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
  let target: AttachmentTarget
  let interface: InterfaceChoice
  /// Whether a process is to stay and reconnect.
  let isKept: Bool
  /// When the whole of it must be over.
  let deadline: Deadline

  /// The error is that of the last address; those before it are handed to `note`.
  func run(
    _ book: inout AddressBook, note: (AttemptError) -> Void
  ) throws(AttemptError) -> AttachedTarget {
    guard target.blockProtocol == .nbd else { throw .protocolMissing }
    var last: AttemptError?
    for path in target.paths {
      if target.tls?.isRequired == true {
        throw .tlsMissing(server: path.server.text ?? "the server of the lease")
      }
      do throws(AttemptError) {
        let addresses = try book.addresses(of: path.server, port: path.port, until: deadline)
        var source: SocketAddress?
        if let local = path.source {
          source = try book.addresses(of: local, port: 0, until: deadline).first
        }
        for address in addresses {
          do {
            return try attach(address, from: source)
          } catch {
            if let earlier = last { note(earlier) }
            last = error
            if !error.mayPass { throw error }
          }
        }
      } catch {
        if !error.mayPass { throw error }
        if let earlier = last, earlier != error { note(earlier) }
        last = error
      }
    }
    throw last ?? .protocolMissing
  }

  private func attach(
    _ address: SocketAddress, from source: SocketAddress?
  ) throws(AttemptError) -> AttachedTarget {
    let token = SessionToken(high: clinux_random(), low: clinux_random())
    let first = try connect(address, from: source, names: target.exports, token, slot: 0)
    let wanted = min(max(target.connectionCount, 1), connectionCountMaximum)
    let count = first.export.flags.contains(.canMultiConn) ? wanted : 1
    var sockets = [first.socket.descriptor.rawValue]
    var others: [CInt] = []
    defer { for number in others { _ = FileDescriptor(owning: number) } }
    while sockets.count < Int(count) {
      let next = try connect(
        address, from: source, names: [first.export.name], token, slot: UInt16(sockets.count))
      guard next.export == first.export else { throw .connectionsDiffer(address: address.text) }
      let number = next.releaseSocket()
      others.append(number)
      sockets.append(number)
    }
    let identity: ContentIdentity
    do {
      identity = try readIdentity(of: first, until: deadline.earlier(of: .milliseconds(10_000)))
    } catch { throw .unreadable(address: address.text, error) }
    let plan = KeeperPlan(
      deviceIndex: 0, backendIdentifier: "", export: first.export.name,
      paths: [KeeperPath(address: address, source: source, site: 0)], connectionCount: count,
      byteCount: first.export.byteCount, flags: first.export.flags, blockByteCount: 512,
      payloadByteCount: 0, token: token, identity: identity,
      requestTimeoutSeconds: UInt64(target.requestTimeoutSeconds ?? 0),
      deadTimeSeconds: UInt64(target.deadTimeSeconds ?? 0))
    if target.driver == .ublk { return try carry(sockets, of: first, plan) }
    do throws(AttemptError) {
      return try hand(sockets, of: first, plan)
    } catch .driver(.driverMissing) where UblkControl.isAvailable {
      return try carry(sockets, of: first, plan)
    }
  }

  private func connect(
    _ address: SocketAddress, from source: SocketAddress?, names: [ByteString],
    _ token: SessionToken, slot: UInt16
  ) throws(AttemptError) -> NBDConnection {
    let identity = SessionIdentity(
      token: token, generation: clinux_boottime_nanoseconds(), slot: slot)
    let connection: NBDConnection
    do {
      connection = try NBDConnection.open(
        to: address, from: source, names: names, identity: identity, until: deadline)
    } catch { throw .connection(error) }
    if !address.isUnix {
      do { try Reconnection.setOptions(connection.socket.descriptor.rawValue) } catch {
        throw .connection(.lost(address: address.text, error))
      }
    }
    return connection
  }

  /// Gives the sockets to the kernel and looks at the device for the first time.
  private func hand(
    _ sockets: [CInt], of first: borrowing NBDConnection, _ plan: KeeperPlan
  ) throws(AttemptError) -> AttachedTarget {
    let export = first.export
    var flags = export.flags
    if target.accessMode == .readOnly { flags.insert(.readOnly) }
    let sizes = export.blockSizes
    let server = first.address.text
    var minimum = sizes?.minimum ?? 1
    if let asked = target.blockSize { minimum = max(minimum, asked) }
    let request = AttachRequest(
      device: target.device.map { .index($0.number) } ?? .anyFree,
      sockets: sockets,
      geometry: ExportGeometry(
        sizeByteCount: export.byteCount, minimumBlockByteCount: minimum,
        maximumPayloadByteCount: sizes?.maximumPayload ?? BlockSizes.unnegotiatedMaximumPayload),
      transmissionFlags: flags.rawValue,
      timeoutSeconds: isKept
        ? KeeperPlan.kernelTimeoutSeconds(
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
      keeperError = keep(plan, sockets, attachment.interface)
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
    _ plan: KeeperPlan, _ sockets: [CInt], _ interface: DriverInterface
  ) -> KeeperError? {
    guard interface == .netlink else { return .noNetlink }
    try? plan.write()  // For a keeper that takes over; this one does not need it.
    var connections: [(descriptor: CInt, path: Int)] = []
    for number in sockets { connections.append((number, 0)) }
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
  var cookie: UInt64 = 0
  while let region = reader.region {
    cookie += 1
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

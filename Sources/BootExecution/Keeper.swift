// SPDX-License-Identifier: Apache-2.0
// The process that stays with a device of the kernel's nbd driver. The data goes without it; it
// notices that a connection has died, brings one back and hands its socket to the kernel, which
// lets requests wait meanwhile.
//
//   kernel's sockets ──hang up──► slot is lost ──► attempt after attempt ──► RECONFIGURE ──► live
//
// Runs in memory and on descriptors that were taken before the root was mounted: from `run` on it
// allocates nothing and opens no file, because the memory and the file may be behind the device.

import CLinux
import LinuxSystem
import NBDDriver
import NetlinkProtocol
import WireFormat

/// Times of the keeper. Source: rootlink(8), "WHEN THE SERVER GOES AWAY", which explains each.
enum KeeperTimes {
  /// With one connection the kernel looks at this interval whether a request's socket was
  /// replaced, and sends the request again; it does not give up a slow server.
  static let requestLookMilliseconds: UInt64 = 2000
  /// Pauses between attempts grow from here, drawn from the upper half, so that a rack of boards
  /// does not knock all at once.
  static let firstPauseMilliseconds: UInt64 = 100
  static let longestPauseMilliseconds: UInt64 = 1000
  /// The first attempt comes within this of the loss.
  static let firstJitterMilliseconds: UInt64 = 100
  /// A copy on another server is asked for when the server stays away so long.
  static let otherSiteMilliseconds: UInt64 = 5000
  static let netlinkMilliseconds: UInt64 = 5000
  /// How soon a socket is offered again that was dropped because the connection which the kernel
  /// had called dead did not count as dead yet.
  static let offerMilliseconds: UInt64 = 10
  /// How long the kernel may take to notice that a connection is dead whose end we have seen.
  static let noticeMilliseconds: UInt64 = 2000
  /// When one connection of a way is lost, others that have sent their data again so often without
  /// an acknowledgement, which takes 1.4 s, are lost as well.
  static let silentRepeatCount: CInt = 3
  /// Failures of an outage that is shorter are nobody's concern.
  static let complaintMilliseconds: UInt64 = 1500

  /// For ever, as the kernel can count it: 68 years, or 23 days where a long has 32 bits.
  static let foreverSeconds: UInt64 = Int.bitWidth == 64 ? 0x7fff_ffff : 2_000_000
}

/// One of the device's connections. A class, so that its parts are changed in place.
final class KeeperSlot {
  enum State: Equatable {
    /// The kernel uses a socket of which this process has no descriptor.
    case foreign
    case live
    /// The next attempt may begin then.
    case waiting(MonotonicTime)
    case attempting
    /// A socket waits to be handed over until the kernel calls one dead, at the latest until then.
    case offering(until: MonotonicTime)
  }

  var state = State.foreign
  /// The kernel's socket, which this process has open as well, or -1.
  var descriptor: CInt = -1
  /// Where it leads.
  var path: Int
  let homePath: Int
  let attempt: Reconnection
  /// The kernel has dropped the socket, as far as can be told, for none was dead.
  var isUncertain = false
  /// poll(2) events for which the attempt waits.
  var awaited: CShort = 0
  var attemptCount: UInt64 = 0
  var pauseMilliseconds = KeeperTimes.firstPauseMilliseconds

  init(_ attempt: Reconnection, path: Int, homePath: Int) {
    self.attempt = attempt
    self.path = path
    self.homePath = homePath
  }
}

/// Its buffers are its own and never handed out.
@safe struct Keeper: ~Copyable {
  let plan: KeeperPlan
  var slots: [KeeperSlot] = []
  let deviceName: [UInt8]
  let pathTexts: [[UInt8]]
  var log: KeeperLog

  let control: CInt
  let events: CInt
  let kernel: CInt
  var handOver: PreparedReconfiguration
  var settle: PreparedReconfiguration
  /// Hands over a connection that refuses every request.
  var refusal: PreparedReconfiguration
  var refused = RefusedRequests()
  var shutdown: ShutdownWatch
  let witness: HandOverWitness
  var sequence: UInt32 = 1

  let pollSet: UnsafeMutableBufferPointer<pollfd>
  let datagram: UnsafeMutableBufferPointer<UInt8>
  /// Which server is in use; copies of the image elsewhere have other numbers.
  var site: UInt32
  var lostSince: MonotonicTime?
  var attemptsSinceLoss: UInt64 = 0
  var complaints = Complaints()
  /// Connections that the kernel has called dead and that were not replaced.
  var deadCount: UInt64 = 0
  /// The connections of a former keeper are replaced, one after the other.
  var isAdopting: Bool
  var isOver = false
  /// Where the kernel does not look whether the server answers.
  var probe: KeeperProbe?

  /// Takes over descriptors: of the connections (in the order of their slots; none for a device that
  /// another keeper watched), of netlink, of the log, and of a listening Unix socket.
  init(
    _ plan: KeeperPlan, connections: [LiveConnection], descriptors: KeeperDescriptors
  ) {
    self.plan = plan
    deviceName = Array("nbd\(plan.deviceIndex)".utf8)
    var texts: [[UInt8]] = []
    for path in plan.paths { texts.append(path.address.text.bytes) }
    pathTexts = texts
    log = KeeperLog(descriptor: descriptors.log, isKernelLog: descriptors.isKernelLog)
    control = descriptors.control
    events = descriptors.events
    kernel = descriptors.kernel
    func prepared(takesSocket: Bool, deadTimeSeconds: UInt64) -> PreparedReconfiguration {
      PreparedReconfiguration(
        family: descriptors.family, index: plan.deviceIndex, timeoutSeconds: nil,
        deadTimeoutSeconds: deadTimeSeconds, takesSocket: takesSocket,
        backendIdentifier: plan.backendIdentifier)
    }
    handOver = prepared(takesSocket: true, deadTimeSeconds: plan.kernelDeadTimeSeconds)
    settle = prepared(takesSocket: false, deadTimeSeconds: plan.kernelDeadTimeSeconds)
    refusal = prepared(takesSocket: true, deadTimeSeconds: 0)
    witness = HandOverWitness(descriptor: descriptors.kernelLog, device: deviceName)
    shutdown = ShutdownWatch(
      descriptors.signs, patience: ShutdownPatience(absenceSeconds: plan.shutdownTimeSeconds),
      device: ByteString(deviceName),
      log: KeeperLog(descriptor: descriptors.log, isKernelLog: descriptors.isKernelLog))
    site = plan.paths[connections.first?.path ?? 0].site
    isAdopting = connections.isEmpty
    for number in 0..<Int(plan.connectionCount) {
      let home = plan.homePath(ofConnection: number, site: site)
      let slot = KeeperSlot(
        Reconnection(plan, slot: UInt16(number)),
        path: number < connections.count ? connections[number].path : home, homePath: home)
      if number < connections.count {
        slot.descriptor = connections[number].descriptor
        slot.state = .live
      }
      slots.append(slot)
    }
    // For as long as the process lives.
    unsafe pollSet = UnsafeMutableBufferPointer<pollfd>.allocate(capacity: slots.count + 3)
    unsafe pollSet.initialize(repeating: pollfd())
    unsafe datagram = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 8192)
    unsafe datagram.initialize(repeating: 0)
    probe = Self.probe(plan, statistics: descriptors.statistics)
    if let first = connections.first { beginWatch(first) }
  }

  /// Until the device is detached, or somebody else keeps it.
  mutating func run() {
    askWhetherAttached()
    if isAdopting { slots[0].state = .waiting(MonotonicTime.now) }
    while !isOver {
      wait()
      hearKernel()
      answerQuestion()
      for index in slots.indices where !isOver { step(index) }
      if !isOver { watchAnswers() }
      if !isOver { lookForShutdown() }
    }
  }

  private func wait() {
    var next = MonotonicTime(nanoseconds: .max)
    // SAFETY: three entries and one a slot were allocated.
    unsafe pollSet[0] = pollfd(fd: control, events: CShort(clinux_POLLIN), revents: 0)
    unsafe pollSet[1] = pollfd(fd: events, events: CShort(clinux_POLLIN), revents: 0)
    for index in slots.indices {
      let slot = slots[index]
      var entry = pollfd(fd: -1, events: 0, revents: 0)
      switch slot.state {
      case .foreign: break
      case .live:
        entry.fd = slot.descriptor
        entry.events = CShort(clinux_POLLRDHUP)
      case .waiting(let time):
        if mayAttempt(index) { next = min(next, time) }
      case .attempting:
        entry.fd = slot.attempt.descriptor
        entry.events = slot.awaited
        next = min(next, slot.attempt.deadline.time)
      case .offering(let end):
        next = min(next, end)
        // It was dropped, and will not be for long.
        if deadCount > 0 {
          next = min(
            next, MonotonicTime.now.advanced(byMilliseconds: KeeperTimes.offerMilliseconds))
        }
      }
      unsafe pollSet[index + 2] = entry
    }
    unsafe pollSet[slots.count + 2] = questionEntry(&next)
    if !hasServer { next = min(next, shutdown.next) }
    _ = unsafe clinux_poll_all(
      pollSet.baseAddress!, UInt(pollSet.count), Deadline(at: next).pollMilliseconds)
  }
}

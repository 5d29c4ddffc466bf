// SPDX-License-Identifier: Apache-2.0
// Carries out a plan: attaches every target, repeating with growing pauses until the time is up.
// The plan is made anew before each round, because a lease may come late or change.
//
//   read leases ─► plan ─► attach what is not attached ─► all there? ─► hand the network over
//        ▲                          │ not yet
//        └────────── pause ◄────────┘ until the time is up

public import BootPlanning
public import LinuxSystem
public import NBDDriver
import UblkDriver
public import WireFormat

/// What `rootlink attach` was asked for.
public struct AttachOptions: Sendable {
  /// A value as `nbdroot=` or `ibnbd-root=` takes it, in place of what the command line says.
  public var target: ByteString?
  /// In place of what the device's name says.
  public var driver: DeviceName.Driver?
  /// In place of the device that the command line says.
  public var device: DeviceName?
  /// In place of what the command line says.
  public var connectionCount: UInt32?
  /// In place of `rootlink.silence=` and `rootlink.answer=`; 1 to 3600.
  public var silenceSeconds: UInt32?
  public var answerSeconds: UInt32?
  /// 0 is for ever; nil leaves it to the command line.
  public var timeoutSeconds: UInt32?
  /// One round: what fails is not tried again.
  public var attemptsOnce = false
  public var interface = InterfaceChoice.automatic
  /// Whether a process stays with each device and reconnects.
  public var isKept = true
  /// In place of /proc/cmdline.
  public var commandLine: ByteString?

  public init() {}
}

/// Exit status of every command. Source: rootlink(8).
public enum ExitStatus {
  public static let done: CInt = 0
  public static let failed: CInt = 1
  public static let wrongRequest: CInt = 2
}

/// `rootlink attach`, and the attaching of PID 1.
public struct AttachCommand {
  private let options: AttachOptions
  private let log: Log
  private var failures: FailureReport
  /// By the place of the target in the plan.
  private var attached: [Int: AttachedTarget] = [:]
  private var usesFallback = false
  private var isSoftRDMAMade = false
  private var isAnnounced = false
  /// What is to be mounted, once `run` has attached it.
  public private(set) var root: PlannedRoot?

  public init(_ options: AttachOptions, log: Log) {
    self.options = options
    self.log = log
    failures = FailureReport(log)
  }

  /// Attaches, and returns the exit status. With nothing to do it is 0 and nothing is printed.
  public mutating func run() -> CInt {
    let start = MonotonicTime.now
    var schedule = RetrySchedule()
    while true {
      let input: PlanningInput
      do { input = try readInput() } catch {
        log.write(.error, error.commandLineReason, next: "mount /proc")
        return ExitStatus.failed
      }
      let readMilliseconds = MonotonicTime.now.milliseconds(since: start)
      var timeoutSeconds = Self.timeoutSecondsDefault
      do {
        let plan = try adjusted(BootPlanning.plan(for: input))
        if plan.isEmpty { return nothingToDo() }
        timeoutSeconds = options.timeoutSeconds ?? plan.attachTimeoutSeconds
        announce(plan)
        let deadline = Self.deadline(from: start, seconds: timeoutSeconds)
        switch round(plan, leaseMilliseconds: readMilliseconds, until: deadline) {
        case .complete: return finish(plan)
        case .hopeless: return ExitStatus.failed
        case .unfinished: break
        }
      } catch {
        if error.isRequestWrong {
          log.write(.error, error.report.reason, next: error.report.advice)
          return ExitStatus.wrongRequest
        }
        // A lease may still come, or another one.
        failures.add(error.report.reason, advice: error.report.advice)
        timeoutSeconds = timeoutSecondsWithoutLease(input)
      }
      if options.attemptsOnce { return ExitStatus.failed }
      let deadline = Self.deadline(from: start, seconds: timeoutSeconds)
      if deadline.hasPassed {
        failures.flush()
        log.write(
          .error, "gave up after \(timeoutSeconds) s",
          next: "rootlink.timeout= sets the seconds, 0 is for ever")
        return ExitStatus.failed
      }
      let wait = schedule.pauseMilliseconds(random: randomValue(below: 1 << 32))
      pause(milliseconds: deadline.isNever ? wait : min(wait, UInt64(deadline.pollMilliseconds)))
    }
  }

  /// Source: `rootlink.timeout` in rootlink-cmdline(7).
  private static let timeoutSecondsDefault: UInt32 = 180

  private static func deadline(from start: MonotonicTime, seconds: UInt32) -> Deadline {
    seconds == 0
      ? .never : Deadline(at: start.advanced(byMilliseconds: UInt64(seconds) * 1000))
  }

  private func readInput() throws(SystemError) -> PlanningInput {
    var commandLine = options.commandLine
    if let target = options.target {
      commandLine = (isOfRNBD(target) ? "ibnbd-root=\"" : "nbdroot=\"") + target + "\""
    }
    return try PlanningInputReader().read(commandLineOverride: commandLine)
  }

  /// What RNBD's driver takes to map a device names it by this key; of NBD no address begins so.
  private func isOfRNBD(_ target: ByteString) -> Bool {
    for field in target.fields(separatedBy: 0x2c) {
      for word in field.fields(separatedBy: 0x20) where word.hasPrefix("device_path=") {
        return true
      }
    }
    return false
  }

  private func timeoutSecondsWithoutLease(_ input: PlanningInput) -> UInt32 {
    var input = input
    input.allowsMissingLease = true
    let planned = try? BootPlanning.plan(for: input).attachTimeoutSeconds
    return options.timeoutSeconds ?? planned ?? Self.timeoutSecondsDefault
  }

  /// The plan with what the options of the command say in place of what the line says.
  private func adjusted(_ plan: AttachmentPlan) -> AttachmentPlan {
    var plan = plan
    if let device = options.device, !plan.targets.isEmpty { plan.targets[0].device = device }
    if let driver = options.driver {
      for index in plan.targets.indices where plan.targets[index].driver != driver {
        plan.targets[index].driver = driver
        plan.targets[index].device?.driver = driver
      }
    }
    if let device = options.device, !plan.targets.isEmpty { plan.targets[0].driver = device.driver }
    if let count = options.connectionCount {
      for index in plan.targets.indices { plan.targets[index].connectionCount = count }
    }
    for index in plan.targets.indices {
      if let seconds = options.silenceSeconds { plan.targets[index].silenceSeconds = seconds }
      if let seconds = options.answerSeconds { plan.targets[index].answerSeconds = seconds }
    }
    return plan
  }

  private func nothingToDo() -> CInt {
    guard options.target != nil else { return ExitStatus.done }
    log.write(.error, "nothing to attach", next: "name a server: nbd://HOST/EXPORT")
    return ExitStatus.wrongRequest
  }

  private mutating func announce(_ plan: AttachmentPlan) {
    if isAnnounced { return }
    isAnnounced = true
    for warning in plan.warnings { log.write(.warning, warning.text) }
    for target in plan.targets { log.write(.notice, target.line) }
  }

  private enum Round { case complete, unfinished, hopeless }

  /// One attempt at everything that is not attached yet.
  private mutating func round(
    _ plan: AttachmentPlan, leaseMilliseconds: UInt64, until deadline: Deadline
  ) -> Round {
    var book = AddressBook(plan.resolver)
    var outcome = Round.complete
    let targets = usesFallback ? plan.fallbackTargets : plan.targets
    makeSoftRDMA(plan, targets)
    var groups = groups(targets)
    while let group = groups.popLast() {
      let target = targets[group[0]]
      if group.count == 1, let present = alreadyAttached(target) {
        log.write(.notice, "\(present.node.printable) is attached already")
        continue
      }
      var together: [AttachmentTarget] = []
      for index in group { together.append(targets[index]) }
      let attempt = TargetAttempt(
        target: target, together: together, interface: options.interface, isKept: options.isKept,
        deadline: deadline)
      do {
        let done = try attempt.run(&book) {
          failures.add($0.report.reason, advice: $0.report.advice)
        }
        failures.flush()
        for (place, one) in done.enumerated() {
          attached[group[place]] = one
          log.write(.notice, one.line(leaseMilliseconds: leaseMilliseconds))
          if let error = one.keeperError {
            log.write(
              .warning, "nobody reconnects \(one.device.node.printable): \(error.reason)",
              next: "a lost server means I/O errors")
          }
        }
      } catch {
        failures.add(error.report.reason, advice: error.report.advice)
        // One that cannot be attached keeps nobody else waiting.
        if group.count > 1 {
          for index in group.reversed() { groups.append([index]) }
          continue
        }
        outcome = error.mayPass ? .unfinished : .hopeless
        if outcome == .hopeless { break }
      }
    }
    if outcome != .complete, !usesFallback, !plan.fallbackTargets.isEmpty, attached.isEmpty {
      usesFallback = true
      for target in plan.fallbackTargets { log.write(.notice, target.line) }
      return round(plan, leaseMilliseconds: leaseMilliseconds, until: deadline)
    }
    return outcome
  }

  /// What is not attached yet, in reverse order; those together that share a session.
  private func groups(_ targets: [AttachmentTarget]) -> [[Int]] {
    var groups: [[Int]] = []
    for (index, target) in targets.enumerated() where attached[index] == nil {
      #if ROOTLINK_RDMA
        if let place = groups.firstIndex(where: { targets[$0[0]].sharesSession(with: target) }),
          groups[place].count < RNBDPlan.diskCountMaximum, alreadyAttached(target) == nil,
          alreadyAttached(targets[groups[place][0]]) == nil
        {
          groups[place].append(index)
          continue
        }
      #endif
      groups.append([index])
    }
    groups.reverse()
    return groups
  }

  private mutating func makeSoftRDMA(_ plan: AttachmentPlan, _ targets: [AttachmentTarget]) {
    #if ROOTLINK_RDMA
      guard let device = plan.softRDMA, !isSoftRDMAMade else { return }
      var isNeeded = false
      for target in targets where target.blockProtocol == .rnbd { isNeeded = true }
      guard isNeeded else { return }
      do {
        try device.make()
        isSoftRDMAMade = true
        log.write(.notice, "the RDMA device \(device.name.printable) is there")
      } catch {
        failures.add(
          "rootlink.rdma=\(device.text.printable): \(error.reason)",
          advice: "check the interface, and that the kernel has the module for it")
      }
    #endif
  }

  /// The device of the target, if it shows the export already: this program may run again, by
  /// hand or by dracut's loop.
  private func alreadyAttached(_ target: AttachmentTarget) -> AttachedDevice? {
    if target.blockProtocol == .rnbd {
      for device in UblkDevice.all() where device.hasDisk {
        guard let record = device.record, record.export == target.devicePath,
          target.mayBeServed(by: record.server)
        else { continue }
        if target.device == nil || target.device?.number == device.index { return .ublk(device) }
      }
      return nil
    }
    guard let number = target.device?.number else { return nil }
    func isOfTarget(_ record: AttachmentRecord?) -> Bool {
      guard let record else { return false }
      return target.exports.contains(record.export) && target.mayBeServed(by: record.server)
    }
    switch target.driver {
    case .nbd:
      let device = NBDDevice(index: number)
      return device.isAttached && isOfTarget(device.record) ? .nbd(device) : nil
    case .ublk:
      let device = UblkDevice(index: number)
      return device.hasDisk && isOfTarget(device.record) ? .ublk(device) : nil
    }
  }

  private mutating func finish(_ plan: AttachmentPlan) -> CInt {
    let root = usesFallback ? plan.fallbackRoot ?? plan.root : plan.root
    self.root = root
    if root.needsRootLink, let first = attached[0] {
      // dracut looks for its root there. The device works without the link.
      try? replaceLink("/dev/root", target: first.device.node)
    }
    if log.destination == .kernel { handOverNetwork(plan, Array(attached.values), log) }
    return ExitStatus.done
  }
}

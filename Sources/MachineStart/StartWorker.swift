// SPDX-License-Identifier: Apache-2.0
// All that lies between the kernel and the root's init, done by a child of process 1:
//
//   mounts ─► parameters ─► modules ─► network ─► attach ─► mount ─► [shell] ─► old files freed
//
// It tells its parent by a pipe what to start. A trap here ends this process, not the machine.

import BootExecution
import BootPlanning
import CLinux
import LinuxSystem
import NetworkSetup
import WireFormat

struct StartWorker {
  /// For boards whose kernel line is fixed: more words, which count as if they stood at its end.
  static let parameterPath: ByteString = "/etc/rootlink/parameters"

  /// What the kernel gave process 1, without its name.
  let kernelArguments: [ByteString]
  let messages: StartMessages
  let log = Log(.kernel)

  /// The exit status of the child.
  func run() -> CInt {
    ignoreBrokenPipes()
    do {
      let words = try work()
      messages.start(words)
      return ExitStatus.done
    } catch {
      log.write(.error, error.report.reason, next: error.report.advice)
      return error.isRequestWrong ? ExitStatus.wrongRequest : ExitStatus.failed
    }
  }

  private func work() throws(StartError) -> [ByteString] {
    let begin = MonotonicTime.now
    try mountKernelFileSystems()
    let appended = try? readFile(
      Self.parameterPath, limit: PlanningInput.commandLineByteCountMaximum)
    let commandLine = try readCommandLine(appended)
    let parameters: StartParameters
    do { parameters = try StartParameters(commandLine: commandLine) } catch {
      throw .parameters(error)
    }
    messages.restart(afterSeconds: parameters.restartSeconds)
    var modules = ModuleLoader(
      commandLine: commandLine, blacklist: parameters.blacklistedModules, log: log)
    let early = try plan(commandLine, allowsMissingLease: true)
    // By itself the driver makes 16, which takes as long as two other modules.
    modules.prefer("nbd.nbds_max=" + ByteString("\(early.nbdDeviceCount)"))
    modules.load(ModuleLoader.startGroup)
    let modulesMilliseconds = MonotonicTime.now.milliseconds(since: begin)
    let ahead = modules.loadAhead(parameters.rootFileSystems)

    for target in early.targets where target.driver == .ublk { modules.load("ublk_drv") }
    try bringUpNetwork(parameters, early, &modules)
    let root = try attach(commandLine, parameters, early)

    if parameters.rootDelaySeconds > 0 {
      pause(milliseconds: UInt64(parameters.rootDelaySeconds) * 1000)
    }
    let mountBegin = MonotonicTime.now
    let device = try RootFinder(wanted: root.device, wait: parameters.rootWait, log: log).find()
    var overlay = parameters.overlay
    if root.isOverlay, overlay == nil { overlay = MemoryOverlay() }
    let mount = RootMount(
      device: device, fileSystems: root.fileSystems, options: MountOptions(root.flags),
      // As the kernel has it: read-only unless told otherwise.
      isReadOnly: overlay != nil || root.isReadOnly ?? true, overlay: overlay, log: log)
    if let ahead { _ = clinux_wait(ahead) }
    let mounted = try mount.mount(&modules)
    if parameters.wantsShell {
      log.write(.notice, "a shell was asked for; its end starts the system")
      if !Shell.run() { log.write(.warning, "the image holds no shell") }
    }
    let program = try NewRoot.program(parameters.initProgram)
    let now = MonotonicTime.now
    log.write(
      .notice,
      "\(device.node.printable) is the root: \(mounted); modules \(modulesMilliseconds) ms, "
        + "mount \(now.milliseconds(since: mountBegin)) ms, all \(now.milliseconds(since: begin))"
        + " ms; starting \(program.printable)")
    try NewRoot.takeOver(log)
    var words = [program] + kernelArguments
    if let appended { words += KernelParameter.wordsForInit(appended) }
    return words
  }

  // MARK: Steps

  private func mountKernelFileSystems() throws(StartError) {
    let plain = UInt(clinux_MS_NOSUID | clinux_MS_NOEXEC | clinux_MS_NODEV)
    do {
      try mountEarly("proc", on: "/proc", flags: plain)
      try mountEarly("sysfs", on: "/sys", flags: plain)
      try mountEarly("devtmpfs", on: "/dev", flags: UInt(clinux_MS_NOSUID), data: "mode=0755")
      try mountEarly(
        "tmpfs", on: "/run", flags: UInt(clinux_MS_NOSUID | clinux_MS_NODEV), data: "mode=0755")
    } catch { throw .system(step: "mounting the kernel's file systems", error) }
    _ = try? unsafe withCString("/dev/console") { unsafe clinux_open_streams($0) }
  }

  private func readCommandLine(_ appended: ByteString?) throws(StartError) -> ByteString {
    do {
      let line = try readFile("/proc/cmdline", limit: PlanningInput.commandLineByteCountMaximum)
      guard let appended else { return line }
      return KernelParameter.appending(appended, to: line)
    } catch { throw .commandLine(error) }
  }

  private func plan(
    _ commandLine: ByteString, allowsMissingLease: Bool
  ) throws(StartError) -> AttachmentPlan {
    var input: PlanningInput
    do { input = try readPlanningInput(commandLineOverride: commandLine) } catch {
      throw .commandLine(error)
    }
    input.allowsMissingLease = allowsMissingLease
    do { return try BootPlanning.plan(for: input) } catch { throw .parameters(error) }
  }

  private func bringUpNetwork(
    _ parameters: StartParameters, _ plan: AttachmentPlan, _ modules: inout ModuleLoader
  ) throws(StartError) {
    guard plan.needsNetwork || !parameters.interfaces.isEmpty else { return }
    if let kernel = KernelConfiguration() {
      log.write(.notice, "\(kernel.interface.printable) is configured by the kernel")
      return
    }
    if !parameters.vlans.isEmpty { modules.load("8021q") }
    let deadline =
      plan.attachTimeoutSeconds == 0
      ? Deadline.never : .milliseconds(UInt64(plan.attachTimeoutSeconds) * 1000)
    do throws(NetworkError) {
      var network = try NetworkBringUp(
        parameters, prefersIPv6: plan.isReachedByIPv6, wantsRootPath: plan.waitsForLease, log: log)
      try network.run(until: deadline)
    } catch { throw .network(error) }
  }

  /// What is to be mounted.
  private struct Root {
    var device: ByteString
    var fileSystems: [ByteString]
    var flags: ByteString
    var isReadOnly: Bool?
    var isOverlay: Bool
  }

  private func attach(
    _ commandLine: ByteString, _ parameters: StartParameters, _ early: AttachmentPlan
  ) throws(StartError) -> Root {
    var planned = early.root
    if !early.isEmpty {
      var options = AttachOptions()
      options.commandLine = commandLine
      var command = AttachCommand(options, log: log)
      let status = command.run()
      guard status == ExitStatus.done else {
        throw .notAttached(wrongRequest: status == ExitStatus.wrongRequest)
      }
      if let root = command.root { planned = root }
    }
    guard let device = planned.device ?? parameters.root else { throw .noRootNamed }
    var fileSystems: [ByteString] = []
    for name in planned.fileSystem?.fields(separatedBy: 0x2c) ?? [] {
      if !name.isEmpty, name != "auto" { fileSystems.append(name) }
    }
    return Root(
      device: device, fileSystems: fileSystems, flags: planned.flags ?? "",
      isReadOnly: planned.isReadOnly, isOverlay: planned.isOverlay)
  }
}

extension AttachmentPlan {
  /// Every server that is known has an address of IPv6 that is not of one link.
  var isReachedByIPv6: Bool {
    var isFound = false
    for target in targets {
      for path in target.paths {
        guard case .ipv6 = path.server else { return false }
        isFound = true
      }
    }
    return isFound
  }

  /// Of the kernel's driver, up to the last one that is named. More are made when they are attached.
  var nbdDeviceCount: UInt32 {
    var count: UInt32 = 1
    for target in targets {
      if let device = target.device, device.driver == .nbd { count = max(count, device.number + 1) }
    }
    return min(count, 16)
  }

  /// Only a lease can say where to go.
  var waitsForLease: Bool {
    for target in targets {
      for path in target.paths where path.server == .pending { return true }
    }
    return false
  }
}

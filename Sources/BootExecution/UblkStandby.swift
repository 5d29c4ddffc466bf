// SPDX-License-Identifier: Apache-2.0
// Who starts another process for a ublk device when the one that carries its data has been killed.
// For a root device nobody else can: every program is on it, and so is the shell of whoever would
// type the command. It waits for the end of that process and does nothing else; what it needs then
// it has opened before, because its own root is the initramfs, from which nothing can be reached later.

import CLinux
import LinuxSystem
import UblkDriver
import WireFormat

extension UblkDevice {
  var standbyPath: ByteString { root + "/run/rootlink/" + name + ".standby" }

  /// The process that stands by; nil when there is none.
  var standby: UInt32? {
    guard let text = try? readFile(standbyPath, limit: 32),
      let process = text.trimmed.decimal(maximum: UInt64(Int32.max)),
      processName(UInt32(process)) == UblkStandby.name
    else { return nil }
    return UInt32(process)
  }

  /// Nobody takes the device up by himself any more.
  func endStandby() {
    if let standby { _ = clinux_kill(CInt(standby), 9) }
    try? removeFile(standbyPath)
  }
}

struct UblkStandby: ~Copyable {
  /// As /proc/PID/comm has it, which holds 15 bytes.
  static let name: ByteString = "rootlink-standb"
  /// Between two looks at a device whose driver has not seen yet that its process is gone.
  private static let lookMilliseconds: UInt64 = 10
  /// Before another attempt to start a process.
  private static let pauseMilliseconds: UInt64 = 1000
  private static let driverMilliseconds: UInt64 = 5000

  private let plan: UblkPlan
  /// Those that are there when `plan` is carried anew.
  private var members: [UblkMember]
  private let control: UblkControl
  private let surroundings: UblkSurroundings
  private let deviceName: [UInt8]
  private var log: KeeperLog

  /// Forks it and waits until it watches over `process`.
  static func start(
    _ plan: UblkPlan, _ members: [UblkMember], of process: UInt32
  ) throws(UblkProcessError) {
    let standby = try UblkProcess.start(readyMilliseconds: UblkProcess.readyMilliseconds) {
      surroundings, ready in
      stand(by: process, plan, members, surroundings, ready: ready)
    }.process
    for member in members {
      do {
        try replaceFile(
          member.device.standbyPath, with: ByteString("\(standby)\n"), mode: 0o600)
      } catch {
        _ = clinux_kill(CInt(standby), 9)
        throw .system(step: member.device.standbyPath, error)
      }
    }
    spareFromKillall(standby, device: members[0].device.name + "-standby")
  }

  /// In the child; returns when the device is gone.
  private static func stand(
    by process: UInt32, _ plan: UblkPlan, _ members: [UblkMember], _ given: UblkSurroundings,
    ready: consuming FileDescriptor
  ) {
    becomeKeeper(named: "rootlink-standby", keeping: [ready.rawValue] + given.descriptors)
    let name = members[0].device.name
    var surroundings = given
    var log = KeeperLog(descriptor: given.log, isKernelLog: true)
    for failure in TaskGuard.applyAll() { log.warn(name, failure.guard.text, failure.error) }
    let control: UblkControl
    do { control = try UblkControl() } catch {
      return UblkProcess.tell(ready, error.report.reason)
    }
    do {
      surroundings.nodes = try FileDescriptor.open("/dev").release()
      #if ROOTLINK_RDMA
        surroundings.processes = try FileDescriptor.open("/proc").release()
      #endif
    } catch { return UblkProcess.tell(ready, "/dev, /proc: \(error.text)") }
    var standby = UblkStandby(
      plan: plan, members: members, control: control, surroundings: surroundings,
      deviceName: name.bytes, log: log)
    do { try ready.write([0]) } catch { return }
    _ = clinux_close(ready.release())
    standby.run(process)
  }

  /// Until every device is stopped.
  private mutating func run(_ first: UInt32) {
    var process = first
    var isOwn = false
    while true {
      Self.waitForEnd(of: process)
      if isOwn { _ = clinux_wait(CInt(process)) }
      guard let next = replacement(of: process) else { return }
      (process, isOwn) = next
    }
  }

  private static func waitForEnd(of process: UInt32) {
    let number = clinux_pidfd_open(CInt(process))
    guard number >= 0 else { return }
    while clinux_poll(number, CShort(clinux_POLLIN), -1) <= 0 {}
    _ = clinux_close(number)
  }

  /// What is to be done about the devices of a process that has ended.
  private enum Finding {
    case gone, quiesced
    case servedBy(UInt32)
    case unsettled
  }

  /// Who carries the data after `ended`, and whether it is a child; nil when the devices are stopped.
  private mutating func replacement(of ended: UInt32) -> (process: UInt32, isOwn: Bool)? {
    while true {
      switch look(after: ended) {
      case .gone: return nil
      // `rootlink attach --keep` was faster.
      case .servedBy(let process): return (process, false)
      case .quiesced:
        if let process = replace() { return (process, true) }
        pause(milliseconds: Self.pauseMilliseconds)
      case .unsettled: pause(milliseconds: Self.lookMilliseconds)
      }
    }
  }

  /// Looks at every device, and forgets those that are gone.
  private mutating func look(after ended: UInt32) -> Finding {
    var finding = Finding.gone
    var number = 0
    while number < members.count {
      let found: DeviceInformation?
      do { found = try control.information(of: members[number].device.index) } catch {
        say(.error, "the driver does not answer: ", error.report.reason)
        pause(milliseconds: Self.pauseMilliseconds)
        return .unsettled
      }
      guard let information = found, information.state != .dead, !members[number].page.isOver
      else {
        members.remove(at: number)
        continue
      }
      members[number].information = information
      if information.state == .quiesced {
        if case .gone = finding { finding = .quiesced }
      } else if let process = information.serverProcess, process != ended {
        if case .unsettled = finding {} else { finding = .servedBy(process) }
      } else {
        finding = .unsettled
      }
      number += 1
    }
    return finding
  }

  private mutating func replace() -> UInt32? {
    do throws(UblkAttachError) {
      let process = try UblkDevice.recover(
        plan, members, control, in: surroundings, until: .milliseconds(Self.driverMilliseconds))
      log.begin(.warning, deviceName)
      log.add("the process that carried its data has ended; process ")
      log.add(UInt64(process))
      log.add(" goes on")
      log.end()
      return process
    } catch {
      say(.error, "no process can be started for it: ", error.report.reason)
      return nil
    }
  }

  private mutating func say(_ level: LogLevel, _ what: StaticString, _ reason: String) {
    log.begin(level, deviceName)
    log.add(what)
    log.add(Array(reason.utf8))
    log.end()
  }
}

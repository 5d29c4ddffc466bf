// SPDX-License-Identifier: Apache-2.0
// An export becomes a ublk device, is taken up again when the process that carries it is gone, and
// ends.

import CLinux
import LinuxSystem
import NBDDriver
import NBDProtocol
import UblkDriver
import WireFormat

/// Why a ublk device was not made or not taken up.
public indirect enum UblkAttachError: Error, Equatable, Sendable {
  case driver(UblkError)
  case process(UblkProcessError)
  case state(ByteString, SystemError)
  /// Nothing in /run says how it was attached.
  case noRecord(device: ByteString)

  public var report: (reason: String, advice: String) {
    switch self {
    case .driver(let error): error.report
    case .process(let error): (error.reason, "look at the kernel log")
    case .state(let path, let error): ("\(path.printable): \(error.text)", "mount a tmpfs on /run")
    case .noRecord(let device):
      (
        "nothing in /run/rootlink says how \(device.printable) was attached",
        "it can only be detached"
      )
    }
  }
}

extension UblkDevice {
  var keeperPlanPath: ByteString { root + "/run/rootlink/" + name + ".keep" }
  var recordPath: ByteString { root + "/run/rootlink/" + name }

  private var planText: ByteString? {
    try? readFile(keeperPlanPath, limit: KeeperPlan.byteCountMaximum)
  }
  /// What another process needs to carry it.
  var plan: UblkPlan? { planText.flatMap { UblkPlan(decoding: $0) } }

  /// What /run says of the attachment, if it is one of ours.
  var record: AttachmentRecord? {
    (try? readFile(recordPath, limit: AttachmentRecord.byteCountMaximum)).flatMap {
      AttachmentRecord(decoding: $0)
    }
  }

  /// Makes devices, one for each of `indices` (nil: any that is free), starts who carries their data,
  /// then their disks. `export`: of the only device, where it is known already.
  static func attach(
    _ plan: UblkPlan, indices: [UInt32?], export: UblkExport? = nil,
    connections: [LiveConnection] = []
  ) throws(UblkAttachError) -> [UblkDevice] {
    let control = try openControl()
    var devices: [UblkDevice] = []
    do throws(UblkAttachError) {
      var members: [UblkMember] = []
      for index in indices {
        let information: DeviceInformation
        do throws(UblkError) {
          try control.checkFeatures()
          information = try control.addDevice(
            DeviceInformation(
              queueDepth: plan.sizes.queueDepth,
              requestByteCountMaximum: plan.sizes.requestByteCountMaximum,
              device: index ?? DeviceInformation.anyDevice, features: UblkControl.needed))
        } catch { throw .driver(error) }
        let device = UblkDevice(index: information.device)
        devices.append(device)
        members.append(
          UblkMember(
            device: device, information: information, page: try device.page(isNew: true)))
      }
      try bringUp(plan, members, export, connections, control)
    } catch {
      for device in devices {
        try? control.deleteDevice(device.index)
        device.forget()
      }
      throw error
    }
    return devices
  }

  static func openControl() throws(UblkAttachError) -> UblkControl {
    do { return try UblkControl() } catch { throw .driver(error) }
  }

  private static func bringUp(
    _ plan: UblkPlan, _ members: [UblkMember], _ export: UblkExport?,
    _ connections: [LiveConnection], _ control: borrowing UblkControl
  ) throws(UblkAttachError) {
    var plan = plan
    var parameters: [DeviceParameters] = []
    if let export { parameters = try plan.learn([export], of: members) }
    let started: (process: UInt32, told: [UInt8])
    do { started = try UblkProcess.start(plan, members, connections: connections) } catch {
      throw .process(error)
    }
    do throws(UblkAttachError) {
      #if ROOTLINK_RDMA
        if case .rnbd(let asked) = plan {
          guard let exports = asked.exports(told: started.told) else { throw .process(.silent) }
          parameters = try plan.learn(exports, of: members)
        }
      #endif
      let text = plan.encoded
      for (number, member) in members.enumerated() {
        let device = member.device
        do { try replaceFile(device.keeperPlanPath, with: text, mode: 0o600) } catch {
          throw .state(device.keeperPlanPath, error)
        }
        do throws(UblkError) {
          try control.setParameters(parameters[number], of: device.index)
          try control.startDevice(device.index, server: started.process)
          try device.makeNode()
        } catch { throw .driver(error) }
        device.setRequestTimer()
      }
      do { try UblkStandby.start(plan, members, of: started.process) } catch {
        throw .process(error)
      }
    } catch {
      _ = clinux_kill(CInt(started.process), 9)
      throw error
    }
  }

  /// The driver learns of the end of its process from a request that it waits with. When the process
  /// has all of them it learns by their timer alone, which is half a minute by itself. A process that
  /// lives is left alone, however long it takes. Source: `ublk_timeout` in Linux 6.12 `ublk_drv.c`.
  private func setRequestTimer() {
    try? writeExistingFile(directory + "/queue/io_timeout", "2000")
  }

  func page(isNew: Bool) throws(UblkAttachError) -> UblkStatePage {
    do { return try UblkStatePage(self, isNew: isNew) } catch {
      throw .state(UblkStatePage.path(self), error)
    }
  }

  /// The process that carries the data of a device, another one where its own is gone, and one that
  /// stands by, where there was none. Requests have waited meanwhile.
  func takeUp() throws(UblkAttachError) -> UInt32 {
    guard let plan else { throw .noRecord(device: node) }
    let control = try Self.openControl()
    // Two must not do it at once.
    if standby != nil { return try awaitServer(control) }
    let information: DeviceInformation
    do throws(UblkError) {
      guard let found = try control.information(of: index) else { throw .noSuchDevice(node) }
      information = found
    } catch { throw .driver(error) }
    var members = [
      UblkMember(device: self, information: information, page: try page(isNew: false))
    ]
    members[0].page.isOver = false
    for other in siblings {
      guard let found = try? control.information(of: other.index), found.state != .dead else {
        continue
      }
      let page = try other.page(isNew: false)
      if page.isOver { continue }
      members.append(UblkMember(device: other, information: found, page: page))
    }
    let process: UInt32
    if let living = livingServer(information) {
      process = living
    } else {
      process = try Self.recover(plan, members, control, until: .milliseconds(5000))
    }
    do { try UblkStandby.start(plan, members, of: process) } catch { throw .process(error) }
    return process
  }

  /// The others that the same process carries.
  private var siblings: [UblkDevice] {
    guard let text = planText, let plan else { return [] }
    var siblings: [UblkDevice] = []
    for other in plan.indices where other != index {
      let device = UblkDevice(index: other, root: root)
      // The number may be somebody else's by now.
      if device.planText == text { siblings.append(device) }
    }
    return siblings
  }

  /// Another process goes on where the last one stopped.
  static func recover(
    _ plan: UblkPlan, _ members: [UblkMember], _ control: borrowing UblkControl,
    in surroundings: UblkSurroundings? = nil, until deadline: Deadline
  ) throws(UblkAttachError) -> UInt32 {
    do throws(UblkError) {
      for member in members {
        try control.startRecovery(member.device.index, until: deadline)
      }
    } catch { throw .driver(error) }
    let process: UInt32
    do { process = try UblkProcess.start(plan, members, in: surroundings).process } catch {
      throw .process(error)
    }
    do throws(UblkError) {
      for member in members { try control.endRecovery(member.device.index, server: process) }
    } catch {
      _ = clinux_kill(CInt(process), 9)
      throw .driver(error)
    }
    return process
  }

  private func livingServer(_ information: DeviceInformation) -> UInt32? {
    guard information.state == .live, let process = information.serverProcess,
      fileExists(ByteString("/proc/\(process)"))
    else { return nil }
    return process
  }

  /// Until the process that stands by has brought it back.
  private func awaitServer(_ control: borrowing UblkControl) throws(UblkAttachError) -> UInt32 {
    let deadline = Deadline.milliseconds(UblkProcess.readyMilliseconds)
    while true {
      do throws(UblkError) {
        guard let found = try control.information(of: index) else { throw .noSuchDevice(node) }
        if let process = livingServer(found) { return process }
      } catch { throw .driver(error) }
      if deadline.hasPassed { throw .process(.silent) }
      pause(milliseconds: 20)
    }
  }

  /// Ends the attachment unless somebody uses the disk.
  func detach(isForced: Bool) throws(UblkError) {
    guard exists else { throw .noSuchDevice(node) }
    if !isForced, hasDisk {
      do {
        // Refused while a file system, swap or another device has it.
        _ = try FileDescriptor.open(node, .exclusive)
      } catch .busy {
        throw .busy(device: node)
      } catch {}
    }
    try end(isForced: isForced)
  }

  /// Ends the device. Forced: requests that are out fail, whoever waits for them. Those of others
  /// that the same process carries wait until another one goes on with them.
  func end(isForced: Bool) throws(UblkError) {
    let control = try UblkControl()
    guard let information = try control.information(of: index) else { throw .noSuchDevice(node) }
    let isAlone = siblings.isEmpty
    let page = try? page(isNew: false)
    if isForced, let process = information.serverProcess {
      page?.isOver = true
      if isAlone { endStandby() }
      // Only what still serves it: the number may be somebody else's by now.
      if processName(process) == "rootlink-ublk" { _ = clinux_kill(CInt(process), 9) }
    }
    try control.stopDevice(index)
    page?.isOver = true
    if isAlone { endStandby() }
    try control.deleteDevice(index)
    forget()
  }

  func processName(_ process: UInt32) -> ByteString? {
    (try? readFile(root + ByteString("/proc/\(process)/comm"), limit: 64))?.trimmed
  }

  func forget() {
    for path in [recordPath, keeperPlanPath, standbyPath, UblkStatePage.path(self)] {
      try? removeFile(path)
    }
  }
}

extension UblkExport {
  init(
    _ byteCount: UInt64, flags: TransmissionFlags, sizes: BlockSizes?, minimumBlockByteCount: UInt32
  ) {
    self.init(byteCount: byteCount)
    self.minimumBlockByteCount = minimumBlockByteCount
    preferredBlockByteCount = sizes?.preferred ?? BlockSizes.unnegotiatedPreferred
    maximumPayloadByteCount = sizes?.maximumPayload ?? BlockSizes.unnegotiatedMaximumPayload
    isReadOnly = flags.contains(.readOnly)
    isRotational = flags.contains(.rotational)
    takesFlush = flags.contains(.sendFlush)
    takesFUA = flags.contains(.sendFUA)
    takesTrim = flags.contains(.sendTrim) && !isReadOnly
    takesWriteZeroes = flags.contains(.sendWriteZeroes) && !isReadOnly
  }
}

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
public enum UblkAttachError: Error, Equatable, Sendable {
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

  /// What /run says of the attachment, if it is one of ours.
  var record: AttachmentRecord? {
    (try? readFile(recordPath, limit: AttachmentRecord.byteCountMaximum)).flatMap {
      AttachmentRecord(decoding: $0)
    }
  }

  /// Makes the device, starts who carries its data, then the device itself.
  static func attach(
    _ plan: KeeperPlan, export: UblkExport, index: UInt32?,
    connections: [LiveConnection]
  ) throws(UblkAttachError) -> UblkDevice {
    let control = try openControl()
    let information: DeviceInformation
    do throws(UblkError) {
      try control.checkFeatures()
      information = try control.addDevice(
        DeviceInformation(
          queueDepth: UblkLimits.queueDepth,
          requestByteCountMaximum: UblkLimits.requestByteCountMaximum,
          device: index ?? DeviceInformation.anyDevice, features: UblkControl.needed))
    } catch { throw .driver(error) }
    let device = UblkDevice(index: information.device)
    do throws(UblkAttachError) {
      try device.bringUp(plan, export, information, connections, control)
    } catch {
      try? control.deleteDevice(device.index)
      device.forget()
      throw error
    }
    return device
  }

  static func openControl() throws(UblkAttachError) -> UblkControl {
    do { return try UblkControl() } catch { throw .driver(error) }
  }

  private func bringUp(
    _ plan: KeeperPlan, _ export: UblkExport, _ information: DeviceInformation,
    _ connections: [LiveConnection], _ control: borrowing UblkControl
  ) throws(UblkAttachError) {
    let parameters: DeviceParameters
    do throws(UblkGeometryError) {
      parameters = try DeviceParameters(
        export, requestByteCountMaximum: information.requestByteCountMaximum)
    } catch { throw .driver(.geometry(error)) }
    do { try control.setParameters(parameters, of: index) } catch { throw .driver(error) }
    var plan = plan
    plan.deviceIndex = index
    plan.blockByteCount = 1 << UInt64(parameters.logicalBlockShift)
    plan.payloadByteCount = UInt64(parameters.requestSectorCountMaximum) * 512
    let page = try page(isNew: true)
    do {
      try replaceFile(keeperPlanPath, with: plan.encoded, mode: 0o600)
    } catch { throw .state(keeperPlanPath, error) }
    let process: UInt32
    do {
      process = try UblkProcess.start(
        plan, device: self, information: information, connections: connections, page: page)
    } catch { throw .process(error) }
    do throws(UblkError) {
      try control.startDevice(index, server: process)
      try makeNode()
    } catch {
      _ = clinux_kill(CInt(process), 9)
      throw .driver(error)
    }
    do { try UblkStandby.start(plan, self, of: process, page: page) } catch {
      _ = clinux_kill(CInt(process), 9)
      throw .process(error)
    }
  }

  func page(isNew: Bool) throws(UblkAttachError) -> UblkStatePage {
    do { return try UblkStatePage(self, isNew: isNew) } catch {
      throw .state(UblkStatePage.path(self), error)
    }
  }

  /// The process that carries the data of a device, another one where its own is gone, and one that
  /// stands by, where there was none. Requests have waited meanwhile.
  func takeUp() throws(UblkAttachError) -> UInt32 {
    guard let text = try? readFile(keeperPlanPath, limit: KeeperPlan.byteCountMaximum) else {
      throw .noRecord(device: node)
    }
    let plan = KeeperPlan(decoding: text)
    #if ROOTLINK_RDMA
      let rnbdPlan = RNBDPlan(decoding: text)
      guard plan != nil || rnbdPlan != nil else { throw .noRecord(device: node) }
    #endif
    let control = try Self.openControl()
    // Two must not do it at once.
    if standby != nil { return try awaitServer(control) }
    let information: DeviceInformation
    do throws(UblkError) {
      guard let found = try control.information(of: index) else { throw .noSuchDevice(node) }
      information = found
    } catch { throw .driver(error) }
    if let process = livingServer(information) {
      guard let plan else { throw .driver(.isServed(device: node, process: process)) }
      let page = try page(isNew: false)
      do { try UblkStandby.start(plan, self, of: process, page: page) } catch {
        throw .process(error)
      }
      return process
    }
    #if ROOTLINK_RDMA
      if let rnbdPlan {
        do { try control.startRecovery(index, until: .milliseconds(5000)) } catch {
          throw .driver(error)
        }
        return try takeUp(rnbdPlan, information, control)
      }
    #endif
    guard let plan else { throw .noRecord(device: node) }
    let page = try page(isNew: false)
    let process = try recover(
      plan, information, page: page, control, until: .milliseconds(5000))
    do { try UblkStandby.start(plan, self, of: process, page: page) } catch {
      throw .process(error)
    }
    return process
  }

  /// Another process goes on where the last one stopped.
  func recover(
    _ plan: KeeperPlan, _ information: DeviceInformation, page: UblkStatePage,
    _ control: borrowing UblkControl, in surroundings: UblkSurroundings? = nil,
    until deadline: Deadline
  ) throws(UblkAttachError) -> UInt32 {
    do { try control.startRecovery(index, until: deadline) } catch { throw .driver(error) }
    let process: UInt32
    do {
      process = try UblkProcess.start(
        plan, device: self, information: information, connections: [], page: page,
        in: surroundings)
    } catch { throw .process(error) }
    do { try control.endRecovery(index, server: process) } catch {
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

  /// Ends the device. Forced: requests that are out fail, whoever waits for them.
  func end(isForced: Bool) throws(UblkError) {
    let control = try UblkControl()
    guard let information = try control.information(of: index) else { throw .noSuchDevice(node) }
    if isForced, let process = information.serverProcess {
      endStandby()
      // Only what still serves it: the number may be somebody else's by now.
      if processName(process) == "rootlink-ublk" { _ = clinux_kill(CInt(process), 9) }
    }
    try control.stopDevice(index)
    endStandby()
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

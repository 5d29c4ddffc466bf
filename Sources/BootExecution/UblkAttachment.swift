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
  }

  func page(isNew: Bool) throws(UblkAttachError) -> UblkStatePage {
    do { return try UblkStatePage(self, isNew: isNew) } catch {
      throw .state(UblkStatePage.path(self), error)
    }
  }

  /// Starts another process for a device whose own is gone. Requests have waited meanwhile.
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
    let information: DeviceInformation
    do throws(UblkError) {
      guard let found = try control.information(of: index) else {
        throw .noSuchDevice(node)
      }
      if found.state == .live, let process = found.serverProcess,
        fileExists(ByteString("/proc/\(process)"))
      {
        throw .isServed(device: node, process: process)
      }
      try control.startRecovery(index, until: .milliseconds(5000))
      information = found
    } catch { throw .driver(error) }
    #if ROOTLINK_RDMA
      if let rnbdPlan { return try takeUp(rnbdPlan, information, control) }
    #endif
    guard let plan else { throw .noRecord(device: node) }
    let page = try page(isNew: false)
    let process: UInt32
    do {
      process = try UblkProcess.start(
        plan, device: self, information: information, connections: [], page: page)
    } catch { throw .process(error) }
    do { try control.endRecovery(index, server: process) } catch {
      _ = clinux_kill(CInt(process), 9)
      throw .driver(error)
    }
    return process
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
      // Only what still serves it: the number may be somebody else's by now.
      if processName(process) == "rootlink-ublk" { _ = clinux_kill(CInt(process), 9) }
    }
    try control.stopDevice(index)
    try control.deleteDevice(index)
    forget()
  }

  func processName(_ process: UInt32) -> ByteString? {
    (try? readFile(root + ByteString("/proc/\(process)/comm"), limit: 64))?.trimmed
  }

  func forget() {
    for path in [recordPath, keeperPlanPath, UblkStatePage.path(self)] { try? removeFile(path) }
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

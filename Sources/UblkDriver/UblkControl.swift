// SPDX-License-Identifier: Apache-2.0
// /dev/ublk-control: devices are made, started, stopped and taken up again.
//
//   addDevice ─► (somebody fetches every tag) ─► setParameters ─► startDevice ─► the disk is there
//   stopDevice ─► (the server lets go) ─► deleteDevice
//   quiesced: startRecovery ─► (somebody fetches every tag) ─► endRecovery ─► requests run again

import CLinux
public import LinuxSystem
import WireFormat

/// The control node, open, and a ring for its commands: each waits for its answer, 30 s at most.
public struct UblkControl: ~Copyable {
  static let node: ByteString = "/dev/ublk-control"
  static let nodeMilliseconds: UInt64 = 3000
  /// The kernel answers at once, but a device that starts is read for partitions first, and one
  /// that goes away waits for its last user.
  static let waitSeconds: UInt64 = 30
  /// Without them a disk would not outlive the process that serves it, or need memory for every
  /// tag.
  public static let needed: UblkFeatures = [.userRecovery, .userRecoveryReissue, .userCopy]

  private let file: FileDescriptor
  private let ring: IORing

  /// Loads the module where it is missing.
  public init() throws(UblkError) {
    if !Self.moduleIsLoaded { loadModule("ublk_drv") }
    guard Self.moduleIsLoaded else { throw .driverMissing }
    do {
      try ensureDeviceNode(
        Self.node, .character, numberPath: "/sys/class/misc/ublk-control/dev",
        milliseconds: Self.nodeMilliseconds)
    } catch { throw .node(Self.node, error) }
    let opened: FileDescriptor
    do { opened = try FileDescriptor.open(Self.node, .readWrite) } catch { throw .control(error) }
    do { ring = try IORing(entryCount: 4, .wideCommands) } catch { throw .ring(error) }
    file = opened
  }

  /// Or built into the kernel.
  public static var moduleIsLoaded: Bool { fileExists("/sys/class/misc/ublk-control") }

  /// Whether this kernel has the driver, after its module was asked for.
  public static var isAvailable: Bool {
    if !moduleIsLoaded { loadModule("ublk_drv") }
    return moduleIsLoaded
  }

  /// Throws `.features` with what is missing of `needed`: all of it, when the driver does not know
  /// the question.
  public func checkFeatures() throws(UblkError) {
    var buffer = [UInt8](repeating: 0, count: 8)
    do {
      try perform(.getFeatures, device: DeviceInformation.anyDevice, buffer: &buffer)
    } catch {
      // The command is newer than the driver's first versions.
      guard case .command(_, _, let reason) = error, reason.errno == 95 || reason.errno == 22 else {
        throw error
      }
    }
    let features = UblkFeatures(rawValue: buffer.span.native(UInt64.self, at: 0))
    guard features.isSuperset(of: Self.needed) else {
      throw .features(Self.needed.subtracting(features))
    }
  }

  /// Makes a device; what the driver granted.
  public func addDevice(_ wanted: DeviceInformation) throws(UblkError) -> DeviceInformation {
    var buffer = wanted.encoded
    do {
      try perform(.addDevice, device: wanted.device, buffer: &buffer)
    } catch .command(_, _, .exists) {
      throw .inUse(device: UblkDevice(index: wanted.device).node)
    } catch { throw error }
    let granted: DeviceInformation
    do { granted = try DeviceInformation(decoding: buffer.span) } catch {
      throw .malformed(.addDevice, error)
    }
    guard granted.features.isSuperset(of: Self.needed) else {
      try deleteDevice(granted.device)
      throw .features(Self.needed.subtracting(granted.features))
    }
    return granted
  }

  /// Between `addDevice` and `startDevice`.
  public func setParameters(
    _ parameters: DeviceParameters, of device: UInt32
  ) throws(UblkError) {
    var buffer = parameters.encoded
    try perform(.setParameters, device: device, buffer: &buffer)
  }

  /// As they were set. `.malformed`: the driver answered with something else.
  public func parameters(of device: UInt32) throws(UblkError) -> DeviceParameters {
    var buffer = [UInt8](repeating: 0, count: DeviceParameters.byteCount)
    buffer[0] = UInt8(DeviceParameters.byteCount)  // What is expected stands in front.
    #if _endian(big)
      buffer.swapAt(0, 3)
    #endif
    try perform(.getParameters, device: device, buffer: &buffer)
    do { return try DeviceParameters(decoding: buffer.span) } catch {
      throw .malformed(.getParameters, error)
    }
  }

  /// Nil when there is no such device.
  public func information(of device: UInt32) throws(UblkError) -> DeviceInformation? {
    var buffer = [UInt8](repeating: 0, count: DeviceInformation.byteCount)
    do {
      try perform(.getDeviceInformation, device: device, buffer: &buffer)
    } catch .command(_, _, let error) where error.errno == 19 {
      return nil
    } catch { throw error }
    do { return try DeviceInformation(decoding: buffer.span) } catch {
      throw .malformed(.getDeviceInformation, error)
    }
  }

  /// Waits until every tag has been fetched; the disk reads its partition table meanwhile.
  public func startDevice(_ device: UInt32, server process: UInt32) throws(UblkError) {
    try perform(.startDevice, device: device, value: UInt64(process))
  }

  /// Waits for requests that are out. The node's last user need not be gone.
  public func stopDevice(_ device: UInt32) throws(UblkError) {
    try perform(.stopDevice, device: device)
  }

  /// Waits for the last one that has /dev/ublkcN or the disk open.
  public func deleteDevice(_ device: UInt32) throws(UblkError) {
    try perform(.deleteDevice, device: device)
  }

  /// Waits, at most `deadline`, until the driver has seen that the old server is gone.
  public func startRecovery(_ device: UInt32, until deadline: Deadline) throws(UblkError) {
    while true {
      do {
        try perform(.startUserRecovery, device: device)
        return
      } catch .command(_, _, .busy) where !deadline.hasPassed {
        pause(milliseconds: 20)
      } catch { throw error }
    }
  }

  /// Waits until every tag has been fetched; then requests run again.
  public func endRecovery(_ device: UInt32, server process: UInt32) throws(UblkError) {
    try perform(.endUserRecovery, device: device, value: UInt64(process))
  }

  private func perform(
    _ operation: ControlOperation, device: UInt32, value: UInt64 = 0
  ) throws(UblkError) {
    var none: [UInt8] = []
    try perform(operation, device: device, value: value, buffer: &none)
  }

  /// One command from its submission to its end. After a time without an answer the ring, and with
  /// it the command, goes away with this value.
  private func perform(
    _ operation: ControlOperation, device: UInt32, value: UInt64 = 0, buffer: inout [UInt8]
  ) throws(UblkError) {
    let name: ByteString? =
      device == DeviceInformation.anyDevice ? nil : UblkDevice(index: device).node
    var command = ControlCommand(device: device, value: value)
    let head = ControlCommand.byteCount
    // SAFETY: memory of our own, the command and then the buffer, filled below to its last byte.
    // Freed at the end, unless the time ran out: the driver may then still write to it.
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: head + buffer.count, alignment: 16)
    if !buffer.isEmpty {
      command.bufferAddress = UInt64(UInt(bitPattern: memory.baseAddress)) + UInt64(head)
      command.bufferByteCount = UInt16(buffer.count)
    }
    for (index, byte) in (command.encoded + buffer).enumerated() { unsafe memory[index] = byte }
    let result: CInt?
    do {
      try unsafe ring.queueCommand(
        file.rawValue, operation: operation.rawValue,
        command: UnsafeRawBufferPointer(rebasing: memory[..<head]), data: 1)
      result = try waitForResult()
    } catch { throw .ring(error) }
    guard let result else {
      throw .unanswered(operation, device: name ?? "ublk", seconds: Self.waitSeconds)
    }
    for index in buffer.indices { buffer[index] = unsafe memory[head + index] }
    unsafe memory.deallocate()
    guard result >= 0 else {
      throw .command(operation, device: name, SystemError(errno: 0 &- result))
    }
  }

  /// Nil when the time is up.
  private func waitForResult() throws(SystemError) -> CInt? {
    let deadline = Deadline.milliseconds(Self.waitSeconds * 1000)
    var completion = clinux_completion()
    while true {
      _ = try ring.submitAndWait(nanoseconds: 1_000_000_000)
      let count = unsafe withUnsafeMutablePointer(to: &completion) {
        // SAFETY: room for one.
        unsafe ring.take(into: UnsafeMutableBufferPointer(start: $0, count: 1))
      }
      if count == 1 { return completion.result }
      if deadline.hasPassed { return nil }
    }
  }
}

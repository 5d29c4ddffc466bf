// SPDX-License-Identifier: Apache-2.0
// The process that carries the data of a ublk device: forked before the device is started, because
// starting it already reads the partition table.

import CLinux
import LinuxSystem
import NBDProtocol
import UblkDriver
import WireFormat

/// Why a device has nobody to carry its data.
public enum UblkProcessError: Error, Equatable, Sendable {
  case system(step: ByteString, SystemError)
  /// It has said why.
  case failed(ByteString)
  case silent

  var reason: String {
    switch self {
    case .system(let step, let error): "\(step.printable): \(error.text)"
    case .failed(let text): text.printable
    case .silent: "the process that is to carry the data does not begin"
    }
  }
}

enum UblkProcess {
  static let readyMilliseconds: UInt64 = 10_000
  /// For what a reconnection might need; it is meant to need nothing.
  static let reserveByteCount = 16 << 10

  /// Forks it and waits until it has fetched every tag; its number. `connections` stay open here; slots
  /// without one are connected by it.
  static func start(
    _ plan: KeeperPlan, device: UblkDevice, information: DeviceInformation,
    connections: [LiveConnection], page: UblkStatePage
  ) throws(UblkProcessError) -> UInt32 {
    try start(device, readyMilliseconds: readyMilliseconds) { log, signs, ready in
      carry(plan, device, information, connections, page, signs, log: log, ready: ready)
    }.process
  }

  /// Forks; `carry` is run in the child with a descriptor for log lines, or -1, what tells that the
  /// system goes down, and what to write to: a 0, and whatever else there is to tell, when every tag
  /// has been fetched, or the reason why not. Returns the child and what it told.
  static func start(
    _ device: UblkDevice, readyMilliseconds: UInt64,
    _ carry: (CInt, ShutdownSigns, consuming FileDescriptor) -> Void
  ) throws(UblkProcessError) -> (process: UInt32, told: [UInt8]) {
    var ends: [CInt] = [-1, -1]
    let piped = unsafe ends.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: two integers of ours, which the call fills.
      unsafe clinux_pipe(buffer.baseAddress!)
    }
    guard piped == 0 else { throw .system(step: "pipe", SystemError(errno: 0 &- piped)) }
    var log: CInt = -1
    if let file = try? FileDescriptor.open("/dev/kmsg", .writeOnly) { log = file.release() }
    let signs = ShutdownSigns.open()
    let child = clinux_fork()
    if child == 0 {
      carry(log, signs, FileDescriptor(owning: ends[1]))
      clinux_exit_now(0)
    }
    _ = clinux_close(ends[1])
    if log >= 0 { _ = clinux_close(log) }
    signs.close()
    let reading = FileDescriptor(owning: ends[0])
    guard child > 0 else { throw .system(step: "fork", SystemError(errno: 0 &- child)) }
    var told: [UInt8] = []
    do throws(UblkProcessError) {
      let deadline = Deadline.milliseconds(readyMilliseconds)
      while told.first != 0 {
        if clinux_poll(reading.rawValue, CShort(clinux_POLLIN), deadline.pollMilliseconds) <= 0 {
          if deadline.hasPassed { throw .silent }
          continue
        }
        guard (try? reading.read(into: &told, maximum: 1024)) == true else {
          throw told.isEmpty ? .silent : .failed(ByteString(told))
        }
      }
    } catch {
      _ = clinux_kill(child, 9)
      _ = clinux_wait(child)
      throw error
    }
    spareFromKillall(UInt32(child), device: device.name)
    return (UInt32(child), told)
  }

  /// In the child; returns when the device is gone.
  private static func carry(
    _ plan: KeeperPlan, _ device: UblkDevice, _ information: DeviceInformation,
    _ connections: [LiveConnection], _ page: UblkStatePage, _ signs: ShutdownSigns,
    log descriptor: CInt, ready: consuming FileDescriptor
  ) {
    var kept: [CInt] = [ready.rawValue] + signs.descriptors
    var sockets: [CInt] = []
    for connection in connections { sockets.append(connection.descriptor) }
    kept += sockets
    if descriptor >= 0 { kept.append(descriptor) }
    becomeKeeper(named: "rootlink-ublk", keeping: kept)
    var log = KeeperLog(descriptor: descriptor, isKernelLog: true)
    for failure in TaskGuard.applyAll() {
      log.warn(device.name, failure.guard.text, failure.error)
    }
    var limits = UblkLimits()
    limits.takesFUA = plan.flags.contains(.sendFUA)
    limits.silenceNanoseconds =
      min(plan.detection.ublkSilenceSeconds(plan.requestTimeoutSeconds), 86_400) * 1_000_000_000
    limits.deadNanoseconds = min(plan.deadTimeSeconds, 1 << 31) * 1_000_000_000
    let queue: UblkQueue
    do { queue = try UblkQueue(device, depth: information.queueDepth) } catch {
      return tell(ready, error.report.reason)
    }
    let ring: IORing
    do { ring = try IORing(entryCount: 256, .oneThread) } catch {
      return tell(ready, UblkError.ring(error).report.reason)
    }
    let source = UblkReconnects(plan, connections, device: device.name, log: log)
    let shutdown = ShutdownWatch(
      signs, patience: ShutdownPatience(absenceSeconds: plan.shutdownTimeSeconds),
      device: device.name,
      log: KeeperLog(descriptor: descriptor, isKernelLog: true))
    var engine = UblkEngine(
      queue, ring: ring, slotCount: Int(plan.connectionCount), source: source, page: page,
      limits: limits, shutdown: shutdown)
    do { try engine.start(sockets) } catch {
      return tell(ready, "io_uring: \(error.text)")
    }
    do { try AllocationSeal.seal(reserveByteCount: reserveByteCount) } catch {
      return tell(ready, "the seal on allocation: \(error.text)")
    }
    AllocationSeal.allocateNothing()
    var byte: UInt8 = 0
    _ = unsafe clinux_write(ready.rawValue, &byte, 1)  // SAFETY: one byte of ours.
    _ = clinux_close(ready.release())
    do { try engine.run() } catch { clinux_exit_now(1) }
    clinux_exit_now(0)
  }

  static func tell(_ ready: consuming FileDescriptor, _ reason: String) {
    do { try ready.write(Array(reason.utf8)) } catch {}
  }
}

extension KeeperLog {
  /// Before it allocates nothing.
  mutating func warn(_ device: ByteString, _ what: String, _ error: SystemError) {
    begin(.warning, device.bytes)
    add(Array("\(what) (\(error.text))".utf8))
    end()
  }
}

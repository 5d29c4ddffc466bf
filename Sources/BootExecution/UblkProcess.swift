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

/// What a process has in hand before it is forked, because it opens no file later.
struct UblkSurroundings: Sendable {
  /// For log lines, or -1.
  var log: CInt
  var signs: ShutdownSigns
  /// /dev for a process that cannot reach it by its name, or -1.
  var nodes: CInt = -1
  /// /proc, for one that opens more than that: process 1 reaches it. Or -1.
  var processes: CInt = -1

  static func open() -> UblkSurroundings {
    var log: CInt = -1
    if let file = try? FileDescriptor.open("/dev/kmsg", .writeOnly) { log = file.release() }
    return UblkSurroundings(log: log, signs: ShutdownSigns.open())
  }

  var descriptors: [CInt] { [log, nodes, processes].filter { $0 >= 0 } + signs.descriptors }
  func close() { for number in descriptors { _ = clinux_close(number) } }
}

enum UblkProcess {
  static let readyMilliseconds: UInt64 = 10_000
  /// For what a reconnection might need; it is meant to need nothing.
  static let reserveByteCount = 16 << 10

  /// Forks it and waits until it has fetched every tag; the process, and what it told. `connections`
  /// stay open here; slots without one are connected by it.
  static func start(
    _ plan: UblkPlan, _ members: [UblkMember], connections: [LiveConnection] = [],
    in given: UblkSurroundings? = nil
  ) throws(UblkProcessError) -> (process: UInt32, told: [UInt8]) {
    let started = try start(
      in: given, readyMilliseconds: readyMilliseconds + plan.openMilliseconds
    ) { surroundings, ready in
      switch plan {
      case .nbd(let plan): carry(plan, members[0], connections, surroundings, ready: ready)
      #if ROOTLINK_RDMA
        case .rnbd(let plan): RNBDProcess.carry(plan, members, surroundings, ready: ready)
      #endif
      }
    }
    if given == nil { spareFromKillall(started.process, device: members[0].device.name) }
    return started
  }

  /// Forks; `carry` is run in the child with its surroundings, which are opened here when they are not
  /// given, and with what to write to: a 0, and whatever else there is to tell, when it is ready, or
  /// the reason why not. Returns the child and what it told.
  static func start(
    in given: UblkSurroundings? = nil, readyMilliseconds: UInt64,
    _ carry: (UblkSurroundings, consuming FileDescriptor) -> Void
  ) throws(UblkProcessError) -> (process: UInt32, told: [UInt8]) {
    var ends: [CInt] = [-1, -1]
    let piped = unsafe ends.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: two integers of ours, which the call fills.
      unsafe clinux_pipe(buffer.baseAddress!)
    }
    guard piped == 0 else { throw .system(step: "pipe", SystemError(errno: 0 &- piped)) }
    let surroundings = given ?? .open()
    let child = clinux_fork()
    if child == 0 {
      carry(surroundings, FileDescriptor(owning: ends[1]))
      clinux_exit_now(0)
    }
    _ = clinux_close(ends[1])
    if given == nil { surroundings.close() }
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
    return (UInt32(child), told)
  }

  /// In the child; returns when the device is gone.
  private static func carry(
    _ plan: KeeperPlan, _ member: UblkMember, _ connections: [LiveConnection],
    _ surroundings: UblkSurroundings, ready: consuming FileDescriptor
  ) {
    let device = member.device
    var kept: [CInt] = [ready.rawValue] + surroundings.descriptors
    var sockets: [CInt] = []
    for connection in connections { sockets.append(connection.descriptor) }
    kept += sockets
    becomeKeeper(named: "rootlink-ublk", keeping: kept)
    let descriptor = surroundings.log
    var log = KeeperLog(descriptor: descriptor, isKernelLog: true)
    for failure in TaskGuard.applyAll(isInherited: surroundings.nodes >= 0) {
      log.warn(device.name, failure.guard.text, failure.error)
    }
    var limits = UblkLimits()
    limits.takesFUA = plan.flags.contains(.sendFUA)
    limits.silenceNanoseconds =
      min(plan.detection.ublkSilenceSeconds(plan.requestTimeoutSeconds), 86_400) * 1_000_000_000
    limits.deadNanoseconds = min(plan.deadTimeSeconds, 1 << 31) * 1_000_000_000
    let queue: UblkQueue
    do {
      queue = try UblkQueue(device, depth: member.information.queueDepth, in: surroundings.nodes)
    } catch { return tell(ready, error.report.reason) }
    if surroundings.nodes >= 0 { _ = clinux_close(surroundings.nodes) }
    let ring: IORing
    do { ring = try IORing(entryCount: 256, .oneThread) } catch {
      return tell(ready, UblkError.ring(error).report.reason)
    }
    let source = UblkReconnects(plan, connections, device: device.name, log: log)
    let shutdown = ShutdownWatch(
      surroundings.signs, patience: ShutdownPatience(absenceSeconds: plan.shutdownTimeSeconds),
      device: device.name,
      log: KeeperLog(descriptor: descriptor, isKernelLog: true))
    var engine = UblkEngine(
      queue, ring: ring, slotCount: Int(plan.connectionCount), source: source, page: member.page,
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

// SPDX-License-Identifier: Apache-2.0
// How a keeper comes to be: everything that it will need is opened, a process is forked that lives
// through the switch of the root and the end of the system, and only when it says that it is ready
// is the device handed to its users.

import CLinux
import LinuxSystem
import NBDDriver
import NetlinkProtocol
import WireFormat

/// Why no keeper watches over a device. The device works without.
enum KeeperError: Error, Equatable, Sendable {
  case system(step: StaticFieldName, SystemError)
  case netlink(NetlinkError)
  /// The ioctl interface cannot take a new socket.
  case noNetlink
  /// Another one does, and does not make place.
  case alreadyKept
  case notStarted

  var reason: String {
    switch self {
    case .system(let step, let error): "\(step): \(error.text)"
    case .netlink(let error): error.reason
    case .noNetlink: "the kernel takes new connections only through netlink"
    case .alreadyKept: "another keeper watches over it"
    case .notStarted: "its process ended before it was ready"
    }
  }
}

/// What a keeper holds open from its beginning.
struct KeeperDescriptors {
  var log: CInt
  var isKernelLog: Bool
  /// The kernel's log for reading, or -1.
  var kernelLog: CInt = -1
  /// Listens for questions of `rootlink status`.
  var control: CInt
  /// Joined to the group of the nbd family.
  var events: CInt
  /// For requests to the kernel.
  var kernel: CInt
  /// What the device has done, /sys/block/nbdN/stat, or -1.
  var statistics: CInt
  var family: UInt16
  var signs = ShutdownSigns()

  var all: [CInt] {
    [log, kernelLog, control, events, kernel, statistics].filter { $0 >= 0 } + signs.descriptors
  }
  func close() { for number in all { _ = clinux_close(number) } }
}

extension KeeperPlan {
  var kernelDeadTimeSeconds: UInt64 {
    deadTimeSeconds == 0 ? KeeperTimes.foreverSeconds : deadTimeSeconds
  }
}

enum KeeperProcess {
  static let readyMilliseconds: UInt64 = 10_000
  static let reserveByteCount = 64 << 10

  /// Forks the keeper of a device and waits until it watches. `connections` stay open here.
  static func start(
    _ plan: KeeperPlan, connections: [LiveConnection]
  ) throws(KeeperError) {
    let descriptors = try open(plan)
    var ends: [CInt] = [-1, -1]
    let piped = unsafe ends.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: two integers of ours, which the call fills.
      unsafe clinux_pipe(buffer.baseAddress!)
    }
    guard piped == 0 else {
      descriptors.close()
      throw .system(step: "pipe", SystemError(errno: 0 &- piped))
    }
    let child = clinux_fork()
    if child == 0 {
      keep(plan, connections, descriptors, ready: ends[1])
      clinux_exit_now(0)
    }
    _ = clinux_close(ends[1])
    descriptors.close()
    defer { _ = clinux_close(ends[0]) }
    guard child > 0 else { throw .system(step: "fork", SystemError(errno: 0 &- child)) }
    var told: UInt8 = 0
    let ready = clinux_poll(ends[0], CShort(clinux_POLLIN), CInt(readyMilliseconds))
    // SAFETY: one byte of ours.
    guard ready > 0, unsafe clinux_read(ends[0], &told, 1) == 1 else {
      _ = clinux_kill(child, 9)
      _ = clinux_wait(child)
      throw .notStarted
    }
    spareFromKillall(UInt32(child), device: NBDDevice(index: plan.deviceIndex).name)
  }

  /// In the child; returns when the device is detached.
  private static func keep(
    _ plan: KeeperPlan, _ connections: [LiveConnection],
    _ descriptors: KeeperDescriptors, ready: CInt
  ) {
    var kept = descriptors.all
    kept.append(ready)
    for connection in connections { kept.append(connection.descriptor) }
    becomeKeeper(named: "rootlink-keeper", keeping: kept)
    var keeper = Keeper(plan, connections: connections, descriptors: descriptors)
    for failure in TaskGuard.applyAll() { keeper.warn(failure.guard.text, failure.error) }
    do { try AllocationSeal.seal(reserveByteCount: reserveByteCount) } catch {
      keeper.warn("the reserve of memory is missing", error)
    }
    // Here, not where the name was taken: whoever asks learns the process that listens.
    _ = clinux_listen(descriptors.control, 8)
    AllocationSeal.allocateNothing()
    var byte: UInt8 = 1
    _ = unsafe clinux_write(ready, &byte, 1)  // SAFETY: one byte of ours.
    _ = clinux_close(ready)
    keeper.run()
  }

  private static func open(_ plan: KeeperPlan) throws(KeeperError) -> KeeperDescriptors {
    let device = NBDDevice(index: plan.deviceIndex)
    var isKernelLog = true
    var log: CInt = -1
    if let file = try? FileDescriptor.open("/dev/kmsg", .writeOnly) { log = file.release() }
    if log < 0 { isKernelLog = false }
    var descriptors = KeeperDescriptors(
      log: log, isKernelLog: isKernelLog, control: -1, events: -1, kernel: -1,
      statistics: -1, family: 0)
    if let file = try? FileDescriptor.open("/dev/kmsg", [.readOnly, .nonBlocking]) {
      descriptors.kernelLog = file.release()
    }
    if let file = try? FileDescriptor.open(device.statisticsPath) {
      descriptors.statistics = file.release()
    }
    do throws(KeeperError) {
      let deadline = Deadline.milliseconds(KeeperTimes.netlinkMilliseconds)
      do throws(NetlinkError) {
        guard let family = try NBDFamilySocket.open(until: deadline) else {
          throw NetlinkError.noAnswer
        }
        descriptors.family = family.family.id
        descriptors.events = try family.openEvents()
      } catch { throw .netlink(error) }
      let kernel = clinux_netlink_open(CInt(clinux_NETLINK_GENERIC), 0)
      guard kernel >= 0 else {
        throw .system(step: "netlink", SystemError(errno: 0 &- kernel))
      }
      descriptors.kernel = kernel
      descriptors.control = try listen(device)
      descriptors.signs = ShutdownSigns.open()
      return descriptors
    } catch {
      descriptors.close()
      throw error
    }
  }

  private static func listen(_ device: NBDDevice) throws(KeeperError) -> CInt {
    guard let address = DeviceKeeper.address(of: device) else { throw .alreadyKept }
    let number = clinux_socket(CInt(clinux_AF_UNIX), CInt(clinux_SOCK_STREAM), 0)
    guard number >= 0 else { throw .system(step: "socket", SystemError(errno: 0 &- number)) }
    var raw = address.raw
    var bound = unsafe clinux_bind(number, &raw)  // SAFETY: an address of ours, copied.
    if bound == -98 {  // EADDRINUSE
      _ = DeviceKeeper.ask(device, .makePlace)
      let deadline = Deadline.milliseconds(2000)
      while bound == -98, !deadline.hasPassed {
        pause(milliseconds: 20)
        bound = unsafe clinux_bind(number, &raw)  // SAFETY: as above.
      }
    }
    guard bound == 0 else {
      _ = clinux_close(number)
      throw .alreadyKept
    }
    return number
  }
}

// SPDX-License-Identifier: Apache-2.0
// The ioctl interface, for kernels whose nbd driver has no netlink family. The device lives as
// long as a process is inside NBD_DO_IT: a child that has let go of everything else.

import CLinux
import LinuxSystem
import WireFormat

/// Requests on an open device. Source: Linux `include/uapi/linux/nbd.h`.
enum ControlRequest {
  static let setSocket: UInt = 0xab00
  static let setBlockSize: UInt = 0xab01
  static let setSize: UInt = 0xab02
  static let doIt: UInt = 0xab03
  static let clearSocket: UInt = 0xab04
  static let disconnect: UInt = 0xab08
  static let setTimeout: UInt = 0xab09
  static let setFlags: UInt = 0xab0a
}

extension NBDDevice {
  static let startMilliseconds: UInt64 = 5000

  static func attachByControl(
    _ request: AttachRequest, _ geometry: DeviceGeometry
  ) throws(AttachError) -> Attachment {
    let device: NBDDevice
    switch request.device {
    case .index(let index):
      device = NBDDevice(index: index)
      guard device.exists else {
        throw moduleIsLoaded ? .noSuchDevice(device.node) : .driverMissing
      }
    case .anyFree:
      guard moduleIsLoaded else { throw .driverMissing }
      device = try firstFree()
    }
    try device.makeNode()
    let file = try device.openForControl()
    func call(_ name: StaticFieldName, _ number: UInt, _ value: UInt) throws(AttachError) {
      let result = clinux_ioctl_value(file.rawValue, number, value)
      if result == -SystemError.busy.errno {
        throw .inUse(
          device: device.node, owner: device.owner,
          users: device.openUsers(maximum: usersMaximum))
      }
      do { _ = try checked(result) } catch {
        throw .ioctl(device: device.node, step: name, error)
      }
    }
    do {
      for socket in request.sockets {
        try call("NBD_SET_SOCK", ControlRequest.setSocket, UInt(UInt32(bitPattern: socket)))
      }
      try call("NBD_SET_BLKSIZE", ControlRequest.setBlockSize, UInt(geometry.blockByteCount))
      try call("NBD_SET_SIZE", ControlRequest.setSize, UInt(geometry.sizeByteCount))
      try call("NBD_SET_FLAGS", ControlRequest.setFlags, UInt(request.transmissionFlags))
      try call("NBD_SET_TIMEOUT", ControlRequest.setTimeout, UInt(request.timeoutSeconds))
      try device.limitRequests(geometry)
      try device.startHolder(file)
    } catch {
      if case .inUse = error {
      } else {
        _ = clinux_ioctl_value(file.rawValue, ControlRequest.clearSocket, 0)
      }
      throw error
    }
    return Attachment(device: device, interface: .ioctl, geometry: geometry)
  }

  private static func firstFree() throws(AttachError) -> NBDDevice {
    for device in all() where !device.isAttached && device.stackedUsers.isEmpty {
      return device
    }
    throw .noFreeDevice
  }

  func openForControl() throws(AttachError) -> FileDescriptor {
    do { return try FileDescriptor.open(node, .readWrite) } catch {
      throw .ioctl(device: node, step: "open", error)
    }
  }

  /// Forks the process that stays, and waits until the kernel shows the device as attached.
  private func startHolder(_ file: borrowing FileDescriptor) throws(AttachError) {
    var ends: [CInt] = [-1, -1]
    do {
      _ = try checked(
        unsafe ends.withUnsafeMutableBufferPointer { buffer in
          // SAFETY: two integers of ours, which the call fills.
          unsafe clinux_pipe(buffer.baseAddress!)
        })
    } catch { throw .ioctl(device: node, step: "pipe", error) }
    let reading = FileDescriptor(owning: ends[0])
    // Not owned by a value: the compiler may end one before the child's last use of the number.
    let writing = ends[1]
    let child = clinux_fork()
    if child == 0 {
      // From here on nothing but shims: the child never returns.
      becomeKeeper(
        named: "rootlink-nbd", keeping: [min(file.rawValue, writing), max(file.rawValue, writing)])
      let result = clinux_ioctl_value(file.rawValue, ControlRequest.doIt, 0)
      _ = clinux_ioctl_value(file.rawValue, ControlRequest.clearSocket, 0)
      var errno = UInt8(truncatingIfNeeded: 0 &- result)
      _ = unsafe clinux_write(writing, &errno, 1)  // SAFETY: one byte of ours.
      clinux_exit_now(0)
    }
    _ = clinux_close(writing)
    do { _ = try checked(child) } catch { throw .ioctl(device: node, step: "fork", error) }

    let deadline = Deadline.milliseconds(Self.startMilliseconds)
    // The size comes last: before it an open would find an empty disk without partitions.
    while !isAttached || sizeByteCount == 0 {
      let ready = clinux_poll(reading.rawValue, CShort(clinux_POLLIN), 2)
      if ready > 0 {
        var told: [UInt8] = []
        do { _ = try reading.read(into: &told, maximum: 1) } catch {}
        _ = clinux_kill(child, 9)  // It has told its end, or cannot tell any more.
        _ = clinux_wait(child)
        let errno = CInt(told.first ?? 0)
        throw .ioctl(
          device: node, step: "NBD_DO_IT",
          errno == 0 ? SystemError(errno: 107) : SystemError(errno: errno))
      }
      if deadline.hasPassed { throw .ioctl(device: node, step: "NBD_DO_IT", .timedOut) }
    }
  }
}

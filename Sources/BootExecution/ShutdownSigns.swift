// SPDX-License-Identifier: Apache-2.0
// How a process that opens no file any more learns that the system goes down.
//
// - systemd, from the first moment: FIFOs in /run, which socket units of ours have it hold open. The
//   units conflict with shutdown.target, so it lets go of them before anything else, and whoever has
//   the other end sees that. No program is started for it: the root may be unreadable by then.
// - any first process that has become a program of the end: the name of process 1, read through a
//   descriptor that was opened beforehand.
// - other inits, when a script of theirs says so: SIGPWR, which stays pending.

import CLinux
import LinuxSystem
import WireFormat

struct ShutdownSigns: Sendable {
  static let directory: ByteString = "/run/rootlink"
  static let unitDirectory: ByteString = "/run/systemd/system"

  /// FIFOs that systemd holds open until it shuts down, until it does so to restart, and until it has
  /// nothing left to do but to become systemd-shutdown. -1 where there is none.
  private(set) var shutdown: CInt = -1
  private(set) var restart: CInt = -1
  private(set) var system: CInt = -1
  private var firstName: CInt = -1
  private var firstWords: CInt = -1

  var descriptors: [CInt] { [shutdown, restart, system, firstName, firstWords].filter { $0 >= 0 } }
  func close() { for number in descriptors { _ = clinux_close(number) } }

  /// Opens what there is; in an initramfs it also leaves the units for the systemd of the root.
  static func open() -> ShutdownSigns {
    try? makeDirectories(directory)
    if Log.rootIsInitramfs { leaveUnits() }
    var signs = ShutdownSigns()
    signs.shutdown = fifo("shutdown")
    signs.restart = fifo("restart")
    signs.system = fifo("system")
    signs.firstName = descriptor("/proc/1/comm")
    signs.firstWords = descriptor("/proc/1/cmdline")
    return signs
  }

  private static func fifo(_ name: ByteString) -> CInt {
    let path = directory + "/" + name
    _ = try? unsafe withCString(path) { unsafe clinux_mkfifo($0, 0o600) }  // A terminated copy.
    return descriptor(path)
  }

  private static func descriptor(_ path: ByteString) -> CInt {
    guard let file = try? FileDescriptor.open(path, [.readOnly, .nonBlocking]) else { return -1 }
    return file.release()
  }

  // MARK: - The signs

  /// Neither blocks nor allocates, whatever the device does.
  var isGoingDown: Bool {
    isLetGo(shutdown) || clinux_signal_is_pending(CInt(clinux_SIGPWR)) != 0 || hasEnder
  }

  /// As long as `isGoingDown` is new.
  var isRestart: Bool { isLetGo(restart) }

  /// systemd has ended everything, and could not start the program that would end the machine.
  var isAbandoned: Bool { isLetGo(system) && !hasEnder }

  /// The first process has become the program that ends the machine.
  private var hasEnder: Bool {
    withBytes(of: firstName) { name in
      // As the kernel cuts it, and as dracut's script is called.
      isEqual(name, "systemd-shutdow\n") || isEqual(name, "shutdown\n")
    }
  }

  /// Only when requests wait no longer: the kernel may have to fetch the words from a swap device.
  func end(isRestart: Bool) -> MachineEnd {
    withBytes(of: firstWords) { MachineEnd(firstProcess: $0, isRestart: isRestart) }
  }

  /// Somebody had it open for writing, and nobody has now.
  private func isLetGo(_ fifo: CInt) -> Bool {
    fifo >= 0 && clinux_poll(fifo, 0, 0) > 0
  }

  private func withBytes<Result>(of file: CInt, _ body: (Span<UInt8>) -> Result) -> Result {
    var buffer = InlineArray<128, UInt8>(repeating: 0)
    var count = 0
    if file >= 0 {
      var bytes = buffer.mutableSpan
      count = unsafe bytes.withUnsafeMutableBufferPointer { raw in
        // SAFETY: the array's own storage.
        unsafe Int(clinux_pread(file, raw.baseAddress!, raw.count, 0))
      }
    }
    return body(buffer.span.extracting(first: max(0, count)))
  }

  // MARK: - What the root finds

  /// Lines that a systemd of the root reads when it starts.
  static var units: [(path: ByteString, text: ByteString)] {
    [
      // Let go of after the second, so that it is known which of the two it is.
      socket("shutdown", "Conflicts=shutdown.target\nBefore=rootlink-restart.socket\n"),
      socket("restart", "Conflicts=reboot.target kexec.target\n"),
      socket("system", ""),
      (
        unitDirectory + "/rootlink-told.service",
        // A socket unit wants a service. Nobody writes to the FIFOs, so it is never started.
        head + "Description=Nothing, for the sockets of this name\n"
          + "[Service]\nType=oneshot\nExecStart=/bin/true\n"
      ),
    ]
  }

  private static let head: ByteString =
    "# Written by rootlink in the initramfs.\n[Unit]\nDocumentation=man:rootlink(8)\n"
    + "DefaultDependencies=no\n"

  private static func socket(
    _ name: ByteString, _ end: ByteString
  ) -> (path: ByteString, text: ByteString) {
    (
      unitDirectory + "/rootlink-" + name + ".socket",
      head + "Description=Tell who keeps the root device: " + name + "\n"
        + "IgnoreOnIsolate=yes\n" + end
        // Named, so that they are in memory when they are needed.
        + "Before=shutdown.target poweroff.target reboot.target halt.target kexec.target\n"
        + "[Socket]\nListenFIFO=" + directory + "/" + name
        + "\nSocketMode=0600\nService=rootlink-told.service\n"
    )
  }

  private static func leaveUnits() {
    let wants = unitDirectory + "/sysinit.target.wants"
    // Without them the end is noticed later.
    try? makeDirectories(wants)
    for unit in units { try? replaceFile(unit.path, with: unit.text) }
    for name in ["shutdown", "restart", "system"] as [ByteString] {
      let socket = "/rootlink-" + name + ".socket"
      try? replaceLink(wants + socket, target: ".." + socket)
    }
  }
}

/// sysvinit's last killing spree passes by the processes that are named here. Source: Debian's
/// initscripts, /etc/init.d/sendsigs.
func spareFromKillall(_ process: UInt32, device name: ByteString) {
  let directory: ByteString = "/run/sendsigs.omit.d"
  guard Log.rootIsInitramfs || fileExists(directory) else { return }
  try? makeDirectories(directory)
  try? replaceFile(directory + "/rootlink-" + name, with: ByteString("\(process)\n"))
}

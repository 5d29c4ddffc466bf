// SPDX-License-Identifier: Apache-2.0
// What a process does to itself before a block device depends on it. The kernel may ask the device
// to write so that memory becomes free: a process in that path that waits for memory waits for
// itself. And nothing may end it while the device is in use.
//
//   becomeKeeper ──► TaskGuard, all of them ──► open, connect, allocate ──► sealAllocation
//                                                   ──► the device is there: nothing of that any more

import CLinux
import WireFormat

/// Leaves the session and the directory that it was started in, begins argv[0] with `@` (systemd
/// spares such a process at shutdown and when the root is switched), ignores every signal that does
/// not mean a fault of its own (SIGPWR stays pending, for `ShutdownSigns`), closes every
/// descriptor but `kept`, and puts /dev/null in place of the standard streams. For the child of a
/// fork, or a program's own beginning. `name` is what ps(1) shows, at most 15 bytes.
public func becomeKeeper(named name: StaticString, keeping kept: [CInt]) {
  let sorted = kept.ordered(by: <)
  unsafe sorted.withUnsafeBufferPointer { buffer in
    // SAFETY: `count` integers, alive during the call (the call reads none of them when there are
    // none); a static text is NUL-terminated.
    unsafe name.utf8Start.withMemoryRebound(to: CChar.self, capacity: name.utf8CodeUnitCount) {
      unsafe clinux_become_keeper($0, buffer.baseAddress, CInt(buffer.count))
    }
  }
}

/// One protection of a process that a device depends on. Each can be read back from /proc.
public enum TaskGuard: CaseIterable, Sendable {
  /// Every page, present and to come, is in memory: `VmLck` in /proc/PID/status.
  case memory
  /// Its allocations neither wait for I/O nor are slowed down like a writer's: bits 0x80000
  /// and 0x100000 of the flags, the ninth field of /proc/PID/stat. Tasks that it makes inherit it.
  case ioFlusher
  /// The kernel's killer in a shortage of memory passes it by: /proc/PID/oom_score_adj is -1000.
  case oomKiller
  /// In the root control group no limit holds, and no unit's end reaches it: /proc/PID/cgroup is
  /// `0::/`. Nothing to do where there are no version-2 control groups.
  case controlGroup
  /// A real-time task, at the lowest priority: rt_priority and policy, the fields 40 and 41 of
  /// /proc/PID/stat, are 1 and 2. Its allocations may take what the kernel keeps back for such
  /// tasks, and it runs while others look for memory: without it a machine that swaps to a ublk
  /// device stands still. A thread that carries data lays it off while it waits, with
  /// `submitAndWaitOrdinarily(on:nanoseconds:)`. Source: `gfp_to_alloc_flags()` in Linux
  /// `mm/page_alloc.c`.
  case realTime

  /// To this process; `ioFlusher` and `realTime` to this thread and those that it makes later.
  /// Throws what the system says, EPERM and the like, when there is no right to it.
  public func apply() throws(SystemError) {
    switch self {
    case .memory: _ = try checked(clinux_lock_memory())
    case .ioFlusher: _ = try checked(clinux_set_io_flusher())
    case .oomKiller: try writeExistingFile("/proc/self/oom_score_adj", "-1000")
    case .realTime: _ = try checked(clinux_set_real_time())
    case .controlGroup:
      guard let place = Self.controlGroupPlace else { return }
      try writeExistingFile(place + "/cgroup.procs", "0")
    }
  }

  /// Applies all; what failed is for the log: a process without one of them still serves.
  /// `isInherited`: whoever forked it has them, and only the locks on memory are not passed on.
  public static func applyAll(
    isInherited: Bool = false
  ) -> [(guard: TaskGuard, error: SystemError)] {
    var failures: [(guard: TaskGuard, error: SystemError)] = []
    for one in allCases where !isInherited || one == .memory {
      do { try one.apply() } catch { failures.append((one, error)) }
    }
    return failures
  }

  /// `IORing.submitAndWait(nanoseconds:)` for a thread that has `realTime`, which it has again
  /// afterwards. If it woke up as a real-time task, it would interrupt on a single processor whoever
  /// has just made a request and is about to make more: one after the other would go out instead
  /// of all in one call.
  public static func submitAndWaitOrdinarily(
    on ring: borrowing IORing, nanoseconds: UInt64?
  ) throws(SystemError) {
    _ = clinux_set_ordinary()
    defer { _ = clinux_set_real_time() }
    _ = try ring.submitAndWait(nanoseconds: nanoseconds)
  }

  /// What is missing when it could not be applied.
  public var text: String {
    switch self {
    case .memory: "memory is not locked"
    case .ioFlusher: "allocations may wait for the device"
    case .oomKiller: "a shortage of memory may kill it"
    case .realTime: "it may find no memory in a shortage"
    case .controlGroup: "it stays in the control group of who started it"
    }
  }

  /// Where version-2 control groups are mounted.
  private static var controlGroupPlace: ByteString? {
    guard let table = try? readFile("/proc/self/mountinfo", limit: 1 << 20) else { return nil }
    for line in table.fields(separatedBy: 0x0a) {
      // Source: proc(5): the mount point is the fifth field, the type follows a field `-`.
      let fields = line.fields(separatedBy: 0x20)
      guard fields.count > 6 else { continue }
      for position in 6..<(fields.count - 1) where fields[position] == "-" {
        if fields[position + 1] == "cgroup2" { return fields[4] }
      }
    }
    return nil
  }
}

/// For a program that leaves a process behind, started from a file on a file system that must be
/// unmounted one day: begins it anew from a copy in memory. Who looks for processes of the old root at
/// the end (dracut does, and kills them) finds none, and the file can be replaced or vanish. Only the
/// static client can do without its file's directory. Goes on as it is where it cannot be done.
public func runFromMemory() {
  if AllocationSeal.isGuarded { _ = clinux_run_from_memory() }
}

/// Allocation after the device is there. In the static client every allocation passes here; in the
/// ordinary build nothing is counted.
public enum AllocationSeal {
  /// What was allocated since the seal.
  public struct Counts: Equatable, Sendable {
    /// By all threads.
    public var all: UInt64
    /// What the reserve could not give: it came from the kernel.
    public var fromSystem: UInt64
    /// By threads that had said `allocateNothing`.
    public var inBareThreads: UInt64
    /// Bytes, the most at any time.
    public var reserveUsed: UInt64
  }

  /// Set to anything, it makes `seal` strict.
  public static let strictnessVariable = "ROOTLINK_STRICT"

  /// Whether this is the static client; elsewhere `counts` stays at 0.
  public static var isGuarded: Bool { clinux_allocation_is_guarded() != 0 }

  /// From here on this process takes no memory from the kernel: what threads like the one that
  /// reconnects allocate comes from a reserve that is made and locked now. Once a process, after
  /// its last open file; threads made before are meant, too. With ROOTLINK_STRICT in the
  /// environment, as tests have it, the first allocation beyond the reserve or in a bare thread
  /// ends the process with SIGABRT, and the first file opened with SIGSYS.
  public static func seal(reserveByteCount: Int) throws(SystemError) {
    _ = try checked(clinux_seal_allocation(reserveByteCount))
    // SAFETY: a static text is NUL-terminated, and nobody changes the environment.
    if unsafe clinux_environment(strictnessVariable) != nil {
      _ = try checked(clinux_seal_strictly())
    }
  }

  /// This thread carries data: from here on it allocates nothing at all.
  public static func allocateNothing() { clinux_bare_task() }

  /// From the seal until now.
  public static var counts: Counts {
    var raw = clinux_allocation_counts()
    unsafe clinux_read_allocation_counts(&raw)  // SAFETY: a structure of ours that the call fills.
    return Counts(
      all: raw.after_seal, fromSystem: raw.from_system, inBareThreads: raw.in_bare_task,
      reserveUsed: raw.reserve_used)
  }
}

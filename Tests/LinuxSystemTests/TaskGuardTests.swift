// SPDX-License-Identifier: Apache-2.0
// Each protection is read back from /proc, from outside.

import Foundation
import TestSupport
import Testing

@Suite("A process that a root device depends on")
struct TaskGuardTests {
  static func text(_ path: String) throws -> String {
    // A decoder that repairs: argv may hold anything.
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    return String(decoding: data, as: UTF8.self)  // swift-format-ignore
  }

  @Test("shows every protection in /proc, or says which it lacks, and survives signals")
  func protections() throws {
    let probe = try RunningProcess(builtProgram("TaskGuardProbe"))
    try probe.waitForLine(containing: "ready", on: .standardOutput)
    // Without CAP_SYS_RESOURCE, as in many containers, two of them are refused. A guest has it all.
    let report = probe.standardOutput
    let place = "/proc/\(probe.processIdentifier)"

    let status = try Self.text("\(place)/status")
    let locked = try #require(status.firstMatch(of: /VmLck:\s+(\d+) kB/)).1
    let resident = try #require(status.firstMatch(of: /VmRSS:\s+(\d+) kB/)).1
    // Some shared pages count as resident and cannot be locked.
    #expect(
      try #require(Int(locked)) * 2 > #require(Int(resident))
        || report.contains("memory is not locked"))

    let stat = try Self.text("\(place)/stat").split(separator: ") ").last ?? ""
    let fields = stat.split(separator: " ")
    let flags = try #require(UInt64(fields[6]))  // The ninth of all.
    // Source: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE in Linux `include/linux/sched.h`.
    #expect(
      (flags & 0x18_0000 == 0x18_0000) != report.contains("allocations may wait for the device"))
    #expect(
      (fields[37] == "1" && fields[38] == "2")
        != report.contains("it may find no memory in a shortage"))
    #expect(
      (try Self.text("\(place)/oom_score_adj") == "-1000\n")
        != report.contains("a shortage of memory may kill it"))
    #expect(try Self.text("\(place)/cmdline").hasPrefix("@"))
    #expect(try Self.text("\(place)/comm") == "guard-probe\n")
    let group = try Self.text("\(place)/cgroup").split(separator: "\n").last { $0.hasPrefix("0::") }
    #expect(group == nil || group == "0::/" || report.contains("it stays in the control group"))
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "\(place)/cwd") == "/")
    for number in [0, 2] {
      let target = try FileManager.default.destinationOfSymbolicLink(
        atPath: "\(place)/fd/\(number)")
      #expect(target == "/dev/null")
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(place)/fd").count == 3)

    let ignored = try #require(status.firstMatch(of: /SigIgn:\s+([0-9a-f]+)/)).1
    let mask = try #require(UInt64(ignored, radix: 16))
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGUSR1] {
      #expect(mask & 1 << UInt64(signal - 1) != 0, "signal \(signal)")
      kill(probe.processIdentifier, signal)
    }
    #expect(probe.exitStatus == nil)
    kill(probe.processIdentifier, SIGKILL)
    try probe.waitForExit()
  }
}

/// The reserve of the static client, in a program of its own: the linker's `--wrap` is part of it.
@Suite("The seal on allocation", .enabled(if: programsAreThere("cc"), "there is no cc"))
struct AllocationSealTests {
  let directory: TemporaryDirectory
  let program: String

  init() throws {
    directory = try TemporaryDirectory()
    program = directory.path("seal")
    let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Sources/CLinux")
    let wrapped = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "free"]
    let built = try run(
      "cc",
      [
        "-D_GNU_SOURCE", "-DCLINUX_GUARDS_ALLOCATION", "-O1", "-Wall", "-Wextra", "-Werror",
        "-o", program, "-I", sources.appending(path: "include").path,
        sources.appending(path: "clinux_guard.c").path, sources.appending(path: "clinux.c").path,
        try directory.file("main.c", Array(Self.source.utf8)),
      ] + wrapped.map { "-Wl,--wrap=\($0)" })
    #expect(built.exitStatus == 0, "\(built.standardError)")
  }

  /// `random SEED`: 200 000 random steps, every block checked; then one of the ways to break the
  /// seal.
  static let source = """
    #include "CLinux.h"
    static uint64_t state;
    static uint64_t next(void) { state ^= state << 13; state ^= state >> 7; return state ^= state << 17; }
    static struct { unsigned char *at; size_t count; unsigned char fill; } held[32];
    static void check(unsigned k) {
      for (size_t i = 0; i < held[k].count; i++)
        if (held[k].at[i] != held[k].fill) { puts("a block was overwritten"); _exit(9); }
    }
    int main(int count, char **words) {
      const char *way = count > 1 ? words[1] : "";
      state = count > 2 ? strtoull(words[2], 0, 10) | 1 : 1;
      void *early = malloc(1000);
      if (clinux_seal_allocation(1 << 20) < 0) return 8;
      if (getenv("STRICT") && clinux_seal_strictly() < 0) return 7;
      if (!strcmp(way, "random"))
        for (int step = 0; step < 200000; step++) {
          unsigned k = next() % 32;
          check(k);
          size_t wanted = next() % 2000;
          size_t alignment = (size_t)16 << next() % 5;
          unsigned kind = next() % 5;
          if (kind == 3) {
            held[k].at = realloc(held[k].at, wanted + 1);
            if (wanted + 1 < held[k].count) held[k].count = wanted + 1;
            check(k);
          } else {
            free(held[k].at);
            held[k].at = kind == 0 ? malloc(wanted) : kind == 1 ? calloc(1, wanted)
                         : kind == 2 ? aligned_alloc(alignment, wanted) : NULL;
            if (kind == 2 && (uintptr_t)held[k].at % alignment) return 6;
            held[k].fill = 0, held[k].count = wanted;
            if (kind == 1) check(k);
            if (kind == 4 && posix_memalign((void **)&held[k].at, alignment, wanted)) return 5;
          }
          held[k].count = wanted;
          held[k].fill = (unsigned char)next();
          memset(held[k].at, held[k].fill, wanted);
        }
      if (!strcmp(way, "bare")) { clinux_bare_task(); early = malloc(1); }
      if (!strcmp(way, "much")) early = malloc(2 << 20);
      if (!strcmp(way, "open")) early = (void *)(intptr_t)open("/dev/null", O_RDONLY);
      struct clinux_allocation_counts counts;
      clinux_read_allocation_counts(&counts);
      char line[99];
      int n = snprintf(line, 99, "%d %d %d\\n", counts.after_seal > 0, (int)counts.from_system,
                       (int)counts.in_bare_task);
      return write(1, line, n) < 0 || early == (void *)-1;
    }
    """

  @Test("hands out blocks that do not overlap, and asks the kernel for none")
  func reserve() throws {
    for seed in 1...3 {
      let finished = try run(program, ["random", "\(seed)"])
      #expect(finished.standardOutput == "1 0 0\n", "seed \(seed): \(finished)")
    }
  }

  @Test(
    "counts what breaks it, and ends a strict process",
    arguments: [
      (way: "none", counted: "0 0 0\n", signal: nil),
      ("bare", "1 0 1\n", SIGABRT), ("much", "1 1 0\n", SIGABRT), ("open", "0 0 0\n", SIGSYS),
    ])
  func breaking(way: String, counted: String, signal: Int32?) throws {
    #expect(try run(program, [way]).standardOutput == counted)
    let strict = try RunningProcess(program, [way], environment: ["STRICT": "1"])
    try strict.waitForExit()
    #expect(strict.exitStatus == signal.map { 256 + $0 } ?? 0)
  }
}

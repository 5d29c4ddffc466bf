// SPDX-License-Identifier: Apache-2.0
// What the boot tests have at hand: the scripts below lab/, which build roots, disks and initramfs
// images; a limit on how many guests run at once; and a word on what is missing.

import Foundation

enum BootLab {
  static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let scripts = repository.appending(path: "Tests/BootTests/lab")
  static let logs = repository.appending(path: "out/logs")
  static let client = repository.appending(path: "out/rootlink")
  /// What the hooks bring.
  static let smallClient = repository.appending(path: "out/rootlink-attach")
  static let server = repository.appending(path: "out/rootlinkd")

  /// Two guests at a time: TCG takes one processor each.
  static let slots = Slots(count: 2)
  static let results = ScriptResults()

  /// Why no guest can be booted here, nil if all is there.
  static let missing: String? = {
    guard geteuid() == 0 else { return "root's rights: roots are built with chroot and mknod" }
    let tools = [
      "qemu-system-x86_64", "mmdebstrap", "mkfs.ext4", "debugfs", "e2fsck", "sfdisk", "depmod",
      "nsenter", "unshare", "ip", "dnsmasq",
    ]
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    for tool in tools
    where !directories.contains(where: {
      FileManager.default.isExecutableFile(atPath: "\($0)/\(tool)")
    }) {
      return "\(tool); Tests/debian-packages.txt names the packages"
    }
    for program in [client, server]
    where !FileManager.default.isExecutableFile(atPath: program.path) {
      return "\(program.path); run make"
    }
    return nil
  }()

  private static func isSet(_ name: String) -> Bool {
    ProcessInfo.processInfo.environment[name] == "1"
  }

  /// Minutes of emulation are not for every `swift test`: they want to be asked for. With
  /// ROOTLINK_REQUIRE_ALL nothing is skipped, and what is missing fails the tests.
  static let isEnabled =
    isSet("ROOTLINK_REQUIRE_ALL") || (isSet("ROOTLINK_BOOT_TESTS") && missing == nil)

  static let reason =
    missing.map { "boot tests lack \($0)" }
    ?? "boot tests take minutes: make test runs them, or ROOTLINK_BOOT_TESTS=1 swift test"
}

/// So many may do something at once; the others wait in turn.
actor Slots {
  private var free: Int
  private var waiting: [CheckedContinuation<Void, Never>] = []

  init(count: Int) { free = count }

  func with<Result: Sendable>(
    _ body: @Sendable () async throws -> Result
  ) async throws -> Result {
    if free > 0 { free -= 1 } else { await withCheckedContinuation { waiting.append($0) } }
    defer { if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() } }
    return try await body()
  }
}

/// The lab's scripts, each run once with the same arguments.
actor ScriptResults {
  private var results: [[String]: Task<String, any Error>] = [:]

  /// The last line of its output: the path of what it made.
  func path(_ script: String, _ arguments: String...) async throws -> String {
    let key = [script] + arguments
    if let known = results[key] { return try await known.value }
    let task = Task {
      let command = [BootLab.scripts.appending(path: script).path] + arguments
      let text = try await HostProcess.run(command, withinSeconds: 400)
      return text.split(separator: "\n").last.map(String.init) ?? ""
    }
    results[key] = task
    return try await task.value
  }
}

// SPDX-License-Identifier: Apache-2.0
// The harness must see a failure. What it would say of a boot that went wrong is tried on made-up
// consoles, and once on a guest whose root is not a file system.

import Foundation
import Testing

@Suite("The boot harness")
struct CanaryTests {
  static let good = BootOutcome(
    name: "canary", nonce: "n1",
    console: "[ 9.0] Run /init\nboot-check: passed n1\n[ 80.0] reboot: Power down\n", status: 0,
    servers: [], marker: "n1", fileSystemIsClean: true)

  @Test("has no complaint about a boot to the end")
  func acceptsAGoodBoot() {
    #expect(Self.good.problems == [])
  }

  static let damages: [(String, @Sendable (BootOutcome) -> BootOutcome)] = [
    ("the check did not pass", { $0.with(console: "[ 80.0] reboot: Power down\n") }),
    ("it did not power off", { $0.with(console: "boot-check: passed n1\n") }),
    (
      "PROBLEM: the root is on /dev/sda",
      { $0.with(console: "boot-check: PROBLEM: the root is on /dev/sda\n" + $0.console) }
    ),
    ("the marker on the disk", { $0.with(marker: "n2") }),
    ("QEMU ended with status 124", { $0.with(status: 124) }),
    ("e2fsck", { $0.with(clean: false) }),
    (
      "Buffer I/O error",
      { $0.with(console: $0.console + "[ 80.1] Buffer I/O error on dev nbd0, logical block 0\n") }
    ),
    (
      "Connection timed out",
      { $0.with(console: $0.console + "[ 70.1] block nbd0: Connection timed out\n") }
    ),
  ]

  @Test("complains about each thing that can go wrong", arguments: damages.indices)
  func complains(index: Int) {
    let (sentence, damage) = Self.damages[index]
    let problems = damage(Self.good).problems
    #expect(problems.contains { $0.contains(sentence) }, "\(problems)")
  }

  @Test("reads a console line by line, as a serial line ends them")
  func lines() async throws {
    let output = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).log")
    defer { try? FileManager.default.removeItem(at: output) }
    let process = try HostProcess(
      ["printf", "one\\r\\n\\033[1mtwo\\r\\n"], output: output, lifetimeSeconds: 10)
    _ = try await process.status(withinSeconds: 10)
    #expect(process.text.split(separator: "\n") == ["one", "two"])
  }

  @Test(
    "sees that a guest whose root is no file system did not boot",
    .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
  func seesADestroyedRoot() async throws {
    let guest = BootGuest(name: "canary-destroyed-root", parameters: "nbdroot=10.0.2.2/root")
    let outcome = try await guest.boot { network, disk in
      // The superblock lies at 1024 bytes.
      _ = try await HostProcess.run([
        "dd", "if=/dev/zero", "of=\(disk.path)", "bs=4096", "count=1", "conv=notrunc",
        "status=none",
      ])
      return [try await network.serve(disk)]
    }
    outcome.expectConsole(contains: "/dev/nbd0 is attached")
    #expect(outcome.problems.contains("the check did not pass"))
    #expect(outcome.problems.contains("it did not power off"))
    #expect(outcome.problems.contains { $0.hasPrefix("the marker") })
    #expect(outcome.problems.contains { $0.contains("e2fsck") })
  }
}

extension BootOutcome {
  fileprivate func with(
    console: String? = nil, status: Int32? = nil, marker: String? = nil, clean: Bool? = nil
  ) -> BootOutcome {
    BootOutcome(
      name: name, nonce: nonce, console: console ?? self.console, status: status ?? self.status,
      servers: servers, marker: marker ?? self.marker,
      fileSystemIsClean: clean ?? fileSystemIsClean)
  }
}

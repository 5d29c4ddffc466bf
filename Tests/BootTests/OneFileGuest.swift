// SPDX-License-Identifier: Apache-2.0
// A guest whose initramfs is rootlink and a few modules, packed by rootlink-mkinitramfs, and
// whose root is a small ext4 that says what it finds.

import Foundation
import TestSupport

enum OneFileGuest {
  static let program = TinyGuest.client

  /// Why no guest can run here; nil when one can.
  static let missing: String? =
    TinyGuest.missing
    ?? (findProgram(program.path) == nil ? "\(program.path); run make" : nil)
  static var isEnabled: Bool { missing == nil || mayNotSkip }

  static let rootUUID = "5d0f1a2b-7c3e-4f60-9a8b-0c1d2e3f4a5b"

  /// The modules that are loaded at once, and when they are needed.
  static let moduleOptions = [
    "--module", "virtio_net", "--on-demand", "ext4", "--on-demand", "overlay", "--on-demand",
    "8021q",
  ]

  /// Made once for all tests: without a shell, and with one.
  private static let images = Result {
    let directory = try TemporaryDirectory(inMemory: true)
    let (version, tree) = try TinyGuest.fetch(.backports)
    for (name, options) in [
      ("plain", []), ("shell", ["--shell", findProgram("busybox") ?? "/bin/busybox"]),
    ] {
      let made = try TestSupport.run(
        builtProgram("rootlink-mkinitramfs"),
        [
          "--output", directory.path(name), "--init", program.path, "--modules-directory",
          "\(tree)/lib/modules/\(version)",
        ] + moduleOptions + options, seconds: 120)
      guard made.exitStatus == 0 else {
        throw TinyGuest.Failure(description: "rootlink-mkinitramfs: \(made.standardError)")
      }
    }
    return (directory, "\(tree)/boot/vmlinuz-\(version)")
  }

  /// A disk with the root on it.
  static func disk(
    partitioned isPartitioned: Bool = false, in directory: TemporaryDirectory
  ) throws -> String {
    let path = directory.path("root-\(isPartitioned).img")
    let made = try TestSupport.run(
      TinyGuest.directory.appending(path: "tiny/build-root.sh").path,
      [isPartitioned ? "partitioned" : "plain", rootUUID, path], seconds: 60)
    guard made.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "build-root.sh: \(made.standardError)")
    }
    return path
  }

  /// The network of most guests: DHCP, the host as 10.0.2.2.
  static let userNetwork = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="]

  /// A kernel that needs no modules, and an initramfs of nothing but the program.
  static func startSmall(_ parameters: String, mebibytes: Int) throws -> RunningProcess {
    let (directory, _) = try images.get()
    let script = TinyGuest.directory.appending(path: "lab/build-small-kernel.sh").path
    let kernel = try TestSupport.run(script, seconds: 3000)
    let packed = try TestSupport.run(
      builtProgram("rootlink-mkinitramfs"),
      ["--output", directory.path("small"), "--init", program.path, "--no-modules"], seconds: 60)
    guard kernel.exitStatus == 0, packed.exitStatus == 0 else {
      throw TinyGuest.Failure(description: kernel.standardError + packed.standardError)
    }
    return try start(
      parameters, mebibytes: mebibytes, image: "small",
      kernel: kernel.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines))
  }

  /// `typedInto`: a FIFO whose bytes the console gets. `kernel`: when it is not Debian's.
  static func start(
    _ parameters: String, network: [String] = userNetwork, mebibytes: Int = 128,
    image: String = "plain", typedInto typed: String = "/dev/null", kernel other: String? = nil
  ) throws -> RunningProcess {
    if let missing { throw TinyGuest.Failure(description: "the guest lacks \(missing)") }
    let (directory, kernel) = try images.get()
    return try RunningProcess(
      "sh",
      [
        "-c", "typed=$1; shift; exec \"$@\" <\"$typed\"", "sh", typed, "qemu-system-x86_64",
        "-accel", "tcg", "-cpu", "qemu64", "-m", "\(mebibytes)", "-nodefaults",
        "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", other ?? kernel, "-initrd", directory.path(image), "-append",
        "console=ttyS0 loglevel=5 panic=-1 no_timer_check mitigations=off " + parameters,
      ] + network)
  }

  /// Until the guest has ended; what its console showed.
  static func finish(_ guest: RunningProcess, seconds: Double = 180) throws -> GuestConsole {
    do { try guest.waitForExit(seconds: seconds) } catch {
      throw TinyGuest.Failure(
        description: "the guest had not ended after \(seconds) s; its last lines:\n"
          + GuestConsole(guest.standardOutput).lastLines)
    }
    return GuestConsole(guest.standardOutput)
  }
}

// SPDX-License-Identifier: Apache-2.0
// The client of `make ARCH=arm64` as the whole initramfs of a 64-bit ARM machine: a stock Debian
// kernel, and a processor that has nothing beyond ARMv8.0.

import Foundation
import TestSupport
import Testing

enum ArmGuest {
  static let program = BootLab.repository.appending(path: "out/arm64/rootlink")
  static let scripts = BootLab.repository.appending(path: "Tests/BootTests")

  /// Why no guest can run here; nil when one can.
  static let missing: String? = {
    for tool in ["qemu-system-aarch64", "depmod", "mkfs.ext4", "xz", "flock", "nbdkit"]
    where findProgram(tool) == nil {
      return "\(tool); Tests/debian-packages.txt names the packages"
    }
    return findProgram(program.path) == nil ? "\(program.path); run make ARCH=arm64" : nil
  }()
  static var isEnabled: Bool { missing == nil || mayNotSkip }

  static func need(_ program: String, _ arguments: [String]) throws -> [String] {
    let finished = try TestSupport.run(program, arguments, seconds: 600)
    guard finished.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "\(program): \(finished.standardError)")
    }
    return finished.standardOutput.split(whereSeparator: \.isWhitespace).map(String.init)
  }

  /// Kernel, initramfs and root, made once for all tests.
  private static let files = Result {
    let directory = try TemporaryDirectory(inMemory: true)
    let kernel = try need(
      scripts.appending(path: "lab/fetch-kernels.sh").path, ["--arm64", "6.12"])
    let packages = try need(
      BootLab.repository.appending(path: "cross/unpack.sh").path, ["arm64", "busybox-static"])
    _ = try need(
      scripts.appending(path: "tiny/build-root.sh").path,
      ["plain", OneFileGuest.rootUUID, directory.path("root"), packages[0] + "/bin/busybox"])
    _ = try need(
      builtProgram("rootlink-mkinitramfs"),
      [
        "--output", directory.path("initramfs"), "--init", program.path, "--modules-directory",
        "\(kernel[1])/lib/modules/\(kernel[0])", "--module", "virtio_net", "--on-demand", "ext4",
        "--on-demand", "ublk_drv",
      ])
    return (directory, "\(kernel[1])/boot/vmlinuz-\(kernel[0])")
  }

  static func boot(_ parameters: (HostServer) -> String) throws -> GuestConsole {
    if let missing { throw TinyGuest.Failure(description: "the guest lacks \(missing)") }
    let (directory, kernel) = try files.get()
    let server = try HostServer.nbdkit(
      "--exportname=root", "--filter=cow", "file", directory.path("root"))
    return try OneFileGuest.finish(
      RunningProcess(
        "qemu-system-aarch64",
        [
          "-accel", "tcg", "-machine", "virt", "-cpu", "cortex-a57", "-m", "256", "-nodefaults",
          "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel",
          kernel, "-initrd", directory.path("initramfs"), "-append",
          "console=ttyAMA0 loglevel=5 panic=-1 " + parameters(server),
        ] + OneFileGuest.userNetwork))
  }
}

@Suite(
  "A boot of one file on 64-bit ARM", .serialized,
  .enabled(if: ArmGuest.isEnabled, "the guest lacks \(ArmGuest.missing ?? "nothing")"),
  .enabled(if: RunScope.isWhole, "\(RunScope.reason)"))
struct OneFileArmTests {
  @Test("has its root on either driver", arguments: ["nbd", "ublk"])
  func root(driver: String) throws {
    let console = try ArmGuest.boot { server in
      "nbdroot=10.0.2.2:\(server.port)/root rw rootlink.driver=\(driver)"
    }
    for sentence in [
      "root: process 1 words", "root: mount /dev/\(driver == "nbd" ? "nbd0" : "ublkb0") / ext4 rw",
      "root: address eth0 10.0.2.15/24", "root: keeper 1", "root: written", "root: ended",
    ] {
      #expect(
        console.text.contains(sentence), "missing: \(sentence); the end:\n\(console.lastLines)")
    }
  }
}

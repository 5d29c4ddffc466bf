// SPDX-License-Identifier: Apache-2.0
// One diskless guest: a stock kernel, an initramfs with the hook under test, parameters, a network.
// Booted until QEMU ends by itself; what happened is read from the console and from the disk.

import Foundation
import TestSupport
import Testing

struct BootGuest: Sendable {
  enum Kernel: String, Sendable {
    case linux61 = "6.1"
    case linux612 = "6.12"
  }
  enum Generator: String, Sendable {
    case initramfsTools = "initramfs-tools"
    case dracut
    case dracutLegacy = "dracut-legacy"
    case dracutNetworkManager = "dracut-nm"
  }
  enum Hook: String, Sendable {
    case rootlink
    case nbdClient = "nbd-client"
    case both
  }
  enum Disk: String, Sendable {
    case plain, partitioned

    /// Its file system, as the tools of e2fsprogs take it.
    func device(in image: URL) -> String {
      self == .plain ? image.path : "\(image.path)?offset=1048576"
    }

    /// Has debugfs(8) change the file system of an image before a guest starts.
    func change(_ image: URL, _ requests: [String]) async throws {
      for request in requests {
        _ = try await HostProcess.run(["debugfs", "-w", "-R", request, device(in: image)])
      }
    }
  }
  /// Of the file system in the partition. Source: Tests/BootTests/lab/make-image.sh.
  static let partitionUUID = "6b1d3c5e-8f0a-4c2d-9e7b-1a2b3c4d5e6f"

  /// Names the logs; one test, one name.
  let name: String
  var kernel = Kernel.linux61
  var generator = Generator.initramfsTools
  var hook = Hook.rootlink
  var disk = Disk.plain
  /// All that the kernel line has beside the console, panic=1 and the words of the check.
  let parameters: String
  /// Words for the check in the guest.
  var check = ""
  /// On a wire of its own, for `GuestNetwork.startTapWithDHCP`.
  var tap = false
  /// A script of the lab that makes another initramfs of the one it is given.
  var initramfsFilter: String?
  var deadlineSeconds = 480.0
  /// The journal of a file system that lost its server is replayed before it is looked at.
  var replaysJournal = false

  /// `prepare`, before the guest starts, and `meanwhile`, while it runs, start servers, which live
  /// until the guest has ended.
  func boot(
    prepare: @escaping @Sendable (GuestNetwork, URL) async throws -> [HostProcess],
    meanwhile: @escaping @Sendable (RunningGuest) async throws -> [HostProcess] = { _ in [] }
  ) async throws -> BootOutcome {
    try await BootLab.slots.with { try await bootNow(prepare: prepare, meanwhile: meanwhile) }
  }

  /// From `rootlinkd`, on its own port, as the export `root`.
  func bootFromServer() async throws -> BootOutcome {
    try await boot { network, disk in [try await network.serve(disk)] }
  }

  private func bootNow(
    prepare: @Sendable (GuestNetwork, URL) async throws -> [HostProcess],
    meanwhile: @Sendable (RunningGuest) async throws -> [HostProcess]
  ) async throws -> BootOutcome {
    let lab = BootLab.results
    var initramfs = try await lab.path(
      "make-initramfs.sh", "--kernel", kernel.rawValue, "--generator", generator.rawValue,
      "--hook", hook.rawValue)
    if let filter = initramfsFilter { initramfs = try await lab.path(filter, initramfs) }
    let kernelTree = try await lab.path("fetch-kernels.sh", kernel.rawValue)
      .split(separator: " ").map(String.init)
    let image = try await lab.path("make-image.sh", disk.rawValue)
    let disks = try TemporaryDirectory(inMemory: true)
    let copy = URL(fileURLWithPath: disks.path("\(name).img"))
    _ = try await HostProcess.run(["mkdir", "-p", BootLab.logs.path])
    _ = try await HostProcess.run(
      ["cp", "--reflink=auto", "--sparse=always", image, copy.path], withinSeconds: 60)
    defer { withExtendedLifetime(disks) {} }

    let network = try await GuestNetwork(named: name)
    var servers = try await prepare(network, copy)
    defer { for server in servers { server.end() } }
    let nonce = String(UInt64.random(in: .min ... .max), radix: 36)
    let qemu = try HostProcess(
      network.command(
        [
          BootLab.scripts.appending(path: "boot.sh").path,
          "--kernel", "\(kernelTree[1])/boot/vmlinuz-\(kernelTree[0])", "--initramfs", initramfs,
          "--append", "\(parameters) bootcheck=\(nonce) \(check)",
        ] + (tap ? GuestNetwork.tapOptions : [])),
      output: BootLab.logs.appending(path: "\(name).console.log"),
      lifetimeSeconds: Int(deadlineSeconds) + 30)
    defer { qemu.end() }
    let started = ContinuousClock().now
    servers += try await meanwhile(RunningGuest(network: network, disk: copy, qemu: qemu))
    let status = try await qemu.status(withinSeconds: deadlineSeconds)
    if replaysJournal {
      _ = try? await HostProcess.run(
        ["e2fsck", "-f", "-y", disk.device(in: copy)], withinSeconds: 60)
    }
    let outcome = await BootOutcome(
      name: name, nonce: nonce, console: qemu.text, status: status,
      servers: servers.map { $0.text }, on: copy, disk)
    print("boot \(name): \((ContinuousClock().now - started).components.seconds) s")
    return outcome
  }
}

/// A guest that is booting, for those who do something meanwhile.
struct RunningGuest: Sendable {
  let network: GuestNetwork
  let disk: URL
  let qemu: HostProcess

  /// Waits for a line on the console.
  func says(_ sentence: @escaping @Sendable (String) -> Bool) async throws {
    try await waitUntil("the console says so: \(lastLines(of: qemu.text))", withinSeconds: 420) {
      sentence(qemu.text) || !qemu.isRunning
    }
  }
}

/// What a guest left behind.
struct BootOutcome: Sendable {
  let name: String
  let nonce: String
  let console: String
  let status: Int32
  let servers: [String]
  let marker: String
  let fileSystemIsClean: Bool

  /// What keeps this from being a boot to the end; empty if nothing does.
  var problems: [String] {
    // What the kernel says when a block device has let somebody down.
    let ioError =
      #/I/O error|EXT4-fs error|Aborting journal|nbd[0-9]+: .*(timed out|shutting down sock|Dead conn)/#
    var problems: [String] = []
    if status != 0 { problems.append("QEMU ended with status \(status)") }
    if !console.contains("boot-check: passed \(nonce)") {
      problems.append("the check did not pass")
    }
    for line in console.split(separator: "\n") where line.contains("boot-check: PROBLEM") {
      problems.append(String(line))
    }
    if !console.contains("reboot: Power down") { problems.append("it did not power off") }
    if marker != nonce { problems.append("the marker on the disk is '\(marker)', not '\(nonce)'") }
    if !fileSystemIsClean { problems.append("e2fsck finds faults in the file system") }
    for line in console.split(separator: "\n") where line.contains(ioError) {
      problems.append("I/O error: \(line)")
    }
    return problems
  }

  /// Lines of the program under test.
  var ownLines: [String] {
    console.split(separator: "\n").filter { $0.contains("rootlink: ") }.map(String.init)
  }

  /// Fails the test unless the guest booted to the end, with the last lines of its console.
  func expectCleanBoot(sourceLocation: SourceLocation = #_sourceLocation) {
    let problems = self.problems
    if !problems.isEmpty {
      Issue.record(
        """
        \(name): \(problems.joined(separator: "; "))
        \(report)
        """, sourceLocation: sourceLocation)
    }
  }

  func expectConsole(
    contains sentence: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    if !console.contains(sentence) {
      Issue.record(
        "\(name): the console does not say '\(sentence)'\n\(report)", sourceLocation: sourceLocation
      )
    }
  }

  /// The keeper has lived through the switch of the root, beside systemd itself and outside of every
  /// unit.
  func expectKeeper(sourceLocation: SourceLocation = #_sourceLocation) {
    expectConsole(
      contains: "boot-check: keeper: @ -1000 0::/init.scope\n", sourceLocation: sourceLocation)
  }

  private var report: String {
    """
    --- what rootlink said
    \(ownLines.joined(separator: "\n"))
    --- the end of the console (all of it in out/logs/\(name).console.log)
    \(lastLines(of: console, count: 40))
    """
  }
}

extension BootOutcome {
  /// With what is found on the disk.
  init(
    name: String, nonce: String, console: String, status: Int32, servers: [String],
    on image: URL, _ layout: BootGuest.Disk = .plain
  ) async {
    self.name = name
    self.nonce = nonce
    self.console = console
    self.status = status
    self.servers = servers
    let device = layout.device(in: image)
    let text = try? await HostProcess.run(
      ["debugfs", "-R", "cat /var/lib/boot-check/marker", device])
    // Its first line is its version.
    marker = (text ?? "").split(separator: "\n").filter { !$0.hasPrefix("debugfs ") }
      .joined(separator: "\n")
    fileSystemIsClean =
      (try? await HostProcess.run(["e2fsck", "-f", "-n", device], withinSeconds: 60)) != nil
  }
}

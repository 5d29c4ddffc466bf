// SPDX-License-Identifier: Apache-2.0
// A guest that is up in seconds: a stock Debian kernel, busybox, our program and a scenario, no
// disk. It reaches the host's loopback as 10.0.2.2. A scenario is a shell script; a step
// `result NAME COMMAND...` brackets what the command prints and reports its exit status.

import Foundation
import TestSupport

struct TinyGuest {
  enum Kernel: String, CaseIterable, Sendable {
    case stable = "6.1"
    case backports = "6.12"
  }

  static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  static let client = directory.deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "out/rootlink")

  /// Why no guest can run here; nil when one can.
  static let missing: String? = {
    let tools = ["qemu-system-x86_64", "busybox", "cpio", "depmod", "modprobe", "xz", "flock"]
    for tool in tools where findProgram(tool) == nil {
      return "\(tool); Tests/debian-packages.txt names the packages"
    }
    return findProgram(client.path) == nil ? "\(client.path); run make" : nil
  }()

  /// With ROOTLINK_REQUIRE_ALL nothing is skipped: what is missing then fails the test.
  static var isEnabled: Bool { missing == nil || mayNotSkip }

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// Boots and waits for the power to go off; what the console showed. TCG on a busy machine is
  /// slow: the limit is for a guest that hangs. `programs` of the host come along, with their
  /// libraries. `meanwhile` is given what the scenario asks for with
  /// `fault NAME`, one name after the other; the scenario goes on when it returns.
  static func run(
    _ scenario: String, kernel: Kernel, mebibytes: Int = 512, seconds: Double = 300,
    programs: [String] = [], faults: [String] = [], meanwhile: (String) throws -> Void = { _ in }
  ) throws -> GuestConsole {
    if let missing { throw Failure(description: "the tiny guest lacks \(missing)") }
    let directory = try TemporaryDirectory()
    let (version, tree) = try fetch(kernel)
    let image = directory.path("initramfs")
    try need(
      Self.directory.appending(path: "tiny/build-initramfs.sh").path,
      [
        tree, version, client.path, try directory.file("scenario", Array(scenario.utf8)), image,
      ] + programs)
    let answers = directory.path("answers")
    for end in ["in", "out"] { unsafe mkfifo("\(answers).\(end)", 0o600) }
    let guest = try RunningProcess(
      "qemu-system-x86_64",
      [
        "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", "\(mebibytes)", "-nographic",
        "-no-reboot",
        "-serial", "mon:stdio", "-chardev", "pipe,id=answers,path=\(answers)",
        "-serial", "chardev:answers",
        "-kernel", "\(tree)/boot/vmlinuz-\(version)", "-initrd", image,
        "-append", "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check mitigations=off",
        "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile=",
      ])
    for (number, fault) in faults.enumerated() {
      try guest.waitForLine(
        containing: "@fault \(number + 1) \(fault)", on: .standardOutput, seconds: seconds)
      try meanwhile(fault)
      let answer = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(answers).in"))
      try answer.write(contentsOf: Data("done\n".utf8))
    }
    do { try guest.waitForExit(seconds: seconds) } catch {
      throw Failure(
        description: "the guest had not ended after \(seconds) s; its last lines:\n"
          + GuestConsole(guest.standardOutput).lastLines)
    }
    let console = GuestConsole(guest.standardOutput)
    guard console.text.contains("tiny guest: scenario ended") else {
      throw Failure(
        description: "the scenario did not end; last lines:\n\(console.lastLines)\n"
          + guest.standardError)
    }
    return console
  }

  /// The newest stock kernel of a series: its version and where it is unpacked.
  static func fetch(_ kernel: Kernel) throws -> (version: String, tree: String) {
    let line = try need(
      directory.appending(path: "lab/fetch-kernels.sh").path, [kernel.rawValue])
    let words = line.split(whereSeparator: \.isWhitespace)
    guard words.count == 2 else {
      throw Failure(description: "fetch-kernels.sh said '\(line)'")
    }
    return (String(words[0]), String(words[1]))
  }

  @discardableResult
  private static func need(_ program: String, _ arguments: [String]) throws -> String {
    let finished = try TestSupport.run(program, arguments, seconds: 600)
    guard finished.exitStatus == 0 else {
      throw Failure(description: "\(program): \(finished.standardError)")
    }
    return finished.standardOutput
  }
}

/// What a guest's serial console showed, without carriage returns.
struct GuestConsole {
  let text: String

  init(_ raw: String) {
    text = String(raw.unicodeScalars.filter { $0 != "\r" }.map { Character($0) })
  }

  var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
  var lastLines: String { lines.suffix(40).joined(separator: "\n") }

  /// The exit status of a step; nil when the step did not end.
  func status(of step: String) -> Int32? {
    // The kernel may have put a line of its own in front, or into it; then it comes once more.
    for line in lines where line.contains("result \(step) ") {
      if let status = line.split(separator: " ").last.flatMap({ Int32($0) }) { return status }
    }
    return nil
  }

  /// What a step printed, and what the kernel said meanwhile.
  func output(of step: String) -> String {
    var shown: [Substring] = []
    var isInside = false
    for line in lines {
      if line.contains("result \(step) ") { break }
      if isInside { shown.append(line) }
      if line.hasSuffix("begin \(step)") { isInside = true }
    }
    return shown.joined(separator: "\n")
  }
}

// SPDX-License-Identifier: Apache-2.0
// A guest with soft-RoCE on a `GuestWire`, told by the test what to do, one command after the other.
// Its kernel has Linux's own RNBD client and server as modules, which Debian's kernels lack.
//
// The console is kept under out/logs/rdma.

import Foundation
import TestSupport

final class RDMAGuest: Sendable {
  /// What a command came to.
  struct Step: CustomStringConvertible {
    var command: String
    var status: Int32
    var output: String
    var description: String { "`\(command)` ended with \(status) and printed:\n\(output)\n" }
    var lines: [Substring] { output.split(separator: "\n") }
  }

  /// Why no guest can run here; nil when one can.
  static let missing: String? = {
    let tools = [
      "qemu-system-x86_64", "busybox", "cpio", "depmod", "modprobe", "xz", "flock", "rdma", "make",
      "gcc",
    ]
    for tool in tools where findProgram(tool) == nil {
      return "\(tool); Tests/debian-packages.txt names the packages"
    }
    for program in [BootLab.client, BootLab.server] where findProgram(program.path) == nil {
      return "\(program.path); run make"
    }
    return nil
  }()

  /// With ROOTLINK_REQUIRE_ALL nothing is skipped: what is missing then fails the test.
  static var isEnabled: Bool { missing == nil || mayNotSkip }

  let number: UInt16
  let name: String
  private let process: RunningProcess
  private let orders: FileHandle
  private let counter = Counter()
  private let log: URL

  private final class Counter: @unchecked Sendable {
    // Unchecked: a guest is told by one thread at a time.
    var value = 0
    /// Nobody takes orders any more; to give one would be the end of the test's process.
    var isKilled = false
  }

  /// On the first network of the wire: 10.9.0.`number`. With two cards on the second, too.
  var address: String { "10.9.0.\(number)" }
  var secondAddress: String { "10.9.1.\(number)" }
  /// As `GuestWire` numbers them.
  var card: UInt16 { number }
  var secondCard: UInt16 { 256 + number }

  /// Boots; returns when it takes orders. `programs`: names and paths on this machine, or
  /// `NAME=PATH`. `drive`: a raw image, which is /dev/vda.
  init(
    _ name: String, number: UInt16, on wire: GuestWire, cards: Int = 1, mebibytes: Int = 640,
    programs: [String] = [], drive: String? = nil, in directory: TemporaryDirectory
  ) throws {
    if let missing = Self.missing {
      throw TinyGuest.Failure(description: "the guests with RDMA lack \(missing)")
    }
    self.number = number
    self.name = name
    let kernel = try Self.need("lab/fetch-kernels.sh", ["6.12"]).split(separator: " ")
    guard kernel.count == 2 else { throw TinyGuest.Failure(description: "no kernel: \(kernel)") }
    let (version, tree) = (String(kernel[0]), String(kernel[1]))
    let modules = try Self.need("rdma/build-modules.sh", [version])
    let image = directory.path("initramfs-\(number)")
    _ = try Self.need("rdma/build-initramfs.sh", [tree, version, modules, image] + programs)
    let path = directory.path("orders-\(number)")
    for end in ["in", "out"] { unsafe mkfifo("\(path).\(end)", 0o600) }
    var arguments = [
      "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", "\(mebibytes)", "-nographic",
      "-no-reboot", "-serial", "mon:stdio", "-chardev", "pipe,id=orders,path=\(path)",
      "-serial", "chardev:orders",
      "-kernel", "\(tree)/boot/vmlinuz-\(version)", "-initrd", image,
      "-append",
      "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check mitigations=off guest=\(number)",
    ]
    arguments += try wire.arguments(forCard: number)
    if let drive { arguments += ["-drive", "file=\(drive),format=raw,if=virtio"] }
    if cards > 1 { arguments += try wire.arguments(forCard: 256 + number) }
    log = BootLab.logs.appending(path: "rdma/\(name).log")
    process = try RunningProcess("qemu-system-x86_64", arguments)
    // Opens when QEMU has opened the other end.
    orders = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(path).in"))
  }

  deinit {
    try? FileManager.default.createDirectory(
      at: log.deletingLastPathComponent(), withIntermediateDirectories: true)
    try? Data((console + process.standardError).utf8).write(to: log)
  }

  /// What the serial console has shown.
  var console: String { GuestConsole(process.standardOutput).text }

  /// Until it takes orders.
  func waitUntilReady() throws {
    do {
      try process.waitForLine(containing: "@ready", on: .standardOutput, seconds: 180)
    } catch {
      throw TinyGuest.Failure(description: "\(name) did not boot: \(lastLines(of: console))")
    }
  }

  /// Does it and waits for its end.
  @discardableResult
  func run(_ command: String, seconds: Double = 120) throws -> Step {
    try finish(start(command), seconds: seconds)
  }

  /// As `run`; throws when the command fails.
  @discardableResult
  func need(_ command: String, seconds: Double = 120) throws -> String {
    let step = try run(command, seconds: seconds)
    guard step.status == 0 else { throw TinyGuest.Failure(description: "\(name): \(step)") }
    return step.output
  }

  /// On `$disk`, of 6 MiB or more: 64 blocks of 4 KiB written and read here and there, a MiB discarded,
  /// two made zeroes, and a flush. The blocks are /tmp/small, and stand at the disk's beginning.
  func writeBlocks() throws {
    try need("dd if=/dev/urandom of=/tmp/small bs=4k count=64 2>/dev/null")
    try need(
      "n=0; while [ $n -lt 64 ]; do at=$((n * 37 % 1024)); "
        + "dd if=/tmp/small of=$disk bs=4k count=1 skip=$n seek=$at oflag=direct 2>/dev/null && "
        + "dd if=$disk bs=4k count=1 skip=$at iflag=direct of=/tmp/one 2>/dev/null && "
        + "dd if=/tmp/small bs=4k count=1 skip=$n 2>/dev/null | cmp - /tmp/one || break; "
        + "n=$((n + 1)); done; [ $n = 64 ]")
    try need("/usr/bin/blkdiscard -o 1048576 -l 1048576 $disk && zeroes $disk 1 1")
    try need("/usr/bin/blkdiscard -z -o 3145728 -l 2097152 $disk && zeroes $disk 3 2")
    try need("cp /tmp/small $disk && sync $disk")
  }

  /// An order that was given.
  struct Order {
    fileprivate var number: Int
    fileprivate var command: String
  }

  /// Returns at once. The next order waits in the guest until this one is done.
  func start(_ command: String) throws -> Order {
    guard !counter.isKilled else { throw TinyGuest.Failure(description: "\(name) was killed") }
    counter.value += 1
    // A serial line in canonical mode takes at most 4095 bytes. Source: `N_TTY_BUF_SIZE`.
    precondition(!command.contains("\n") && command.utf8.count < 4000)
    try orders.write(contentsOf: Data("\(counter.value) \(command)\n".utf8))
    return Order(number: counter.value, command: command)
  }

  func hasEnded(_ order: Order) -> Bool { console.contains("@end \(order.number) ") }

  func finish(_ order: Order, seconds: Double = 120) throws -> Step {
    let end = "@end \(order.number) "
    let line: String
    do {
      line = try process.waitForLine(containing: end, on: .standardOutput, seconds: seconds)
    } catch {
      throw TinyGuest.Failure(
        description: "\(name): `\(order.command)` had not ended after \(seconds) s; the console:\n"
          + lastLines(of: console, count: 120))
    }
    var output: [Substring] = []
    var isInside = false
    for line in console.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.contains(end) { break }
      if isInside { output.append(line) }
      if line.contains("@begin \(order.number)") { isInside = true }
    }
    // A command whose last line has no end has the mark behind it.
    if let last = line.range(of: end)?.lowerBound, last > line.startIndex {
      output.append(line[..<last])
    }
    return Step(
      command: order.command, status: line.split(separator: " ").last.flatMap { Int32($0) } ?? -1,
      output: output.joined(separator: "\n"))
  }

  /// As pulling the plug: nothing is said to anybody.
  func kill() throws {
    counter.isKilled = true
    process.send(signal: SIGKILL)
    try process.waitForExit(seconds: 30)
  }

  /// Stands still, and goes on.
  func stop() { process.send(signal: SIGSTOP) }
  func goOn() { process.send(signal: SIGCONT) }

  private static func need(_ script: String, _ arguments: [String]) throws -> String {
    let path = TinyGuest.directory.appending(path: script).path
    let finished = try TestSupport.run(path, arguments, seconds: 900)
    guard finished.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "\(script): \(finished.standardError)")
    }
    return finished.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
  }
}

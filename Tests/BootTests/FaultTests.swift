// SPDX-License-Identifier: Apache-2.0
// What happens to a device under load when its server, its network or its keeper goes away:
// nothing, but that it takes longer. Every boot ends with no I/O error, no mismatch, every
// connection there again, and a file system that e2fsck finds clean.
//
// In every run short outages; with ROOTLINK_LONG=1, as `make test-faults` sets it, long ones and
// a soak of random ones as well.

import Foundation
import TestSupport
import Testing

@Suite(
  "A device whose server goes away", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct FaultTests {
  enum Driver: String, Sendable { case nbd, ublk }

  struct Setup: Sendable, CustomTestStringConvertible {
    var driver: Driver
    var kernel: TinyGuest.Kernel
    var connections: Int
    var testDescription: String {
      "\(driver), Linux \(kernel.rawValue), connections: \(connections)"
    }
    var disk: String { driver == .nbd ? "/dev/nbd0" : "/dev/ublkb0" }
  }

  static let setups: [Setup] = [
    Setup(driver: .nbd, kernel: .stable, connections: 1),
    Setup(driver: .ublk, kernel: .backports, connections: 4),
    Setup(driver: .nbd, kernel: .backports, connections: 4),
    Setup(driver: .ublk, kernel: .backports, connections: 1),
    Setup(driver: .nbd, kernel: .backports, connections: 1),
    Setup(driver: .nbd, kernel: .stable, connections: 4),
  ]

  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// What a fault of the guest has the host do, in order. Source: Tests/BootTests/tiny/faults.
  static func orders(of fault: String) -> [String] {
    switch fault.split(separator: " ")[0] {
    case "fault_kill":
      fault.hasSuffix(" 0") ? ["kill-and-restart"] : ["kill", "restart"]
    case "fault_drain": ["drain-and-restart"]
    case "fault_stop": ["stop", "continue"]
    case "fault_other": ["kill", "restart-other", "kill", "restart"]
    default: []
    }
  }

  @Test(
    "goes on where it was, whatever happened to the server meanwhile",
    arguments: RunScope.cases(setups, short: 2))
  func goesOn(setup: Setup) throws {
    var faults: [String]
    if RunScope.isWhole {
      faults = [
        "fault_kill 0", "fault_kill 3", "fault_kill 40", "fault_drain", "fault_stop 20",
        "fault_drop 20", "fault_reset", "fault_other", "fault_keeper", "fault_kill 0",
        "fault_kill 3",
      ]
    } else {
      faults = [
        "fault_kill 0", "fault_kill 3", "fault_drain", "fault_stop 3", "fault_drop 8",
        "fault_reset", "fault_other", "fault_keeper", "fault_kill 0",
      ]
    }
    // One connection has one way to go.
    if setup.connections > 1 {
      faults.append(RunScope.isWhole ? "fault_path 20" : "fault_path 3")
    }
    try suffer(faults, setup, title: setup.testDescription)
  }

  @Test(
    "goes on through thirty faults in random order",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"), arguments: setups.prefix(4))
  func soak(setup: Setup) throws {
    let seed = UInt64.random(in: 0..<1 << 32)
    print("soak of \(setup.testDescription): seed \(seed)")
    var random = SeededGenerator(seed: seed)
    var faults: [String] = []
    while faults.count < 30 {
      switch Int.random(in: 0..<8, using: &random) {
      case 0, 1: faults.append("fault_kill 0")
      case 2: faults.append("fault_kill \(Int.random(in: 1...6, using: &random))")
      case 3: faults.append("fault_drain")
      case 4: faults.append("fault_stop \(Int.random(in: 1...12, using: &random))")
      case 5: faults.append("fault_drop \(Int.random(in: 1...12, using: &random))")
      case 6: faults.append("fault_reset")
      default: faults.append("fault_keeper")
      }
    }
    try suffer(faults, setup, title: "soak with seed \(seed): \(setup.testDescription)")
  }

  @Test(
    "has every connection again though its keepers are killed one after the other",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"))
  func keepersKilled() throws {
    let setup = Setup(driver: .nbd, kernel: .backports, connections: 4)
    try suffer(
      Array(repeating: "fault_keeper", count: 20), setup,
      title: "keepers killed: \(setup.testDescription)")
  }

  /// Boots, attaches, loads, has it suffer `faults`, and checks what must be so at the end.
  private func suffer(_ faults: [String], _ setup: Setup, title: String) throws {
    let image = try partitionedImage(in: directory)
    let elsewhere = try TemporaryDirectory(inMemory: true)
    let other = try partitionedImage(in: elsewhere)
    let server = try FaultyServer(
      image, other: other, ways: setup.connections > 1 ? 2 : 1, in: directory)
    let further = server.ways.dropFirst().map { "rootlink.path=\($0)" }
    let line =
      ["nbdroot=\(server.ways[0])/root", "rootlink.driver=\(setup.driver)"] + further
      + ["rootlink.connections=\(setup.connections)"]
    let console = try TinyGuest.run(
      """
      export ROOTLINK_STRICT=1
      disk=\(setup.disk) connections=\(setup.connections)
      ports="\(server.ports.map(String.init).joined(separator: " "))"
      result attach rootlink attach --cmdline "\(line.joined(separator: " "))"
      result guards guards $(keeper)
      mount -t ext4 ${disk}p1 /mnt
      load /mnt >/tmp/load.log &
      loader=$!
      verify
      rounds 1
      \(faults.joined(separator: "\n"))
      result loaded loaded
      result verified verified
      slow
      result connected connected
      result unmount umount /mnt
      result detach rootlink detach $disk
      until [ -z "$(keeper)" ]; do sleep 0.1; done
      dmesg | grep -iE "I/O error|EXT4-fs error|Aborting journal" || echo "no I/O error"
      """, kernel: setup.kernel, seconds: RunScope.isWhole ? 900 : 400, programs: ["fio", "nft"],
      faults: faults.flatMap(Self.orders)
    ) { try server.suffer($0) }
    expectGuards(
      console.output(of: "guards"),
      dataByteCount: setup.driver == .nbd ? 0 : UInt64(setup.connections) << 18)
    var report = FaultReport(console)
    for step in ["attach", "guards", "loaded", "verified", "connected", "unmount", "detach"]
    where console.status(of: step) != 0 {
      report.problems.append("step \(step):\n\(console.output(of: step))")
    }
    if console.output(of: "connected") != "\(setup.connections)" {
      report.problems.append("connections at the end: \(console.output(of: "connected"))")
    }
    if !console.text.contains("\nno I/O error") || console.text.contains("\nfault: ") {
      report.problems.append(console.lastLines)
    }
    for (path, sentence) in [(image, "is not clean"), (other, "was written to")] {
      let checked = try run("e2fsck", ["-fn", "\(path)?offset=1048576"])
      if checked.exitStatus != 0 {
        report.problems.append("\(path) \(sentence): \(checked.standardOutput)")
      }
    }
    if report.costs.count != faults.count {
      report.problems.append("\(report.costs.count) of \(faults.count) faults were seen")
    }
    if report.requestCount == 0 { report.problems.append("no request was timed") }
    try report.publish(title)
    #expect(report.problems.isEmpty, "\(setup.testDescription)")
  }

  @Test(
    "loses one of two paths and has it back; changes to a replica when its server stays away",
    arguments: RunScope.cases([Driver.nbd, .ublk], short: 1))
  func paths(driver: Driver) throws {
    let image = try fileSystemImage("export.img")
    // Two programs over one file stand for mirrored servers; the first has two ways to it.
    let server = try FaultyServer(image, ways: 2, in: directory)
    let replica = try FaultyServer(image, in: directory)
    let disk = driver == .nbd ? "nbd0" : "ublkb0"
    let console = try TinyGuest.run(
      """
      disk=/dev/\(disk) connections=2 ports="\(server.ports[0]) \(server.ports[1])"
      result attach env ROOTLINK_STRICT=1 rootlink attach --cmdline \
        "nbdroot=\(server.ways[0])/root rootlink.path=\(server.ways[1]) \
      rootlink.replica=\(replica.ways[0]) rootlink.driver=\(driver)"
      result begin rootlink status \(disk)
      mount -t ext4 $disk /mnt
      load /mnt >/tmp/load.log &
      loader=$!
      rounds 1
      network $(echo $ports | cut -d ' ' -f 2) drop
      until [ "$(connected)" = 1 ]; do sleep 0.2; done
      rounds 2
      result cut rootlink status \(disk)
      network
      until [ "$(connected)" = 2 ]; do sleep 0.2; done
      rounds 1
      fault kill
      until [ "$(connected)" = 2 ]; do sleep 0.2; done
      rounds 2
      result replica rootlink status \(disk)
      result loaded loaded
      result unmount umount /mnt
      result detach rootlink detach \(disk)
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
      """, kernel: .backports, programs: ["nft"], faults: ["kill"]
    ) { try server.suffer($0) }
    for step in ["attach", "begin", "cut", "replica", "loaded", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    if driver == .nbd {
      for way in server.ways {
        #expect(console.output(of: "begin").contains(": live, \(way)"))
        #expect(!console.output(of: "replica").contains(": live, \(way)"))
      }
      #expect(console.output(of: "cut").contains(": live, \(server.ways[0])"))
      #expect(console.output(of: "cut").contains(": lost, \(server.ways[1])"))
      #expect(console.output(of: "replica").contains(": live, \(replica.ways[0])"))
    }
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  @Test(
    "works on while its keeper is dead, and is taken up by another one, or by one after that",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"))
  func keeperKilled() throws {
    let image = try fileSystemImage("export.img")
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      """
      disk=/dev/nbd0
      result attach rootlink attach \(server.uri)/root --connections 2
      mount -t ext4 $disk /mnt
      load /mnt >/tmp/load.log &
      loader=$!
      rounds 1
      kill -9 "$(keeper)"
      rounds 1
      result nobody rootlink status nbd0
      result keep env ROOTLINK_STRICT=1 rootlink attach --keep /dev/nbd0
      until [ "$(connected)" = 2 ]; do sleep 0.2; done
      fault kill-and-restart
      rounds 2
      result again rootlink attach --keep nbd0
      until [ "$(connected)" = 2 ]; do sleep 0.2; done
      result one keeper
      result loaded loaded
      result unmount umount /mnt
      result detach rootlink detach nbd0
      until [ -z "$(keeper)" ]; do sleep 0.1; done
      result refused rootlink attach --keep nbd0
      result name rootlink attach --keep sda
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
      """, kernel: .stable, faults: ["kill-and-restart"]
    ) { try server.suffer($0) }
    for step in ["attach", "nobody", "keep", "again", "one", "loaded", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.output(of: "nobody").contains("nobody keeps it: rootlink attach --keep"))
    #expect(console.output(of: "one").split(separator: "\n").count == 1)
    #expect(console.status(of: "refused") == 1)
    #expect(console.status(of: "name") == 2)
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  /// As `guards` in the guest prints them. Source: rootlink(8), "WHEN THE SERVER GOES AWAY".
  private func expectGuards(_ text: String, dataByteCount: UInt64) {
    var values: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1)
      if words.count == 2 { values[String(words[0])] = String(words[1]) }
    }
    #expect(values["name"] == "@", "\(text)")
    #expect(values["oom"] == "-1000", "\(text)")
    let resident = values["VmRSS:"].flatMap { UInt64($0.filter(\.isNumber)) } ?? .max
    let locked = values["VmLck:"].flatMap { UInt64($0.filter(\.isNumber)) } ?? 0
    #expect(resident < 2048 + dataByteCount >> 10, "2 MiB and the data are the limit: \(text)")
    #expect(locked + 64 >= resident, "not all of it is locked: \(text)")
    // PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE: what PR_SET_IO_FLUSHER sets.
    let flags = values["flags"].flatMap { UInt64($0) } ?? 0
    #expect(flags & 0x180000 == 0x180000, "\(text)")
  }

  private func fileSystemImage(_ name: String) throws -> String {
    let image = try sparseFile(name, mebibytes: 64, in: directory)
    let made = try run("mkfs.ext4", ["-q", "-F", image])
    guard made.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "mkfs.ext4: \(made.standardError)")
    }
    return image
  }
}

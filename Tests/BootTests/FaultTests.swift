// SPDX-License-Identifier: Apache-2.0
// What happens to a device under load when its server goes away: nothing, but that it takes longer.
// Every case ends with no I/O error, no mismatch, and a file system that e2fsck finds clean.

import Foundation
import TestSupport
import Testing

@Suite(
  "A device whose server goes away", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct FaultTests {
  struct Setup: Sendable, CustomTestStringConvertible {
    var kernel: TinyGuest.Kernel
    var connections: Int
    var testDescription: String {
      "Linux \(kernel.rawValue), connections: \(connections)"
    }
  }

  static let setups: [Setup] = [
    Setup(kernel: .stable, connections: 1), Setup(kernel: .backports, connections: 1),
    Setup(kernel: .backports, connections: 4),
  ]

  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory() }

  @Test("goes on where it was, whatever happened to the server meanwhile", arguments: setups)
  func goesOn(setup: Setup) throws {
    let image = try fileSystemImage("export.img")
    let other = try fileSystemImage("other.img")
    let server = try FaultyServer(image, in: directory)
    let faults = [
      "kill-and-restart", "kill", "restart", "drain-and-restart", "stop", "continue", "kill",
      "restart-other", "kill", "restart",
    ]
    let console = try TinyGuest.run(
      """
      result attach env ROOTLINK_STRICT=1 \
        rootlink attach \(server.uri)/root --connections \(setup.connections)
      keeper=$(grep -lx rootlink-keeper /proc/[0-9]*/comm | cut -d / -f 3)
      result guards guards $keeper
      mount -t ext4 /dev/nbd0 /mnt
      load /mnt >/tmp/load.log &
      rounds 1
      fault kill-and-restart
      rounds 2
      fault kill
      sleep 3
      fault restart
      rounds 2
      fault drain-and-restart
      rounds 2
      fault stop
      sleep 6
      fault continue
      rounds 2
      fault kill
      fault restart-other
      until dmesg | grep -q "another image is there"; do sleep 0.2; done
      result refused rootlink status nbd0
      fault kill
      fault restart
      rounds 2
      result status rootlink status nbd0
      touch /tmp/stop
      wait
      result load grep -v round /tmp/load.log
      result end tail -n 1 /tmp/load.log
      result unmount umount /mnt
      result detach rootlink detach nbd0
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
      """, kernel: setup.kernel, faults: faults
    ) { try server.suffer($0) }
    expectGuards(console.output(of: "guards"))
    for step in ["attach", "guards", "refused", "status", "end", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.status(of: "load") == 1, "\(console.output(of: "load"))")
    #expect(console.output(of: "end").contains("ended after"))
    #expect(console.output(of: "refused").contains(": lost, "))
    let live = console.output(of: "status").components(separatedBy: ": live, ").count - 1
    #expect(live == setup.connections, "\(console.output(of: "status"))")
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
    let untouched = try run("e2fsck", ["-f", "-n", other])
    #expect(untouched.exitStatus == 0, "the other image was written to")
  }

  @Test("loses one of two paths and has it back; changes to a replica when its server stays away")
  func paths() throws {
    let image = try fileSystemImage("export.img")
    // Three programs over one file stand for two ways to one server, and for a mirrored one.
    let servers = try (0..<3).map { _ in try FaultyServer(image, in: directory) }
    let names = servers.map { $0.uri.replacing("nbd://", with: "") }
    let console = try TinyGuest.run(
      """
      result attach env ROOTLINK_STRICT=1 rootlink attach --cmdline \
        "nbdroot=\(names[0])/root rootlink.path=\(names[1]) rootlink.replica=\(names[2])"
      result begin rootlink status nbd0
      mount -t ext4 /dev/nbd0 /mnt
      load /mnt >/tmp/load.log &
      rounds 1
      fault cut
      rounds 2
      result cut rootlink status nbd0
      fault heal
      until [ "$(rootlink status nbd0 | grep -c ": live, ")" = 2 ]; do sleep 0.2; done
      rounds 1
      fault server-away
      until rootlink status nbd0 | grep -q "live, \(names[2])"; do sleep 0.2; done
      rounds 2
      result replica rootlink status nbd0
      touch /tmp/stop
      wait
      result load grep -v round /tmp/load.log
      result end tail -n 1 /tmp/load.log
      result unmount umount /mnt
      result detach rootlink detach nbd0
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
      """, kernel: .backports, faults: ["cut", "heal", "server-away"]
    ) { fault in
      switch fault {
      case "cut": try servers[1].suffer("kill")
      case "heal": try servers[1].suffer("restart")
      default: for server in servers.prefix(2) { try server.suffer("kill") }
      }
    }
    for step in ["attach", "begin", "cut", "replica", "end", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.status(of: "load") == 1, "\(console.output(of: "load"))")
    for name in names.prefix(2) {
      #expect(console.output(of: "begin").contains(": live, \(name)"))
    }
    #expect(console.output(of: "cut").contains(": live, \(names[0])"))
    #expect(console.output(of: "cut").contains(": lost, \(names[1])"))
    #expect(!console.output(of: "replica").contains(": live, \(names[0])"))
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  @Test("works on while its keeper is dead, and is taken up by another one")
  func keeperKilled() throws {
    let image = try fileSystemImage("export.img")
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      """
      result attach rootlink attach \(server.uri)/root --connections 2
      mount -t ext4 /dev/nbd0 /mnt
      load /mnt >/tmp/load.log &
      rounds 1
      kill -9 "$(grep -lx rootlink-keeper /proc/[0-9]*/comm | cut -d / -f 3)"
      rounds 1
      result nobody rootlink status nbd0
      result keep env ROOTLINK_STRICT=1 rootlink attach --keep /dev/nbd0
      until [ "$(rootlink status nbd0 | grep -c ": live, ")" = 2 ]; do sleep 0.2; done
      fault kill-and-restart
      rounds 2
      result again rootlink attach --keep nbd0
      until [ "$(rootlink status nbd0 | grep -c ": live, ")" = 2 ]; do sleep 0.2; done
      result one grep -lx rootlink-keeper /proc/[0-9]*/comm
      touch /tmp/stop
      wait
      result load grep -v round /tmp/load.log
      result end tail -n 1 /tmp/load.log
      result unmount umount /mnt
      result detach rootlink detach nbd0
      until ! grep -qx rootlink-keeper /proc/[0-9]*/comm; do sleep 0.1; done
      result refused rootlink attach --keep nbd0
      result name rootlink attach --keep sda
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
      """, kernel: .stable, faults: ["kill-and-restart"]
    ) { try server.suffer($0) }
    for step in ["attach", "nobody", "keep", "again", "one", "end", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.output(of: "nobody").contains("nobody keeps it: rootlink attach --keep"))
    #expect(console.output(of: "one").split(separator: "\n").count == 1)
    #expect(console.status(of: "refused") == 1)
    #expect(console.status(of: "name") == 2)
    #expect(console.status(of: "load") == 1, "\(console.output(of: "load"))")
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  /// As `guards` in the guest prints them. Source: rootlink(8), "WHEN THE SERVER GOES AWAY".
  private func expectGuards(_ text: String) {
    var values: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1)
      if words.count == 2 { values[String(words[0])] = String(words[1]) }
    }
    #expect(values["name"] == "@", "\(text)")
    #expect(values["oom"] == "-1000", "\(text)")
    let resident = values["VmRSS:"].flatMap { Int($0.filter(\.isNumber)) } ?? .max
    let locked = values["VmLck:"].flatMap { Int($0.filter(\.isNumber)) } ?? 0
    #expect(resident < 2048, "2 MiB are the limit: \(text)")
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

/// `rootlinkd` on one port, to which things are done.
final class FaultyServer {
  private let image: String
  private let directory: TemporaryDirectory
  private var server: HostServer
  var uri: String { server.uri }

  init(_ image: String, in directory: TemporaryDirectory) throws {
    self.image = image
    self.directory = directory
    server = try HostServer.rootlinkd(image, export: "root", in: directory)
  }

  func suffer(_ fault: String) throws {
    switch fault {
    case "kill": try kill()
    case "restart": try start(image)
    case "restart-other":
      try start(directory.path("other.img"))
    case "kill-and-restart":
      try kill()
      try start(image)
    case "drain-and-restart":
      try server.process.terminate()
      try start(image)
    case "stop": server.process.send(signal: SIGSTOP)
    case "continue": server.process.send(signal: SIGCONT)
    default: throw TinyGuest.Failure(description: "there is no fault '\(fault)'")
    }
  }

  private func kill() throws {
    server.process.send(signal: SIGKILL)
    try server.process.waitForExit()
  }

  private func start(_ image: String) throws {
    server = try HostServer.rootlinkd(image, export: "root", in: directory, port: server.port)
  }
}

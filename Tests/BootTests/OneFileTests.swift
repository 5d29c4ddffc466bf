// SPDX-License-Identifier: Apache-2.0
// rootlink as the whole initramfs: every way to a network, to a root, and out of trouble.

import Foundation
import TestSupport
import Testing

@Suite(
  "A boot of one file", .serialized,
  .enabled(if: OneFileGuest.isEnabled, "the guest lacks \(OneFileGuest.missing ?? "nothing")"))
struct OneFileTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  func expect(
    _ console: GuestConsole, _ sentences: String..., location: SourceLocation = #_sourceLocation
  ) {
    for sentence in sentences {
      #expect(
        console.text.contains(sentence), "missing: \(sentence); the end:\n\(console.lastLines)",
        sourceLocation: location)
    }
  }

  /// Debian's kernel wants 68 MiB before it starts anything.
  @Test(
    "finds its lease on the second card and its root by UUID in a partition, with 28 MiB for all of it"
  )
  func secondCard() throws {
    let server = try HostServer.rootlinkd(
      OneFileGuest.disk(partitioned: true, in: directory), export: "root", in: directory)
    let console = try OneFileGuest.finish(
      OneFileGuest.start(
        "nbdroot=10.0.2.2:\(server.port)/root root=UUID=\(OneFileGuest.rootUUID) "
          + "nameserver=10.0.2.9 single -- last",
        network: [
          "-netdev", "hubport,id=dark,hubid=9", "-device", "virtio-net-pci,netdev=dark,romfile=",
        ] + OneFileGuest.userNetwork, mebibytes: 80))
    expect(
      console, "root: process 1 words single last", "root: mount /dev/nbd0p2 / ext4 ro",
      "root: address eth1 10.0.2.15/24", "root: route default via 10.0.2.2 dev eth1",
      "root: file /run/net-eth1.conf", "root: file /run/systemd/network/00-rootlink-eth1.network",
      "root: name servers 10.0.2.9 0.0.0.0", "root: keeper 1", "root: ended")
    #expect(!console.text.contains("root: address eth0"))
    #expect(!console.text.contains("root: written"))
  }

  @Test("takes its address from the command line, and a read-only export below a layer in memory")
  func staticOverlay() throws {
    let disk = try OneFileGuest.disk(in: directory)
    let server = try HostServer.nbdkit("--readonly", "--exportname=root", "file", disk)
    let console = try OneFileGuest.finish(
      OneFileGuest.start(
        "ip=10.0.2.77::10.0.2.2:255.255.255.0:board:eth0:off:10.0.2.3 "
          + "nbdroot=10.0.2.2:\(server.port)/root rootlink.overlay=tmpfs,size=8m"))
    expect(
      console, "root: mount overlay / overlay rw", "root: written", "root: base",
      "root: address eth0 10.0.2.77/24", "root: name board", "changes in memory", "root: ended")
  }

  static let isLong = RunScope.isWhole

  @Test(
    "over IPv6, with an address of the command line and with one of the router",
    .enabled(if: isLong, "\(RunScope.reason)"),
    arguments: ["ip=[fec0::77]::[fec0::2]:64::eth0:none", "ip=auto6", ""])
  func version6(words: String) throws {
    let server = try HostServer.rootlinkd(
      OneFileGuest.disk(in: directory), export: "root", in: directory, host: "[::1]")
    let console = try OneFileGuest.finish(
      OneFileGuest.start("\(words) nbdroot=nbd://[fec0::2]:\(server.port)/root"))
    expect(
      console, "root: address eth0 fec0::\(words.contains("::77") ? "77/64" : "")", "root: ended")
    #expect(!console.text.contains("root: address eth0 10.0"))
  }

  @Test(
    "with a kernel that was made for it, in little memory",
    .enabled(if: isLong, "\(RunScope.reason)"), arguments: [64, 32])
  func littleMemory(mebibytes: Int) throws {
    let server = try HostServer.rootlinkd(
      OneFileGuest.disk(in: directory), export: "root", in: directory)
    let console = try OneFileGuest.finish(
      OneFileGuest.startSmall("nbdroot=10.0.2.2:\(server.port)/root rw", mebibytes: mebibytes))
    expect(
      console, "root: process 1 words", "root: mount /dev/nbd0 / ext4 rw", "root: keeper 1",
      "root: written", "root: ended")
  }

  @Test("over a VLAN", .enabled(if: isLong, "\(RunScope.reason)"))
  func vlan() throws {
    let wire = try TaggedWire(identifier: 5)
    let server = try HostServer.rootlinkd(
      OneFileGuest.disk(in: directory), export: "root", in: directory)
    let console = try OneFileGuest.finish(
      OneFileGuest.start(
        "vlan=eth0.5:eth0 nbdroot=10.0.2.2:\(server.port)/root rw", network: wire.arguments))
    expect(
      console, "root: address eth0.5 10.0.2.15/24", "root: mount /dev/nbd0 / ext4 rw",
      "root: written", "root: ended")
  }

  @Test("waits for a server that comes up 20 s late", .enabled(if: isLong, "\(RunScope.reason)"))
  func lateServer() throws {
    let disk = try OneFileGuest.disk(in: directory)
    let ports = HostServer.freePorts(1)
    let guest = try OneFileGuest.start("nbdroot=10.0.2.2:\(ports[0])/root")
    try guest.waitForLine(
      containing: "nothing listens there", on: .standardOutput, seconds: 120)
    Thread.sleep(forTimeInterval: 20)
    let server = try HostServer.rootlinkd(disk, export: "root", in: directory, ports: ports)
    let console = try OneFileGuest.finish(guest)
    expect(console, "/dev/nbd0 is attached", "root: ended")
    withExtendedLifetime(server) {}
  }

  @Test(
    "that cannot work says why, and restarts the machine when it is told to",
    .enabled(if: isLong, "\(RunScope.reason)"),
    arguments: [
      (
        "nbdroot=10.0.2.2/root rootlink.timeout=7",
        ["-netdev", "hubport,id=dark,hubid=9", "-device", "virtio-net-pci,netdev=dark,romfile="],
        [
          "no DHCP server answers on eth0; check the server and the VLAN, waiting",
          "no network after 7 s",
        ]
      ),
      (
        "nbdroot=10.0.2.2/root rootlink.timeout=7", [],
        ["there is no network interface; the image needs the module of the network card"]
      ),
      (
        "root=dhcp rootwait=2", OneFileGuest.userNetwork,
        [
          "rootlink: eth0: 10.0.2.15/24",
          "/dev/nbd0 is empty: no export is attached to it; name a server with nbdroot=",
        ]
      ),
      (
        "nbdroot=10.0.2.2:99999/root", OneFileGuest.userNetwork,
        ["a port from 1 to 65535 expected"]
      ),
      ("quiet", OneFileGuest.userNetwork, ["nothing names a root device"]),
    ])
  func saysWhy(words: String, network: [String], sentences: [String]) throws {
    let console = try OneFileGuest.finish(
      OneFileGuest.start(words + " rootlink.panic=1", network: network))
    for sentence in sentences + ["restarting the machine in 1 s"] { expect(console, sentence) }
  }

  /// The shell is typed into: first it ends its parent as a trap would.
  @Test(
    "whose process is ended by a trap says so, and goes on",
    .enabled(if: isLong, "\(RunScope.reason)"))
  func trap() throws {
    let server = try HostServer.rootlinkd(
      OneFileGuest.disk(in: directory), export: "root", in: directory)
    let console = directory.path("typed")
    unsafe mkfifo(console, 0o600)
    let typed = try #require(FileHandle(forUpdatingAtPath: console))
    let guest = try OneFileGuest.start(
      "nbdroot=10.0.2.2:\(server.port)/root rd.break", image: "shell", typedInto: console)
    try guest.waitForLine(
      containing: "a shell was asked for", on: .standardOutput, seconds: 120)
    try typed.write(contentsOf: Data("kill -ILL $PPID\n".utf8))
    try guest.waitForLine(
      containing: "the boot process was ended by signal 4", on: .standardOutput, seconds: 60)
    // The shell whose parent has ended may take what the new one is to have.
    for _ in 0..<120 where guest.exitStatus == nil {
      try typed.write(contentsOf: Data("exit\n".utf8))
      Thread.sleep(forTimeInterval: 1)
    }
    expect(
      try OneFileGuest.finish(guest), "a shell on the console; its end begins the boot anew",
      "/dev/nbd0 is attached already", "root: ended")
  }
}

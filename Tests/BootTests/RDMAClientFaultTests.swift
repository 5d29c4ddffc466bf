// SPDX-License-Identifier: Apache-2.0
// Our client on our server over RDMA, and our client on Linux's server that is reset: all that can be
// killed or cut is, under verified load, and no request may fail.

import Foundation
import TestSupport
import Testing

@Suite(
  "RDMA: faults of our client and its server", .serialized,
  .enabled(if: RDMAScope.isWhole, "\(RDMAScope.reason)"))
struct RDMAClientFaultTests {
  /// Source: `Heartbeat.Limits.brisk`.
  static let silenceSeconds = 7.0
  static let serve =
    "rootlinkd serve --export disk=/tmp/disk --export other=/tmp/other --listen rdma:0.0.0.0 "
    + ">>/tmp/server.log 2>&1 & echo $! >/tmp/server.pid; until_true 60 rootlinkd status"

  @Test("show, carry and refuse what Linux's do")
  func everyRequest() throws {
    let lab = try RDMAClientLab(
      "ours-on-ours-requests", serverPrograms: ["rootlinkd=\(BootLab.server.path)"])
    let (server, client) = (lab.server, lab.client)
    try server.need("truncate -s 64M /tmp/disk; truncate -s 4M /tmp/other")
    try server.need(Self.serve)
    try lab.expectEveryRequest(
      "disk", file: "/tmp/disk", rules: ["logical_block_size=512", "physical_block_size=4096"])
    try client.need("rootlink detach $disk && [ ! -e /sys/block/ublkb0 ]")
    #expect(try !server.need("rootlinkd status").contains("by 'ours'"))
    // Attached again, it is what it was.
    #expect(try lab.attach("sessname=ours,\(lab.onePath),device_path=disk").status == 0)
    try client.need("dd if=$disk bs=4k count=64 iflag=direct 2>/dev/null | cmp - /tmp/small")
    try client.need("rootlink detach $disk")
    try lab.expectPeace()
  }

  @Test("go on when either is killed, and each way and both are cut")
  func killsAndCuts() throws {
    let lab = try RDMAClientLab(
      "ours-on-ours", serverPrograms: ["rootlinkd=\(BootLab.server.path)"])
    let (server, client) = (lab.server, lab.client)
    try server.need("truncate -s 16M /tmp/disk /tmp/other")
    try server.need(Self.serve)
    let words = ["disk", "other"].map { "sessname=ours,\(lab.paths),device_path=\($0)" }
    #expect(try lab.attach(words[0], besides: "ibnbd-root=\(words[1])").status == 0)
    #expect(try server.need("rootlinkd status").contains("rw as 'other' by 'ours'"))
    try client.need("disk=/dev/ublkb0")
    let sum = try client.need("copy $disk 16")
    #expect(try server.need("sha256sum </tmp/disk") == sum)
    let connected = "until_true 60 sh -c 'rootlink status ublkb0 --json | grep -q connected.:"
    try client.need("numbers $disk & sleep 1")
    // Either dies.
    try server.need("kill -9 $(cat /tmp/server.pid); sleep 2")
    try server.need(Self.serve)
    try client.need(connected + "2'")
    try lab.killCarrier()
    try client.need(connected + "2'")
    // The process dies with every request of a device in hand, which the driver learns late.
    try server.need("kill -STOP $(cat /tmp/server.pid)")
    try client.need(
      "n=0; while [ $n -lt 80 ]; do dd if=/dev/ublkb1 of=/dev/null bs=4k count=1 skip=$n "
        + "iflag=direct 2>/dev/null & n=$((n + 1)); done; sleep 1; old=$(carrier); kill -9 $old")
    try server.need("kill -CONT $(cat /tmp/server.pid)")
    let took = try client.need(
      "begun=$(cut -d' ' -f1 /proc/uptime); until_true 60 replaced && "
        + "awk -v begun=$begun '{ print $1 - begun }' /proc/uptime")
    print("RDMA: a process that had every request is replaced after \(took) s")
    #expect(try #require(Double(took)) < 15)
    try client.need(connected + "2'")
    // One way is cut, the other, both; the other device has been asked for nothing meanwhile.
    for cards in [[client.card], [client.secondCard], [client.card, client.secondCard]] {
      let begun = try client.need("cut -d' ' -f1 /proc/uptime")
      for card in cards { lab.wire.setCut(true, cards: card) }
      try client.need(connected + "\(2 - cards.count)'")
      let told = try client.need(
        "dmesg | grep 'server is silent' | tail -n 1 | sed 's/^.//; s/].*//'")
      let seconds =
        try #require(Double(told.trimmingCharacters(in: .whitespaces)))
        - #require(Double(begun))
      print("RDMA: a silent server was noticed after \(seconds) s")
      #expect((0..<Self.silenceSeconds + 1).contains(seconds))
      try client.need("sleep 1")
      for card in cards { lab.wire.setCut(false, cards: card) }
      try client.need(connected + "2'")
    }
    let other = try client.need("copy /dev/ublkb1 16", seconds: 240)
    #expect(try server.need("sha256sum </tmp/other") == other)
    try client.need("sleep 1; touch /tmp/stop; wait", seconds: 60)
    let count = try client.need("numbered $disk")
    #expect(count.contains("failed 0"), "\(count)")
    print("RDMA: our client on our server, kills and cuts: \(count)")
    #expect(try lab.lines("must not allocate\\|reserve of memory") == 0)
    try client.need("rootlink detach $disk && rootlink detach ublkb1")
    #expect(try !server.need("rootlinkd status").contains("by 'ours'"))
    try lab.expectPeace()
  }

  @Test("go on when Linux's server is reset")
  func resetServer() throws {
    let directory = try TemporaryDirectory(inMemory: true)
    let disk = directory.path("disk.img")
    _ = FileManager.default.createFile(atPath: disk, contents: Data(count: 16 << 20))
    let lab = try RDMAClientLab("ours-on-reset", drive: disk)
    let client = lab.client
    let serve = "modprobe virtio_blk && until_true 10 [ -b /dev/vda ] && modprobe rnbd_server"
    try lab.server.need(serve)
    #expect(try lab.attach("sessname=ours,\(lab.paths),device_path=/dev/vda").status == 0)
    try client.need("disk=/dev/ublkb0; numbers $disk & sleep 2; [ -s /tmp/numbers ]")
    try lab.server.kill()
    let back = try RDMAGuest(
      "ours-on-reset-back", number: lab.server.number, on: lab.wire, cards: 2, drive: disk,
      in: lab.directory)
    try back.waitUntilReady()
    try back.need(serve)
    try client.need("until_true 90 sh -c 'rootlink status --json | grep -q connected.:2'")
    try client.need("sleep 1; touch /tmp/stop; wait", seconds: 60)
    let count = try client.need("numbered $disk")
    #expect(count.contains("failed 0"), "\(count)")
    print("RDMA: our client, Linux's server was reset: \(count)")
    try client.need("rootlink detach $disk")
    for guest in [back, client] { #expect(try guest.run("trouble").status == 0) }
    withExtendedLifetime(directory) {}
  }

  /// Where its queue pairs have the numbers of before, the kernel of the server refuses it once, and
  /// ends the connections of before.
  @Test("a client that was reset has its device again, however late its end would be noticed")
  func resetClient() throws {
    let lab = try RDMAClientLab(
      "ours-reset", serverPrograms: ["rootlinkd=\(BootLab.server.path)"])
    let server = lab.server
    try server.need("truncate -s 16M /tmp/disk /tmp/other")
    try server.need("printf '[rdma]\\nsilence_seconds = 300\\n' >/tmp/server.toml")
    try server.need(Self.serve.replacing("serve ", with: "serve --config /tmp/server.toml "))
    let words = "sessname=board,\(lab.onePath),device_path=disk"
    #expect(try lab.attach(words).status == 0)
    let sum = try lab.client.need("copy /dev/ublkb0 4")
    try lab.client.kill()
    let back = try RDMAGuest(
      "ours-reset-back", number: lab.client.number, on: lab.wire, cards: 2,
      programs: ["rootlink=\(RDMAClientLab.program.path)"], in: lab.directory)
    try back.waitUntilReady()
    try back.need("modprobe ublk_drv; until_true 30 ping -c 1 -W 1 \(server.address)")
    #expect(try server.need("rootlinkd status").contains("by 'board'"), "it is there still")
    let took = try back.need(
      "begun=$(cut -d' ' -f1 /proc/uptime); rootlink attach --cmdline 'ibnbd-root=\(words)' 2>&1 && "
        + "awk -v begun=$begun '{ print $1 - begun }' /proc/uptime")
    let seconds = try #require(Double(took.split(separator: "\n").last ?? ""))
    print("RDMA: our client that was reset has its device after \(seconds) s")
    #expect(
      try back.need("dd if=/dev/ublkb0 bs=1M count=4 iflag=direct 2>/dev/null | sha256sum") == sum)
    try back.need("copy /dev/ublkb0 4 && rootlink detach ublkb0")
    for guest in [server, back] { #expect(try guest.run("trouble").status == 0) }
  }
}

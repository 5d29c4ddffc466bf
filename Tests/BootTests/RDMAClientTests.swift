// SPDX-License-Identifier: Apache-2.0
// Our client over RDMA, on Linux's rnbd_server and on rootlinkd: what it shows of a device, what it
// carries, what it says of refusals, and what becomes of its requests when paths, servers or its own
// process die. ROOTLINK_STRICT is in its environment: an allocation that the reserve does not have, or
// an opened file, ends it.

import Foundation
import TestSupport
import Testing

/// A client with two network cards on a wire with its server.
final class RDMAClientLab {
  static let program = BootLab.repository.appending(path: "out/rootlink-rdma")
  static let missing: String? =
    RDMAGuest.missing
    ?? (findProgram(program.path) == nil ? "\(program.path); run make rdma" : nil)
  static var isEnabled: Bool { missing == nil || mayNotSkip }

  let directory: TemporaryDirectory
  let wire: GuestWire
  let server: RDMAGuest
  let client: RDMAGuest

  init(_ name: String, serverPrograms: [String] = [], drive: String? = nil) throws {
    let directory = try TemporaryDirectory()
    let wire = try GuestWire()
    self.directory = directory
    self.wire = wire
    server = try RDMAGuest(
      "\(name)-server", number: 1, on: wire, cards: 2, programs: serverPrograms,
      drive: drive, in: directory)
    client = try RDMAGuest(
      "\(name)-client", number: 2, on: wire, cards: 2,
      programs: ["rootlink=\(Self.program.path)"], in: directory)
    for guest in [server, client] { try guest.waitUntilReady() }
    try client.need(
      "modprobe ublk_drv; export ROOTLINK_STRICT=1; "
        + "carrier() { rootlink status --json | sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p'; }")
  }

  deinit {
    // A stall that the network explains is told apart from one that it does not.
    print("\(client.name): the wire has dropped \(wire.droppedFrameCount) frames")
    let counters = "grep -H . /sys/class/infiniband/*/ports/1/hw_counters/*; "
    for guest in [client, server] { _ = try? guest.run(counters, seconds: 30) }
    _ = try? client.run("dmesg | grep rootlink; rootlink status", seconds: 30)
    _ = try? server.run("cat /tmp/server.log; dmesg | tail -n 40", seconds: 30)
  }

  /// Both ways to the server.
  var paths: String {
    "path=ip:\(client.address)@ip:\(server.address),"
      + "path=ip:\(client.secondAddress)@ip:\(server.secondAddress)"
  }
  var onePath: String { "path=ip:\(client.address)@ip:\(server.address)" }

  /// Attaches, once; `words` are those of `ibnbd-root=`.
  func attach(_ words: String, besides: String = "") throws -> RDMAGuest.Step {
    try client.run("rootlink attach --once --cmdline 'ibnbd-root=\(words) \(besides)' 2>&1")
  }

  /// Kills the process that carries the data, and waits for the one that goes on.
  func killCarrier() throws {
    try client.need(
      "replaced() { new=$(carrier); [ -n \"$new\" ] && [ \"$new\" != \"$old\" ]; }; "
        + "old=$(carrier); kill -9 $old; until_true 60 replaced")
    try client.need("until_true 60 sh -c 'rootlink status --json | grep -q state.:.open'")
  }

  func status() throws -> String { try client.need("rootlink status --json") }
  func lines(_ text: String) throws -> Int {
    Int(try client.need("dmesg | grep -c '\(text)' || true")) ?? -1
  }

  /// Attaches the server's device `name` of 64 MiB, which is `file` there, over both paths with two
  /// queues as /dev/ublkb0, which is $disk and stays, and asks for everything that there is to be asked
  /// for. `rules`: of the queue in sysfs.
  func expectEveryRequest(_ name: String, file: String, rules: [String]) throws {
    let attached = try attach("sessname=ours,\(paths),device_path=\(name),queues=2")
    #expect(attached.status == 0, "\(attached)")
    try client.need("until_true 20 sh -c 'rootlink status --json | grep -q connected.:2'")
    // While it waits it is an ordinary task: rt_priority and policy in /proc/PID/stat.
    #expect(
      try client.need("sed 's/.*) //' /proc/$(carrier)/stat | cut -d ' ' -f 38,39") == "0 0")
    #expect(
      try lines("RDMA transport established: rxe1 port 1, path \(client.secondAddress)@") == 1)
    #expect(try client.need("blockdev --getsize64 /dev/ublkb0") == "67108864")
    try client.need("disk=/dev/ublkb0; queue=/sys/block/ublkb0/queue")
    for rule in rules + ["write_cache=write back"] {
      let (key, value) = (rule.prefix { $0 != "=" }, rule.drop { $0 != "=" }.dropFirst())
      #expect(try client.need("cat $queue/\(key)") == value, "\(key)")
    }
    for key in ["discard_max_bytes", "write_zeroes_max_bytes"] {
      #expect(try client.need("cat $queue/\(key)") != "0", "\(key)")
    }

    let sum = try client.need("copy $disk 64", seconds: 240)
    #expect(try server.need("sha256sum <\(file)") == sum)
    try client.writeBlocks()

    // A second writer is refused, unless both are one machine that moves; a reader is not.
    let other = "\(onePath),device_path=\(name),dev=ublkb1"
    let refused = try attach("sessname=other,\(other)")
    #expect(refused.status == 1 && refused.output.contains("EPERM"), "\(refused)")
    #expect(try attach("sessname=moving,\(other),access_mode=migration").status == 0)
    try client.need("dd if=/dev/ublkb1 bs=4k count=64 2>/dev/null | cmp - /tmp/small")
    try client.need("dd if=/tmp/small of=/dev/ublkb1 bs=4k count=1 oflag=direct 2>/dev/null")
    try client.need("rootlink detach ublkb1")
    #expect(try attach("sessname=reading,\(other),access_mode=ro").status == 0)
    #expect(try client.need("cat /sys/block/ublkb1/ro") == "1")
    #expect(try client.run("dd if=/dev/zero of=/dev/ublkb1 count=1 2>&1").status != 0)
    try client.need("rootlink detach ublkb1")
  }

  func expectPeace() throws {
    for guest in [server, client] {
      let step = try guest.run("trouble")
      #expect(step.status == 0, "\(guest.name): \(step)")
    }
  }
}

@Suite(
  "RDMA: our client", .serialized,
  .enabled(
    if: RDMAClientLab.isEnabled, "our client over RDMA lacks \(RDMAClientLab.missing ?? "nothing")")
)
struct RDMAClientTests {
  @Test("attaches a device of Linux's server, and carries it over two paths")
  func kernelServer() throws {
    let lab = try RDMAClientLab("ours-on-kernel")
    let (server, client) = (lab.server, lab.client)
    try server.need(
      "truncate -s 64M /tmp/disk && modprobe loop && losetup /dev/loop0 /tmp/disk && "
        + "modprobe rnbd_server dev_search_path=/")
    // What cannot be is one line that says so.
    let missing = try lab.attach("sessname=ours,\(lab.onePath),device_path=/dev/nothing")
    #expect(missing.status == 1 && missing.output.contains("ENOENT"), "\(missing)")
    let unheard = try lab.attach("sessname=ours,\(lab.onePath),device_path=/dev/loop0,port=999")
    #expect(unheard.status == 1 && unheard.output.contains(":999: "), "\(unheard)")

    try lab.expectEveryRequest(
      "/dev/loop0", file: "/dev/loop0", rules: ["logical_block_size=512", "max_sectors_kb=124"])

    // A path that is cut loses no request, and comes back.
    try client.need("numbers $disk & sleep 1")
    lab.wire.setCut(true, cards: client.secondCard)
    try client.need("until_true 30 sh -c 'rootlink status --json | grep -q connected.:1'")
    try client.need("sleep 1")
    lab.wire.setCut(false, cards: client.secondCard)
    try client.need("until_true 40 sh -c 'rootlink status --json | grep -q connected.:2'")
    // All of them: what was written while no path lived waits, and the device is opened again.
    try server.need(
      "for path in /sys/class/rtrs-server/*/paths/*; do echo 1 >$path/disconnect; done")
    try client.need("until_true 40 sh -c 'rootlink status --json | grep -q connected.:2'")
    // The process dies, and the one that stands by starts another.
    try lab.killCarrier()
    try client.need("sleep 1; touch /tmp/stop; wait", seconds: 60)
    let count = try client.need("numbered $disk")
    #expect(count.contains("failed 0"), "\(count)")
    #expect(try lab.lines("must not allocate\\|reserve of memory") == 0)
    try client.need("rootlink detach $disk && [ ! -e /sys/block/ublkb0 ]")
    // Attached again, it is what it was.
    #expect(try lab.attach("sessname=ours,\(lab.onePath),device_path=/dev/loop0").status == 0)
    try client.need("numbered $disk && rootlink detach $disk")
    try lab.expectPeace()
  }

  @Test(
    "carries several devices of Linux's server over one session, each by itself",
    .enabled(if: RDMAScope.isWhole, "\(RDMAScope.reason)"))
  func sharedSession() throws {
    let lab = try RDMAClientLab("ours-shared")
    let (server, client) = (lab.server, lab.client)
    try server.need(
      "truncate -s 16M /tmp/disk0 /tmp/disk1 && modprobe loop && losetup /dev/loop0 /tmp/disk0 && "
        + "losetup /dev/loop1 /tmp/disk1 && modprobe rnbd_server dev_search_path=/")
    // Soft-RoCE has no addresses of InfiniBand's own.
    let foreign = try lab.attach("sessname=ours,path=gid:fe80::1,device_path=/dev/loop0")
    #expect(
      foreign.status == 1 && foreign.output.contains("gid:fe80")
        && foreign.output.contains("errno 19"),
      "\(foreign)")
    let words = (0..<2).map { "sessname=ours,\(lab.paths),device_path=/dev/loop\($0)" }
    let attached = try lab.attach(words[0], besides: "ibnbd-root=\(words[1])")
    #expect(attached.status == 0, "\(attached)")
    #expect(try server.need("ls /sys/class/rtrs-server | grep -v ctl") == "ours")
    try client.need("until_true 20 sh -c 'rootlink status --json | grep -q connected.:2'")
    for number in 0..<2 {
      let status = try client.need("rootlink status ublkb\(number) --json")
      for key in [
        "\"state\":\"open\"", "\"session\":\"ours\"", "\"mappingPath\":\"/dev/loop\(number)\"",
        "\"accessMode\":\"rw\"",
        "{\"path\":\"\(client.secondAddress)@\(server.secondAddress):1234\",\"state\":\"connected\"}",
      ] { #expect(status.contains(key), "\(key) in \(status)") }
    }
    #expect(
      try client.need("rootlink status --json | grep -o 'pid.:[0-9]*' | sort -u | wc -l") == "1")
    let again = try lab.attach(words[1] + ",dev=ublkb5")
    #expect(again.status == 1 && again.output.contains("is /dev/ublkb1 already"), "\(again)")
    // What is in use is not let go of.
    let busy = try client.run(
      "mkswap /dev/ublkb1 >/dev/null; swapon /dev/ublkb1; rootlink detach ublkb1 2>&1")
    #expect(busy.status == 1 && busy.output.contains("busy"), "\(busy)")
    try client.need("swapoff /dev/ublkb1")

    // Both go on without an error when their process is killed, and all paths are cut.
    try client.need("disk=/dev/ublkb0; numbers $disk & sleep 1")
    try lab.killCarrier()
    let sum = try client.need("copy /dev/ublkb1 16", seconds: 240)
    #expect(try server.need("sha256sum </dev/loop1") == sum)
    lab.wire.setCut(true, cards: client.card, client.secondCard)
    try client.need("until_true 40 sh -c 'rootlink status ublkb1 --json | grep -q state.:.closed'")
    lab.wire.setCut(false, cards: client.card, client.secondCard)
    try client.need("until_true 40 sh -c 'rootlink status ublkb1 --json | grep -q state.:.open'")
    // One is let go of, and the other is left alone.
    let before = try client.need("carrier | head -c 20")
    try client.need("rootlink detach ublkb1 && [ ! -e /sys/block/ublkb1 ]")
    try server.need("until_true 10 sh -c '! ls /sys/class/rnbd-server/ctl/devices | grep loop1'")
    // Later it gets a session of its own.
    let later = try lab.attach(words[1] + ",dev=ublkb1")
    #expect(later.status == 0, "\(later)")
    #expect(try client.need("rootlink status ublkb1 --json").contains("\"session\":\"ours_1\""))
    try client.need("copy /dev/ublkb1 1 && rootlink detach ublkb1")
    #expect(try client.need("carrier | head -c 20") == before)
    try client.need("sleep 1; touch /tmp/stop; wait", seconds: 60)
    let count = try client.need("numbered $disk")
    #expect(count.contains("failed 0"), "\(count)")
    try client.need("rootlink detach $disk; rm -f /tmp/stop")

    // By force, with a request in flight that no server answers: the other one goes on.
    #expect(try lab.attach(words[0], besides: "ibnbd-root=\(words[1])").status == 0)
    lab.wire.setCut(true, cards: client.card, client.secondCard)
    try client.need(
      "(dd if=/dev/ublkb1 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; echo $? >/tmp/read) & "
        + "numbers $disk & sleep 1; rootlink detach ublkb1 --force && until_true 10 grep 1 /tmp/read"
    )
    lab.wire.setCut(false, cards: client.card, client.secondCard)
    try client.need("until_true 60 sh -c 'rootlink status ublkb0 --json | grep -q state.:.open'")
    try client.need("sleep 1; touch /tmp/stop; wait", seconds: 60)
    #expect(try client.need("numbered $disk").contains("failed 0"))
    try client.need("rootlink detach ublkb0 && [ -z \"$(ls /sys/class/ublk-char)\" ]")
    #expect(try lab.lines("must not allocate\\|reserve of memory") == 0)
    try lab.expectPeace()
  }

  @Test(
    "makes a soft device where the machine has none, and fails requests after the time that is set",
    .enabled(if: RDMAScope.isWhole, "\(RDMAScope.reason)"))
  func softDevice() throws {
    let lab = try RDMAClientLab("soft")
    let (server, client) = (lab.server, lab.client)
    try server.need("modprobe brd rd_nr=1 rd_size=4096 && modprobe rnbd_server dev_search_path=/")
    try client.need("rdma link del rxe0; rdma link del rxe1")
    let words = "sessname=soft,\(lab.onePath),device_path=/dev/ram0"
    let none = try lab.attach(words)
    #expect(none.status == 1 && none.output.contains("this machine has no RDMA device"), "\(none)")
    let nowhere = try lab.attach(words, besides: "rootlink.rdma=rxe:eth7")
    #expect(nowhere.status == 1 && nowhere.output.contains("rootlink.rdma=rxe:eth7"), "\(nowhere)")
    let wrong = try lab.attach(words, besides: "rootlink.rdma=mlx5:eth0")
    #expect(wrong.status == 2, "\(wrong)")
    let made = try lab.attach(words, besides: "rootlink.rdma=rxe:eth0")
    #expect(made.status == 0, "\(made)")
    #expect(try client.need("rdma link show").contains("rxe_eth0"))
    #expect(try lab.lines("RDMA transport established: rxe_eth0 port 1") == 1)
    try client.need("rootlink detach ublkb0")
    // It is there already, and that is no error.
    #expect(
      try lab.attach(words, besides: "rootlink.rdma=rxe:eth0 rootlink.deadtime=3").status == 0)
    // Requests fail when nobody has answered for as long as that is allowed, until somebody does.
    let read = "dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct 2>&1"
    lab.wire.setCut(true, cards: client.card)
    #expect(try client.run(read).output.contains("I/O error"))
    lab.wire.setCut(false, cards: client.card)
    try client.need("until_true 60 sh -c 'rootlink status ublkb0 --json | grep -q state.:.open'")
    try client.need(read)
    try client.need("rootlink detach ublkb0")
    try lab.expectPeace()
  }
}

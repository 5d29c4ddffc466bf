// SPDX-License-Identifier: Apache-2.0
// A whole Debian whose root is a device of rootlinkd over soft-RoCE: the initramfs has the larger build
// of the client and the modules that its hook brings, and nothing of iproute2's rdma.

import Foundation
import TestSupport
import Testing

@Suite(
  "RDMA: a Debian's root", .serialized,
  .enabled(if: RDMAScope.isWhole, "\(RDMAScope.reason)"))
struct RDMABootTests {
  @Test(
    "is attached before it is mounted, carried over a kill, and let go of without an error",
    arguments: [BootGuest.Generator.initramfsTools, .dracut])
  func boots(generator: BootGuest.Generator) async throws {
    let name = "rdma-debian-\(generator.rawValue)"
    let results = BootLab.results
    let program = RDMAClientLab.program
    let initramfs = try await results.path(
      "make-initramfs.sh", "--kernel", "6.12", "--generator", generator.rawValue, "--rootlink",
      program.path)
    let kernel = try await results.path("fetch-kernels.sh", "6.12").split(separator: " ")
      .map(String.init)
    let image = try await results.path("make-image.sh", "plain")
    let directory = try TemporaryDirectory(inMemory: true)
    let disk = URL(fileURLWithPath: directory.path("root.img"))
    _ = try await HostProcess.run(
      ["cp", "--reflink=auto", "--sparse=always", image, disk.path], withinSeconds: 60)
    try await DebianLifeTests.installClient(program, on: disk)

    let wire = try GuestWire()
    // Both go away with their last use otherwise, and the guests' disk and network with them.
    defer { withExtendedLifetime((directory, wire)) {} }
    let server = try RDMAGuest(
      "\(name)-server", number: 1, on: wire, programs: ["rootlinkd=\(BootLab.server.path)"],
      drive: disk.path, in: directory)
    try server.waitUntilReady()
    try server.need(
      "modprobe virtio_blk && until_true 10 [ -b /dev/vda ] && { rootlinkd serve "
        + "--export root=/dev/vda --listen rdma:0.0.0.0 >/tmp/server.log 2>&1 & "
        + "until_true 60 rootlinkd status; }")

    let nonce = String(UInt64.random(in: .min ... .max), radix: 36)
    let parameters = [
      "net.ifnames=0", "ip=10.9.0.2:::255.255.255.0::eth0:off", "rootlink.rdma=rxe:eth0",
      "ibnbd-root=sessname=board,path=ip:\(server.address),device_path=root", "root=/dev/ublkb0",
      "bootcheck=\(nonce)", "bootcheck.root=/dev/ublkb0", "bootcheck.load=2",
      "bootcheck.keep=ublkb0",
    ]
    let guest = try HostProcess(
      [
        BootLab.scripts.appending(path: "boot.sh").path,
        "--kernel", "\(kernel[1])/boot/vmlinuz-\(kernel[0])", "--initramfs", initramfs,
        "--append", parameters.joined(separator: " "),
      ] + wire.arguments(forCard: 2), output: BootLab.logs.appending(path: "rdma/\(name).log"),
      lifetimeSeconds: 1000)
    defer { guest.end() }
    let status = try await guest.status(withinSeconds: 900)

    // The dead client's session has ended when its server says so, or is gone.
    let log = try server.need("cat /tmp/server.log; rootlinkd status; sync")
    _ = try? server.run("poweroff -f", seconds: 20)
    let outcome = await BootOutcome(
      name: name, nonce: nonce, console: guest.text, status: status, servers: [log], on: disk)
    outcome.expectCleanBoot()
    outcome.expectConsole(contains: "RDMA transport established: rxe_eth0 port 1")
    outcome.expectConsole(contains: "boot-check: load second: ended after 2 rounds")
    outcome.expectConsole(contains: "the process that carried its data has ended; process")
  }
}

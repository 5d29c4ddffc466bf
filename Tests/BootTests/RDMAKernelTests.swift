// SPDX-License-Identifier: Apache-2.0
// Linux's client against Linux's server: what the guests, the wire and the modules of the lab can
// do, before any program of ours is judged with them.

import Foundation
import TestSupport
import Testing

@Suite(
  "RDMA: Linux's own RNBD on both sides", .serialized,
  .enabled(if: RDMAScope.isWhole, "\(RDMAScope.reason)"))
struct RDMAKernelTests {
  @Test("carries data whole, and the lab sees a wire that is cut and a disk that was changed")
  func kernelToKernel() throws {
    let directory = try TemporaryDirectory()
    let wire = try GuestWire()
    let server = try RDMAGuest("kernel-server", number: 1, on: wire, in: directory)
    let client = try RDMAGuest("kernel-client", number: 2, on: wire, in: directory)
    try server.waitUntilReady()
    try client.waitUntilReady()
    try server.need("modprobe brd rd_nr=1 rd_size=16384 && modprobe rnbd_server dev_search_path=/")
    try client.need("modprobe rnbd_client")
    try client.need("map \(server.address) /dev/ram0 lab && disk=$(device /dev/ram0 lab)")
    #expect(try client.need("blockdev --getsize64 $disk") == "16777216")
    let written = try client.need("copy $disk 16")
    #expect(try server.need("sha256sum </dev/ram0") == written)
    // The lab can fail: a byte that somebody changed is seen.
    try server.need("printf x | dd of=/dev/ram0 bs=1 seek=5000000 conv=notrunc 2>/dev/null; sync")
    let step = try client.run("dd if=$disk bs=1M iflag=direct 2>/dev/null | cmp - /tmp/written")
    #expect(step.status == 1, "\(step)")
    // And a cut wire is one: nothing is answered until it is whole again, for RoCE repeats.
    wire.setCut(true, cards: client.card)
    let order = try client.start("dd if=$disk of=/dev/null bs=4k count=1 iflag=direct")
    let limit = Date() + 60
    while wire.lostFrameCount(ofCard: client.card) < 2 {
      try #require(Date() < limit, "the guest sends nothing")
      usleep(10_000)
    }
    #expect(!client.hasEnded(order))
    wire.setCut(false, cards: client.card)
    #expect(try client.finish(order).status == 0)
    try client.need("unmap $disk")
    for guest in [client, server] { #expect(try guest.run("trouble").status == 0) }
  }
}

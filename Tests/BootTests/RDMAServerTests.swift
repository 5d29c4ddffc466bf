// SPDX-License-Identifier: Apache-2.0
// Linux's RNBD client against rootlinkd, in guests: what it shows of a device, what it carries, what
// it is refused, and what becomes of it when either side dies.

import Foundation
import TestSupport
import Testing

/// Guests on one wire, of which the first runs rootlinkd.
final class RDMAServerLab {
  let directory: TemporaryDirectory
  let wire: GuestWire
  let server: RDMAGuest
  let clients: [RDMAGuest]
  var client: RDMAGuest { clients[0] }

  /// `name`: of the logs.
  init(
    _ name: String, clients count: Int = 1, cards: Int = 1, programs: [String] = []
  ) throws {
    let directory = try TemporaryDirectory()
    let wire = try GuestWire()
    self.directory = directory
    self.wire = wire
    let all = ["rootlinkd=\(BootLab.server.path)", "killall5"] + programs
    server = try RDMAGuest(
      "\(name)-server", number: 1, on: wire, cards: cards, programs: all, in: directory)
    clients = try (0..<count).map { index in
      try RDMAGuest(
        "\(name)-client-\(index + 1)", number: UInt16(index + 2), on: wire, cards: cards,
        programs: programs,
        in: directory)
    }
    for guest in [server] + clients { try guest.waitUntilReady() }
    for client in clients { try client.need("modprobe rnbd_client") }
  }

  /// What the server has said is kept with its console.
  deinit { _ = try? server.run("sleep 3; cat /tmp/server.log; rootlinkd status", seconds: 30) }

  /// Writes /tmp/server.toml and starts rootlinkd, which is /tmp/server.pid from then on.
  func serve(_ configuration: [String]) throws {
    try server.need(": >/tmp/server.toml")
    var configuration = configuration
    // Guests stand still for seconds when the machine is busy.
    if !configuration.contains("[rdma]") { configuration.append("[rdma]") }
    if !configuration.contains(where: { $0.contains("silence_seconds") }) {
      configuration.append("silence_seconds = 60")
    }
    for line in configuration { try server.need("echo '\(line)' >>/tmp/server.toml") }
    try restart()
  }

  func restart() throws {
    try server.need(
      "rootlinkd serve --config /tmp/server.toml --listen rdma:0.0.0.0 --listen tcp:127.0.0.1:10809 "
        + ">>/tmp/server.log 2>&1 & echo $! >/tmp/server.pid; "
        + "until_true 60 rootlinkd status || { rootlinkd status; cat /tmp/server.log; false; }")
  }

  func status() throws -> [String: Any] {
    let text = try server.need("rootlinkd status --json")
    guard let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    else { throw TinyGuest.Failure(description: "no object: \(text)") }
    return object
  }

  /// No guest's kernel has complained, and the server has not died.
  func expectPeace() throws {
    for guest in [server] + clients {
      let step = try guest.run("trouble")
      #expect(step.status == 0, "\(guest.name): \(step)")
    }
    let log = try server.need("cat /tmp/server.log; kill -0 $(cat /tmp/server.pid)")
    #expect(!log.contains("Fatal error"), "\(log)")
  }
}

@Suite(
  "RDMA: Linux's client and rootlinkd", .serialized,
  .enabled(if: RDMAGuest.isEnabled, "the guests with RDMA lack \(RDMAGuest.missing ?? "nothing")"))
struct RDMAServerTests {
  @Test("maps, reads, writes, discards and unmaps a device as it does with its own server")
  func everyRequest() throws {
    let lab = try RDMAServerLab("requests")
    let (server, client) = (lab.server, lab.client)
    try server.need("truncate -s 64M /tmp/disk; truncate -s 8M /tmp/fixed /tmp/layered")
    try server.need(
      "mkdir /tmp/below && truncate -s 4M /tmp/below/found && ln -s /tmp/disk /tmp/below/out")
    try server.need("dd if=/dev/urandom of=/tmp/fixed bs=1M count=8 2>/dev/null")
    try lab.serve([
      "[export.disk]", "path = \"/tmp/disk\"",
      "[export.fixed]", "path = \"/tmp/fixed\"", "mode = \"ro\"",
      "[export.layered]", "path = \"/tmp/layered\"", "mode = \"overlay\"",
      "[rdma]", "dev_search_path = \"/tmp/below\"",
    ])
    let address = server.address
    try client.need(
      "map \(address) disk lab && disk=$(device disk lab) && queue=/sys/block/${disk#/dev/}/queue")
    #expect(try client.need("blockdev --getsize64 $disk") == "67108864")
    for (file, value) in [
      ("logical_block_size", "512"), ("physical_block_size", "4096"), ("fua", "1"),
      ("write_cache", "write back"), ("max_hw_sectors_kb", "128"),
      ("discard_max_bytes", "1073741824"), ("write_zeroes_max_bytes", "67108864"),
      ("discard_granularity", "4096"),
    ] { #expect(try client.need("cat $queue/\(file)") == value, "\(file)") }
    #expect(try client.need("cat /sys/block/${disk#/dev/}/rnbd/state") == "open")

    let sum = try client.need("copy $disk 64", seconds: 240)
    #expect(try server.need("sha256sum </tmp/disk") == sum)
    try client.writeBlocks()
    #expect(
      try server.need("dd if=/tmp/disk bs=4k count=64 2>/dev/null | sha256sum").hasPrefix(
        try client.need("sha256sum </tmp/small")))

    // The same name again is an error of the client's own; a second session may only read.
    #expect(try client.run("map \(address) disk lab").output.contains("File exists"))
    let second = try client.run("map \(address) disk other")
    #expect(second.output.contains("Operation not permitted"), "\(second)")
    try client.need("map \(address) disk other access_mode=ro && ro=$(device disk other)")
    #expect(try client.run("dd if=/dev/zero of=$ro bs=4k count=1 oflag=direct").status != 0)
    try client.need("cold; dd if=$ro bs=4k count=64 iflag=direct 2>/dev/null | cmp - /tmp/small")
    try client.need("unmap $ro")
    try client.need("map \(address) disk mover access_mode=migration && moved=$(device disk mover)")
    try client.need("dd if=/dev/zero of=$moved bs=4k count=1 oflag=direct 2>/dev/null")
    let third = try client.run("map \(address) disk third access_mode=migration")
    #expect(third.output.contains("Operation not permitted"), "\(third)")
    // Somebody else's protocol is a writer, too.
    #expect(try server.need("cat /proc/$(cat /tmp/server.pid)/comm") == "rootlinkd")

    let status = try lab.status()
    let sessions = try #require(status["transportSessions"] as? [[String: Any]])
    #expect(sessions.count == 2)
    let lab1 = try #require(sessions.first { $0["name"] as? String == "lab" })
    let paths = try #require(lab1["paths"] as? [[String: Any]])
    #expect(paths.count == 1)
    #expect(paths[0]["state"] as? String == "connected")
    #expect(paths[0]["client"] as? String == client.address)
    #expect((paths[0]["writtenBytes"] as? Int ?? 0) > 64 << 20)
    let exports = try #require(status["exports"] as? [[String: Any]])
    let open = try #require(exports.first { $0["name"] as? String == "disk" }?["sessions"])
    let modes = (open as? [[String: Any]])?.compactMap { $0["accessMode"] as? String } ?? []
    #expect(modes.sorted() == ["migration", "rw"])
    #expect(try server.need("rootlinkd status").contains("rw as 'disk' by 'lab'"))

    try client.need("unmap $moved && unmap $disk")
    try client.need("map \(address) /disk lab && disk=$(device /disk lab) && unmap $disk")

    // What is not there, what may not be written, what lies below the search path and what does not.
    for (name, options, words) in [
      ("missing", "", "No such file"), ("fixed", "", "Read-only file system"),
      ("../disk", "", "Invalid argument"), ("out", "", "Invalid argument"),
    ] {
      let step = try client.run("map \(address) \(name) lab \(options)")
      #expect(step.status != 0 && step.output.contains(words), "\(step)")
    }
    try client.need("map \(address) fixed lab access_mode=ro && fixed=$(device fixed lab)")
    #expect(
      try client.need("dd if=$fixed bs=1M iflag=direct 2>/dev/null | sha256sum")
        == server.need("sha256sum </tmp/fixed"))
    try client.need("map \(address) found lab && found=$(device found lab)")
    try client.need("copy $found 4")
    // What is written to an overlay stays out of its image.
    try client.need("map \(address) layered lab && layered=$(device layered lab)")
    try client.need("copy $layered 8")
    try server.need("[ $(tr -d '\\0' </tmp/layered | wc -c) = 0 ]")
    try client.need("unmap $fixed && unmap $found && unmap $layered")
    try lab.expectPeace()
    try server.need("kill $(cat /tmp/server.pid); until_true 10 grep -q stopped /tmp/server.log")
  }
}

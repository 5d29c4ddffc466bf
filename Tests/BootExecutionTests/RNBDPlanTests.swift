// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import RDMAVerbs
import RNBDClient
import RNBDProtocol
import RTRSProtocol
import Testing
import UblkDriver
import WireFormat

@testable import BootExecution

@Suite("what is kept of an RNBD session")
struct RNBDPlanTests {
  static func plan() throws -> RNBDPlan {
    RNBDPlan(
      session: try SessionName("board 7=x"),
      disks: [
        RNBDPlan.Disk(
          index: 3, byteCount: 1 << 30, payloadByteCount: 126_976,
          name: try RNBDProtocol.DeviceName("/dev/sda\n1 =\\x2f"), accessMode: .migration),
        RNBDPlan.Disk(
          index: 0, name: try RNBDProtocol.DeviceName("second"), accessMode: .readOnly),
      ],
      paths: [
        PathAddresses(
          source: SocketAddress(ipv4: [10, 0, 0, 2], port: 0),
          destination: SocketAddress(ipv4: [10, 0, 0, 1], port: 1234)),
        PathAddresses(
          source: nil,
          destination: SocketAddress(
            ipv6: [0x20, 1] + Array(repeating: 0, count: 13) + [1], port: 1235, scope: 0)),
        PathAddresses(
          source: nil,
          destination: SocketAddress(
            gid: [0xfe, 0x80] + Array(repeating: 0, count: 13) + [1], port: 1234), isIB: true),
      ], connectionCount: 2, policy: .minLatency,
      deadTimeSeconds: 60, shutdownTimeSeconds: 5)
  }

  @Test("is read as it was written")
  func roundTrip() throws {
    let plan = try Self.plan()
    let read = try #require(RNBDPlan(decoding: plan.encoded))
    #expect(read.encoded == plan.encoded)
    #expect(read.session == plan.session && read.policy == .minLatency)
    #expect(read.disks.map(\.name) == plan.disks.map(\.name))
    #expect(read.disks.map(\.accessMode) == [.migration, .readOnly])
    #expect(read.disks.map(\.index) == [3, 0])
    #expect(read.disks.map(\.byteCount) == [1 << 30, 0])
    #expect(read.disks.map(\.payloadByteCount) == [126_976, 0])
    #expect(UblkPlan(decoding: plan.encoded)?.indices == [3, 0])
    #expect(read.paths.map(\.destination.text) == plan.paths.map(\.destination.text))
    #expect(read.paths[0].source?.text == plan.paths[0].source?.text)
    #expect(
      plan.pathTexts == [
        "10.0.0.2@10.0.0.1:1234", "[2001::1]:1235", "gid:fe800000000000000000000000000001",
      ])
    #expect(read.deadTimeSeconds == 60 && read.shutdownTimeSeconds == 5)
  }

  @Test("is not what another keeper wrote, nor a part of it")
  func refusals() throws {
    let text = try Self.plan().encoded
    #expect(KeeperPlan(decoding: text) == nil)
    let lines = text.fields(separatedBy: 0x0a).filter { !$0.isEmpty }
    for missing in lines.indices
    where !lines[missing].hasPrefix("path=") && !lines[missing].hasPrefix("disk=") {
      var rest: ByteString = ""
      for (index, line) in lines.enumerated() where index != missing { rest += line + "\n" }
      #expect(RNBDPlan(decoding: rest) == nil, "without \(lines[missing].printable)")
    }
    var bare: ByteString = ""
    for line in lines where !line.hasPrefix("disk=") { bare += line + "\n" }
    for (disk, isGood) in [
      ("3 2 0 0 a", true), ("3 2 0 0  ", true), ("3 2 0 0", false), ("3 2 0 0 ", false),
      ("3 3 0 0 a", false), ("1048576 2 0 0 a", false), ("3 2 0 1048577 a", false),
      ("-1 2 0 0 a", false), ("3 2 0 0 ..", false), ("", false),
    ] {
      let plan = RNBDPlan(decoding: bare + ByteString("disk=\(disk)\n"))
      #expect((plan != nil) == isGood, "\(disk)")
    }
    #expect(RNBDPlan(decoding: bare) == nil)
    for number in 0..<RNBDPlan.diskCountMaximum {
      bare += ByteString("disk=\(number) 1 0 0 a\n")
    }
    #expect(RNBDPlan(decoding: bare)?.disks.count == RNBDPlan.diskCountMaximum)
    #expect(RNBDPlan(decoding: bare + "disk=9 1 0 0 a\n") == nil)
  }

  @Test("knows what it has by the names of device and session, and by a server's address")
  func attachedAlready() throws {
    let plan = try Self.plan()
    let server = plan.paths[0].destination
    let elsewhere = SocketAddress(ipv4: [10, 0, 0, 3], port: 1234)
    let cases: [(name: ByteString, session: ByteString, SocketAddress, Bool)] = [
      ("second", "board 7=x", server, true),
      ("second", "board 7=x", plan.paths[1].destination, true),
      ("second", "board 7", server, false), ("second", "board 7=x_1", server, false),
      ("third", "board 7=x", server, false), ("second", "board 7=x", elsewhere, false),
    ]
    for (name, session, address, isThere) in cases {
      let name = try RNBDProtocol.DeviceName(name)
      #expect(plan.has(plan.disks[1], called: name, of: session, at: address) == isThere)
    }
    var renamed = plan
    renamed.session = try SessionName("board 7=x_12")
    #expect(renamed.has(plan.disks[1], called: plan.disks[1].name, of: "board 7=x", at: server))
  }

  @Test("goes on with those of its devices that are left")
  func devicesThatAreGone() throws {
    var plan = try Self.plan()
    plan.disks[1].index = 7
    #expect(plan.only(indices: [7]).disks.map(\.index) == [7])
    #expect(plan.only(indices: [7, 3]).disks.map(\.index) == [7, 3])
    #expect(plan.only(indices: [8]).disks.isEmpty)
  }

  @Test("tells what was opened in as many bytes as there are devices")
  func opened() throws {
    let answers = [
      OpenAnswer(device: 1, sectorCount: 8), OpenAnswer(device: 2, sectorCount: 16),
    ]
    let told = RNBDProcess.Opened(answers: answers, dataByteCountMaximum: 65_536).encoded
    #expect(told.first == 0)
    let plan = try Self.plan()
    let exports = try #require(plan.exports(told: told))
    #expect(exports.map(\.byteCount) == [4096, 8192])
    #expect(exports.map(\.isReadOnly) == [false, true])
    #expect(exports[0].maximumPayloadByteCount == 65_536)
    for count in 0..<told.count { #expect(plan.exports(told: Array(told[..<count])) == nil) }
    #expect(RNBDProcess.Opened(decoding: told, count: 1) == nil)
  }

  /// All of a session's requests have a place in registered memory, 128 KiB each.
  @Test("gives each device its share of the requests", arguments: 1...RNBDPlan.diskCountMaximum)
  func depth(diskCount: Int) {
    let depth = RNBDProcess.queueDepth(diskCount: diskCount)
    #expect(depth >= 16 && Int(depth) * diskCount <= RNBDProcess.requestCountMaximum)
  }

  /// Source: `errno_to_blk_status` in Linux `block/blk-core.c` has names for these.
  @Test(
    "passes on the errors that a disk has names for",
    arguments: [
      (.noSpace, -28), (.notSupported, -95), (.outOfMemory, -12), (.timedOut, -110), (.io, -5),
      (.readOnly, -5), (PeerErrno(rawValue: 500), -5),
    ] as [(PeerErrno, Int32)])
  func errors(error: PeerErrno, result: Int32) {
    #expect(RNBDEngine.result(error) == result)
  }
}

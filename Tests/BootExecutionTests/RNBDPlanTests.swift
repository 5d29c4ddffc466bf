// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import RDMAVerbs
import RNBDClient
import RNBDProtocol
import RTRSProtocol
import Testing
import WireFormat

@testable import BootExecution

@Suite("what is kept of an RNBD device")
struct RNBDPlanTests {
  static func plan() throws -> RNBDPlan {
    RNBDPlan(
      deviceIndex: 3, session: try SessionName("board 7=x"),
      deviceName: try RNBDProtocol.DeviceName("/dev/sda\n1"), accessMode: .migration,
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
      ], connectionCount: 2, policy: .minLatency, byteCount: 1 << 30, payloadByteCount: 126_976,
      deadTimeSeconds: 60, shutdownTimeSeconds: 5)
  }

  @Test("is read as it was written")
  func roundTrip() throws {
    let plan = try Self.plan()
    let read = try #require(RNBDPlan(decoding: plan.encoded))
    #expect(read.encoded == plan.encoded)
    #expect(read.session == plan.session && read.deviceName == plan.deviceName)
    #expect(read.accessMode == .migration && read.policy == .minLatency)
    #expect(read.paths.map(\.destination.text) == plan.paths.map(\.destination.text))
    #expect(read.paths[0].source?.text == plan.paths[0].source?.text)
    #expect(read.byteCount == 1 << 30 && read.payloadByteCount == 126_976)
    #expect(read.deadTimeSeconds == 60 && read.shutdownTimeSeconds == 5)
  }

  @Test("is not what another keeper wrote, nor a part of it")
  func refusals() throws {
    let text = try Self.plan().encoded
    #expect(KeeperPlan(decoding: text) == nil)
    let lines = text.fields(separatedBy: 0x0a).filter { !$0.isEmpty }
    for missing in lines.indices where !lines[missing].hasPrefix("path=") {
      var rest: ByteString = ""
      for (index, line) in lines.enumerated() where index != missing { rest += line + "\n" }
      #expect(RNBDPlan(decoding: rest) == nil, "without \(lines[missing].printable)")
    }
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

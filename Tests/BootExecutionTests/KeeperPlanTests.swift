// SPDX-License-Identifier: Apache-2.0
// What one keeper leaves for the next.

import LinuxSystem
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@testable import BootExecution

@Suite("The file that a keeper leaves for the next")
struct KeeperPlanTests {
  static func plan() throws -> KeeperPlan {
    KeeperPlan(
      deviceIndex: 3, backendIdentifier: "192.0.2.1:10809/r\nx", export: "r\nx=é",
      paths: [
        KeeperPath(
          address: SocketAddress(ipv4: [192, 0, 2, 1], port: 10809),
          source: SocketAddress(ipv4: [192, 0, 2, 9], port: 0), site: 0),
        KeeperPath(
          address: SocketAddress(
            ipv6: [0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [1], port: 10809, scope: 2),
          source: nil, site: 1),
        KeeperPath(address: try SocketAddress(unixPath: "/run/x"), source: nil, site: 2),
      ], connectionCount: 4, byteCount: .max, flags: [.hasFlags, .canMultiConn],
      blockByteCount: 4096, payloadByteCount: 1 << 20,
      token: SessionToken(high: .max, low: 1),
      identity: ContentIdentity(first: 1, second: .max, count: 2), requestTimeoutSeconds: 0,
      deadTimeSeconds: 60, shutdownTimeSeconds: 9,
      detection: Detection(silenceSeconds: 7, answerSeconds: 8))
  }

  @Test("is read back as it was written, whatever bytes a name holds")
  func roundTrip() throws {
    let plan = try Self.plan()
    let read = try #require(KeeperPlan(decoding: plan.encoded))
    #expect(read.encoded == plan.encoded)
    #expect(read.export == plan.export)
    #expect(read.paths.map { $0.address.text } == plan.paths.map { $0.address.text })
    #expect(read.paths[0].source?.text == "192.0.2.9:0")
    #expect(read.paths.map(\.site) == [0, 1, 2])
    #expect(read.identity == plan.identity)
    #expect(read.token == plan.token)
    #expect(read.shutdownTimeSeconds == 9)
    #expect(read.detection == Detection(silenceSeconds: 7, answerSeconds: 8))
  }

  @Test("is none when a line is missing")
  func missing() throws {
    let lines = try Self.plan().encoded.fields(separatedBy: 0x0a).filter { !$0.isEmpty }
    for index in lines.indices where !lines[index].hasPrefix("path=") {
      var rest = lines
      rest.remove(at: index)
      var text: ByteString = ""
      for line in rest { text += line + "\n" }
      #expect(KeeperPlan(decoding: text) == nil, "without \(lines[index].printable)")
    }
  }

  @Test("mutated never traps")
  func mutated() throws {
    var generator = SeededGenerator(printingAs: "keeper plan")
    let whole = try Self.plan().encoded.bytes
    for _ in 0..<5000 {
      var bytes = whole
      for _ in 0..<3 {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(
          in: 0...255, using: &generator)
      }
      _ = KeeperPlan(decoding: ByteString(bytes))
    }
  }

  static let expected = ExpectedExport(
    byteCount: 1 << 20, flags: [.hasFlags, .sendFlush, .sendTrim], blockByteCount: 512,
    payloadByteCount: 1 << 20, identity: ContentIdentity())

  static let exports: [(String, ReenteredExport, ReconnectionError?)] = [
    ("same", ReenteredExport(byteCount: 1 << 20, flags: expected.flags), nil),
    (
      "more commands",
      ReenteredExport(byteCount: 1 << 20, flags: [.hasFlags, .sendFlush, .sendTrim, .sendFUA]), nil
    ),
    ("larger", ReenteredExport(byteCount: 2 << 20, flags: expected.flags), .differentSize(2 << 20)),
    (
      "read-only",
      ReenteredExport(
        byteCount: 1 << 20, flags: [.hasFlags, .readOnly, .sendFlush, .sendTrim]),
      .differentAccess
    ),
    (
      "without trim", ReenteredExport(byteCount: 1 << 20, flags: [.hasFlags, .sendFlush]),
      .fewerCommands
    ),
    (
      "larger blocks",
      ReenteredExport(
        byteCount: 1 << 20, flags: expected.flags,
        blockSizes: BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 1 << 25)),
      .differentBlocks
    ),
    (
      "smaller requests",
      ReenteredExport(
        byteCount: 1 << 20, flags: expected.flags,
        blockSizes: BlockSizes(minimum: 1, preferred: 4096, maximumPayload: 1 << 16)),
      .differentBlocks
    ),
  ]

  @Test("says what an export must still be", arguments: exports.indices)
  func checks(index: Int) {
    let (name, export, error) = Self.exports[index]
    var found: ReconnectionError?
    do throws(ReconnectionError) { try Self.expected.check(export, connectionCount: 1) } catch {
      found = error
    }
    #expect(found == error, "\(name)")
  }
}

// SPDX-License-Identifier: Apache-2.0
// Images with holes, as the tools of others see and copy them: structured replies, block status,
// zeroes that are fast, hints.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd, asked for holes by the tools of others")
struct ServerSparseTests {
  let directory: TemporaryDirectory
  static let byteCount = 8 << 20
  /// Where the image has data; the rest are holes.
  static let data = [(1 << 20)..<(2 << 20), (5 << 20)..<((5 << 20) + 65536)]

  init() throws { directory = try TemporaryDirectory() }

  private func sparseFile(_ name: String, seed: UInt64 = 1) throws -> (String, [UInt8]) {
    let path = try directory.file(name)
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: UInt64(Self.byteCount))
    var expected = [UInt8](repeating: 0, count: Self.byteCount)
    for range in Self.data {
      let bytes = pattern(range.count, seed: seed)
      try file.seek(toOffset: UInt64(range.lowerBound))
      try file.write(contentsOf: bytes)
      expected.replaceSubrange(range, with: bytes)
    }
    try file.synchronize()
    return (path, expected)
  }

  /// How many bytes a file takes on its disk.
  private func allocatedByteCount(_ path: String) throws -> Int {
    let result = try run("stat", ["-c", "%b", path])
    let count = result.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
    return try #require(Int(count)) * 512
  }

  struct Extent: Decodable, Equatable {
    var offset: Int
    var length: Int
    var type: Int
  }
  static let map = [
    Extent(offset: 0, length: 1 << 20, type: 3),
    Extent(offset: 1 << 20, length: 1 << 20, type: 0),
    Extent(offset: 2 << 20, length: 3 << 20, type: 3),
    Extent(offset: 5 << 20, length: 65536, type: 0),
    Extent(offset: (5 << 20) + 65536, length: (3 << 20) - 65536, type: 3),
  ]

  @Test("is mapped by nbdinfo", .enabled(if: programsAreThere("nbdinfo"), "no nbdinfo"))
  func nbdinfo() throws {
    let (image, _) = try sparseFile("image")
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)", "ro=\(image),ro"])
    for name in ["disk", "ro"] {
      let map = try run("nbdinfo", ["--map", "--json", server.uri(name)])
      #expect(map.exitStatus == 0, "\(map.standardError)")
      let extents = try JSONDecoder().decode(
        [Extent].self, from: Data(map.standardOutput.utf8))
      #expect(extents == Self.map)
    }
    let info = try run("nbdinfo", ["--json", server.unixURI("disk")])
    struct Answer: Decodable {
      struct Export: Decodable {
        var contexts: [String]
        var df: Bool
        var cache: Bool
        var fastZero: Bool
        enum CodingKeys: String, CodingKey {
          case contexts
          case df = "can_df"
          case cache = "can_cache"
          case fastZero = "can_fast_zero"
        }
      }
      var structured: Bool
      var exports: [Export]
    }
    let answer = try JSONDecoder().decode(Answer.self, from: Data(info.standardOutput.utf8))
    let export = try #require(answer.exports.first)
    #expect(answer.structured && export.contexts == ["base:allocation"])
    #expect(export.df && export.cache && export.fastZero)
  }

  @Test(
    "keeps its holes on the way through nbdcopy, both ways",
    .enabled(if: programsAreThere("nbdcopy"), "no nbdcopy"))
  func nbdcopy() throws {
    let (image, expected) = try sparseFile("image")
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    let copy = directory.path("copy")
    let read = try run("nbdcopy", [server.uri("disk"), copy])
    #expect(read.exitStatus == 0, "\(read.standardError)")
    #expect(try difference(of: contents(copy), from: expected) == nil)
    #expect(try allocatedByteCount(copy) < 2 << 20)

    // Over an image that is full: what is a hole in the source is zeroes, and no space, in the end.
    let full = try directory.file("full", pattern(Self.byteCount, seed: 9))
    let other = try ServerUnderTest(directory, exports: ["disk=\(full)"])
    let (source, wanted) = try sparseFile("source", seed: 2)
    let write = try run("nbdcopy", ["--flush", source, other.unixURI("disk")])
    #expect(write.exitStatus == 0, "\(write.standardError)")
    #expect(try difference(of: contents(full), from: wanted) == nil)
    #expect(try allocatedByteCount(full) < 2 << 20)

    // From server to server.
    let relay = try run("nbdcopy", [other.uri("disk"), server.uri("disk")])
    #expect(relay.exitStatus == 0, "\(relay.standardError)")
    #expect(try difference(of: contents(image), from: wanted) == nil)
  }

  @Test(
    "is mapped, converted and written to by QEMU's tools",
    .enabled(if: programsAreThere("qemu-img", "qemu-io"), "no qemu-utils"))
  func qemu() throws {
    let (image, expected) = try sparseFile("image")
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    struct Mapping: Decodable, Equatable {
      var start: Int
      var length: Int
      var zero: Bool
      var data: Bool
    }
    let map = try run("qemu-img", ["map", "--output=json", "-f", "raw", server.uri("disk")])
    let mappings = try JSONDecoder().decode(
      [Mapping].self, from: Data(map.standardOutput.utf8))
    #expect(
      mappings
        == Self.map.map {
          Mapping(start: $0.offset, length: $0.length, zero: $0.type == 3, data: $0.type == 0)
        }, "\(map.standardError)")

    let copy = directory.path("copy")
    let convert = try run(
      "qemu-img", ["convert", "-f", "raw", "-O", "raw", server.uri("disk"), copy])
    #expect(convert.exitStatus == 0, "\(convert.standardError)")
    #expect(try difference(of: contents(copy), from: expected) == nil)
    #expect(try allocatedByteCount(copy) < 2 << 20)

    let (source, wanted) = try sparseFile("source", seed: 2)
    let back = try run(
      "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", source, server.unixURI("disk")])
    #expect(back.exitStatus == 0, "\(back.standardError)")
    #expect(try difference(of: contents(image), from: wanted) == nil)

    // `-n`: only if it is fast, which is FAST_ZERO.
    let commands = [
      "write -P 0x5a 3M 1M", "write -z -u -n 3M 64k", "read -P 0 3M 64k", "read -P 0x5a 3136k 64k",
      "read -P 0 2M 1M", "discard 3136k 64k", "flush",
    ]
    let io = try run(
      "qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [server.uri("disk")])
    #expect(io.exitStatus == 0, "\(io.standardOutput)\(io.standardError)")
    #expect(!io.standardOutput.contains("verification failed"), "\(io.standardOutput)")
    #expect(!io.standardOutput.contains("failed:"), "\(io.standardOutput)")
  }

  @Test(
    "answers what libnbd asks by structured replies",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func structured() throws {
    let (image, _) = try sparseFile("image")
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    let script = """
      M = 1 << 20
      o = nbd.NBD()
      o.set_opt_mode(True)
      o.connect_uri("\(server.uri("disk"))")
      def listed(*queries):
          found = []
          for query in queries:
              o.add_meta_context(query)
          o.opt_list_meta_context(lambda name: found.append(name))
          o.clear_meta_contexts()
          return found
      assert listed() == ["base:allocation"]
      assert listed("base:") == ["base:allocation"]
      assert listed("x-nothing:here", "base:allocation") == ["base:allocation"]
      assert listed("x-nothing:", "base:other") == []
      o.opt_abort()

      h.add_meta_context("base:allocation")
      h.add_meta_context("x-nothing:here")
      h.connect_uri("\(server.uri("disk"))")
      assert h.can_meta_context("base:allocation") and not h.can_meta_context("x-nothing:here")
      def status(count, offset, flags=0):
          found = []
          def extent(context, at, entries, error):
              assert context == "base:allocation" and at == offset
              found.append(entries)
          h.block_status(count, offset, extent, flags)
          assert len(found) == 1
          return found[0]
      assert status(8 * M, 0) == [M, 3, M, 0, 3 * M, 3, 65536, 0, 3 * M - 65536, 3]
      assert status(8 * M, 0, nbd.CMD_FLAG_REQ_ONE) == [M, 3]
      assert status(512, 2 * M - 512, nbd.CMD_FLAG_REQ_ONE) == [512, 0]

      def chunks(count, offset, flags=0):
          found = []
          def chunk(bytes, at, kind, error):
              found.append((at, len(bytes), kind))
          h.pread_structured(count, offset, chunk, flags)
          return found
      assert chunks(2 * M, 0) == [(0, M, nbd.READ_HOLE), (M, M, nbd.READ_DATA)]
      assert chunks(2 * M, 0, nbd.CMD_FLAG_DF) == [(0, 2 * M, nbd.READ_DATA)]
      assert chunks(4096, 0) == [(0, 4096, nbd.READ_DATA)]

      h.zero(65536, M, nbd.CMD_FLAG_FAST_ZERO)
      assert status(65536, M) == [65536, 3]
      h.trim(65536, M + 65536)
      h.cache(8 * M, 0)
      assert h.pread(65536, M) == bytes(65536)
      h.shutdown()

      # Without structured replies nothing of it is there, and everything else is.
      s = nbd.NBD()
      s.set_request_structured_replies(False)
      s.connect_uri("\(server.unixURI("disk"))")
      assert not s.can_df() and not s.can_meta_context("base:allocation")
      assert s.pread(2 * M, 0) == bytes(M) + s.pread(M, M)
      s.shutdown()
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.process.transcript)")
  }

  @Test(
    "tells what an overlay has, and what its base",
    .enabled(if: programsAreThere("nbdinfo", "nbdcopy"), "no libnbd-bin"))
  func overlay() throws {
    let (image, expected) = try sparseFile("image")
    let server = try ServerUnderTest(directory, exports: ["disk=\(image),overlay"])
    let copy = directory.path("copy")
    let read = try run("nbdcopy", [server.uri("disk"), copy])
    #expect(read.exitStatus == 0, "\(read.standardError)")
    #expect(try difference(of: contents(copy), from: expected) == nil)
    let map = try run("nbdinfo", ["--map", "--totals", server.uri("disk")])
    #expect(map.exitStatus == 0, "\(map.standardError)")
  }
}

// SPDX-License-Identifier: Apache-2.0
// rootlinkd as the tools of others see it: libnbd's and QEMU's.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd, asked by the tools of others")
struct ServerToolTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func server(image: [UInt8], options: [String] = []) throws -> ServerUnderTest {
    let path = try directory.file("image", image)
    return try ServerUnderTest(directory, exports: ["disk=\(path)"] + options)
  }

  @Test(
    "is described truthfully by nbdinfo", .enabled(if: programsAreThere("nbdinfo"), "no nbdinfo"))
  func nbdinfo() throws {
    let image = try directory.file("image", pattern(1 << 20))
    let server = try ServerUnderTest(
      directory,
      exports: ["rw=\(image)", "ro=\(image),ro", "layer=\(image),overlay"])
    let list = try run("nbdinfo", ["--list", "--json", server.unixURI("")])
    #expect(list.exitStatus == 0, "\(list.standardError)")
    struct Answer: Decodable {
      var protocolName: String
      var exports: [Export]
      enum CodingKeys: String, CodingKey {
        case exports
        case protocolName = "protocol"
      }
      struct Export: Decodable, Equatable {
        var name: String
        var size: UInt64
        var readOnly: Bool
        var fua: Bool
        var multi: Bool
        var trim: Bool
        var zero: Bool
        enum CodingKeys: String, CodingKey {
          case name = "export-name"
          case size = "export-size"
          case readOnly = "is_read_only"
          case fua = "can_fua"
          case multi = "can_multi_conn"
          case trim = "can_trim"
          case zero = "can_zero"
        }
      }
    }
    let answer = try JSONDecoder().decode(Answer.self, from: Data(list.standardOutput.utf8))
    #expect(answer.protocolName == "newstyle-fixed")
    func export(_ name: String, readOnly: Bool, multi: Bool) -> Answer.Export {
      Answer.Export(
        name: name, size: 1 << 20, readOnly: readOnly, fua: !readOnly, multi: multi,
        trim: !readOnly, zero: !readOnly)
    }
    #expect(
      answer.exports == [
        export("rw", readOnly: false, multi: true), export("ro", readOnly: true, multi: true),
        export("layer", readOnly: false, multi: false),
      ])
    let unknown = try run("nbdinfo", [server.uri("nosuch")])
    #expect(unknown.exitStatus == 1)
    #expect(unknown.standardError.contains("for export: nosuch"))
    #expect(try run("nbdinfo", [server.uri("rw")]).exitStatus == 0)
  }

  @Test(
    "gives and takes an image through nbdcopy unchanged",
    .enabled(if: programsAreThere("nbdcopy"), "no nbdcopy"),
    arguments: [1 << 20, (5 << 20) + 512 + 7])
  func nbdcopy(byteCount: Int) throws {
    let server = try server(image: pattern(byteCount))
    let copy = directory.path("copy")
    let read = try run("nbdcopy", [server.uri("disk"), copy])
    #expect(read.exitStatus == 0, "\(read.standardError)")
    #expect(try difference(of: contents(copy), from: pattern(byteCount)) == nil)

    let source = try directory.file("source", pattern(byteCount, seed: 2))
    let write = try run("nbdcopy", ["--flush", source, server.unixURI("disk")])
    #expect(write.exitStatus == 0, "\(write.standardError)")
    let image = try contents(directory.path("image"))
    #expect(difference(of: image, from: pattern(byteCount, seed: 2)) == nil)
  }

  @Test(
    "is an image like any other to qemu-img and qemu-io",
    .enabled(if: programsAreThere("qemu-img", "qemu-io"), "no qemu-utils"))
  func qemu() throws {
    let server = try server(image: pattern(4 << 20))
    let image = directory.path("image")
    let info = try run("qemu-img", ["info", "--output=json", server.uri("disk")])
    #expect(info.standardOutput.contains("\"virtual-size\": 4194304"), "\(info.standardError)")
    let compare = ["compare", "-f", "raw", "-F", "raw", server.uri("disk"), image]
    #expect(try run("qemu-img", compare).exitStatus == 0)

    let new = try directory.file("new", pattern(4 << 20, seed: 3))
    let convert = try run(
      "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", new, server.uri("disk")])
    #expect(convert.exitStatus == 0, "\(convert.standardError)")
    #expect(try difference(of: contents(image), from: pattern(4 << 20, seed: 3)) == nil)

    let commands = [
      "write -P 0xaa 64k 1M", "write -f -P 0xbb 100k 3k", "read -P 0xbb 100k 3k",
      "write -z 128k 64k", "read -P 0 128k 64k", "write -z -u 512k 64k", "read -P 0 512k 64k",
      "discard 256k 64k", "flush", "read -P 0xaa 64k 36k",
    ]
    let io = try run(
      "qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [server.uri("disk")])
    #expect(io.exitStatus == 0, "\(io.standardOutput)\(io.standardError)")
    #expect(!io.standardOutput.contains("Pattern verification failed"), "\(io.standardOutput)")
    let after = try contents(image)
    #expect(after[(64 << 10)..<(100 << 10)].allSatisfy { $0 == 0xaa })
    #expect(after[(128 << 10)..<(192 << 10)].allSatisfy { $0 == 0 })
  }

  @Test(
    "answers every command of libnbd as the protocol says",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func commands() throws {
    let server = try server(image: pattern(1 << 20))
    let script = """
      h.connect_uri("\(server.uri("disk"))")
      h.set_strict_mode(0)
      assert h.get_size() == 1 << 20
      def fails(number, call):
          try:
              call()
          except nbd.Error as error:
              assert error.errnum == number, error
          else:
              raise AssertionError("it should have failed")
      before = h.pread(4096, 0)
      h.pwrite(b"x" * 1000, 500)
      assert h.pread(1000, 500) == b"x" * 1000
      assert h.pread(500, 0) == before[:500]
      h.pwrite(b"y" * 10, 4096, nbd.CMD_FLAG_FUA)
      h.zero(100, 600)
      assert h.pread(200, 550) == b"x" * 50 + b"\\0" * 100 + b"x" * 50
      h.zero(65536, 65536, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
      assert h.pread(65536, 65536) == bytes(65536)
      h.trim(4096, 8192)
      h.flush()
      big = os.urandom(1 << 20)
      h.pwrite(big, 0)
      assert h.pread(1 << 20, 0) == big
      fails(errno.EINVAL, lambda: h.pread(512, (1 << 20) - 511))
      fails(errno.EINVAL, lambda: h.pread(512, (1 << 63) - 1))
      fails(errno.ENOSPC, lambda: h.pwrite(b"z" * 512, (1 << 20) - 511))
      fails(errno.ENOSPC, lambda: h.zero(512, 1 << 20))
      fails(errno.EINVAL, lambda: h.trim(512, 1 << 20))
      fails(errno.EINVAL, lambda: h.cache(512, 1 << 20))
      fails(errno.EINVAL, lambda: h.pwrite(b"z" * 512, 0, nbd.CMD_FLAG_NO_HOLE))
      # Structured replies are on: libnbd asks for them.
      assert h.get_structured_replies_negotiated()
      h.cache(1 << 20, 0)
      assert h.pread(1 << 20, 0, nbd.CMD_FLAG_DF) == big
      h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO)
      assert h.pread(1 << 20, 0) == bytes(512) + big[512:]
      h.shutdown()
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.process.transcript)")
  }

  @Test("keeps a read-only export as it is", .enabled(if: hasNBDShell, "no python3-libnbd"))
  func readOnly() throws {
    let image = try directory.file("image", pattern(65536))
    let server = try ServerUnderTest(directory, exports: ["disk=\(image),ro"])
    let script = """
      h.connect_uri("\(server.unixURI("disk"))")
      h.set_strict_mode(0)
      assert h.is_read_only()
      for call in [lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0),
                   lambda: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)]:
          try:
              call()
          except nbd.Error as error:
              assert error.errnum == errno.EPERM, error
          else:
              raise AssertionError("a write was taken")
      assert len(h.pread(65536, 0)) == 65536
      h.shutdown()
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    #expect(try difference(of: contents(image), from: pattern(65536)) == nil)
  }

  @Test(
    "gives each client of an overlay its own writes and keeps the base",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func overlay() throws {
    let image = try directory.file("image", pattern(1 << 20))
    let server = try ServerUnderTest(directory, exports: ["disk=\(image),overlay"])
    let script = """
      other = nbd.NBD()
      for c in (h, other):
          c.connect_uri("\(server.uri("disk"))")
      base = h.pread(1 << 20, 0)
      h.pwrite(b"h" * 5000, 70000)
      other.pwrite(b"o" * 5000, 72000)
      h.zero(10, 80000)
      assert h.pread(5000, 70000) == b"h" * 5000
      assert h.pread(7000, 75000) == base[75000:80000] + bytes(10) + base[80010:82000]
      assert other.pread(5000, 72000) == b"o" * 5000
      assert other.pread(2000, 70000) == base[70000:72000]
      h.shutdown(); other.shutdown()
      again = nbd.NBD()
      again.connect_uri("\(server.uri("disk"))")
      assert again.pread(1 << 20, 0) == base
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.process.transcript)")
    #expect(try difference(of: contents(image), from: pattern(1 << 20)) == nil)
  }
}

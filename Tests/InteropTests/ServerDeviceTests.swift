// SPDX-License-Identifier: Apache-2.0
// rootlinkd over a block device: a loop device over a file of the test's own.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd over a block device")
struct ServerDeviceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Whether this machine lets us have a loop device.
  static let hasLoopDevices: Bool = {
    if mayNotSkip { return true }
    return geteuid() == 0 && (try? run("losetup", ["--find"]))?.exitStatus == 0
  }()

  /// A device over a file, until the object goes away.
  final class LoopDevice {
    let path: String
    init(over file: String) throws {
      let made = try run("losetup", ["--find", "--show", file])
      try #require(made.exitStatus == 0, "\(made.standardError)")
      path = made.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
    }
    deinit { _ = try? run("losetup", ["--detach", path]) }
  }

  @Test(
    "asks the kernel for its size, writes, zeroes and trims, past the page cache and through it",
    .enabled(if: hasLoopDevices, "no loop devices, or not root"),
    .enabled(if: hasNBDShell, "no python3-libnbd"), arguments: ["rw", "direct"])
  func device(option: String) throws {
    let image = try directory.file("image", pattern(1 << 20))
    let device = try LoopDevice(over: image)
    let server = try ServerUnderTest(directory, exports: ["disk=\(device.path),\(option)"])
    let script = """
      h.connect_uri("\(server.uri("disk"))")
      assert h.get_size() == 1 << 20
      assert h.get_block_size(nbd.SIZE_MINIMUM) == \(option == "direct" ? 512 : 1)
      base = h.pread(1 << 20, 0)
      h.pwrite(b"x" * 4096, 8192)
      h.zero(65536, 65536)
      h.zero(512, 512, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
      h.trim(65536, 1 << 19)
      h.flush()
      assert h.pread(512, 512) == bytes(512)
      assert h.pread(65536, 65536) == bytes(65536)
      assert h.pread(8192, 4096) == base[4096:8192] + b"x" * 4096
      h.set_strict_mode(0)
      try:
          h.pread(512, 1 << 20)
      except nbd.Error as error:
          assert error.errnum == errno.EINVAL
      else:
          raise AssertionError("read past the end")
      if \(option == "direct" ? "True" : "False"):
          try:
              h.pread(1, 0)
          except nbd.Error as error:
              assert error.errnum == errno.EINVAL
          else:
              raise AssertionError("read in the middle of a block")
      h.shutdown()
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.process.transcript)")
    #expect(try server.process.terminate() == 0)
    let larger = try run(
      builtProgram("rootlinkd"),
      ["serve", "--control", directory.path("c"), "--export", "a=\(device.path),size=2000000"])
    #expect(larger.exitStatus == 1)
    #expect(larger.standardError.contains("more than the 1048576 bytes"))
  }
}

// SPDX-License-Identifier: Apache-2.0
import CLinux
import Testing
import WireFormat

@testable import MachineStart

@Suite("Mount options")
struct MountOptionsTests {
  @Test(
    "are flags of mount(2), or the file system's own",
    arguments: [
      ("", 0, ""), ("noatime,nodev", UInt(clinux_MS_NOATIME | clinux_MS_NODEV), ""),
      ("subvol=@,compress=zstd", 0, "subvol=@,compress=zstd"),
      ("ro,data=ordered,noatime", UInt(clinux_MS_RDONLY | clinux_MS_NOATIME), "data=ordered"),
      ("ro,rw", 0, ""), ("rw,ro,defaults,,", UInt(clinux_MS_RDONLY), ""),
      ("nosuid,suid,lazytime", UInt(clinux_MS_LAZYTIME), ""),
      ("readonly", 0, "readonly"),
    ])
  func options(text: String, flags: UInt, data: String) {
    let options = MountOptions(ByteString(text))
    #expect(options.flags == flags)
    #expect(options.data == ByteString(data))
  }
}

// SPDX-License-Identifier: Apache-2.0
// What the calls for files say when they fail: the kernel's own reason.

import LinuxSystem
import TestSupport
import Testing
import WireFormat

@Suite("A file that cannot be had")
struct FileTests {
  @Test("is refused with the reason that the system has")
  func reasons() throws {
    let directory = try TemporaryDirectory()
    let file = ByteString(try directory.file("file", [1]))
    let place = ByteString(directory.path)
    let name = ByteString([UInt8](repeating: 0x61, count: 5000))
    let failures: [(errno: CInt, () throws(SystemError) -> Void)] = [
      (21, { () throws(SystemError) in try replaceFile(place, with: "text") }),  // EISDIR
      (36, { () throws(SystemError) in try replaceLink(place + "/link", target: name) }),
      (20, { () throws(SystemError) in _ = try listDirectory(file, limit: 1) }),  // ENOTDIR
      (2, { () throws(SystemError) in _ = try listDirectory(place + "/none", limit: 1) }),
      (22, { () throws(SystemError) in try replaceLink(place + "/link", target: "a\0b") }),
    ]
    for (errno, call) in failures { #expect(throws: SystemError(errno: errno)) { try call() } }
  }

  @Test("is still what its link points at when another cannot be had")
  func links() throws {
    let directory = try TemporaryDirectory()
    let link = ByteString(directory.path) + "/link"
    try replaceLink(link, target: "one")
    #expect(try readLink(link) == "one")
    let long = ByteString([UInt8](repeating: 0x61, count: 5000))
    #expect(throws: SystemError(errno: 36)) { try replaceLink(link, target: long) }
    #expect(try readLink(link) == "one")
    try replaceLink(link, target: "two")
    #expect(try readLink(link) == "two")
    #expect(try listDirectory(ByteString(directory.path), limit: 10) == ["link"])
  }

  @Test("is one of the names of its directory, however many more there are than wanted")
  func names() throws {
    let directory = try TemporaryDirectory()
    for name in ["b", "a", ".c"] { try directory.file(name) }
    let place = ByteString(directory.path)
    #expect(try listDirectory(place, limit: 10) == [".c", "a", "b"])
    #expect(try listDirectory(place, limit: 2).count == 2)
  }
}

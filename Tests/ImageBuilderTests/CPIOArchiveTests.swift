// SPDX-License-Identifier: Apache-2.0
import ImageBuilder
import TestSupport
import Testing

@Suite("A cpio archive")
struct CPIOArchiveTests {
  static let entries = [
    CPIOEntry("init", .file(Array("#!/bin/sh\n".utf8)), permissions: 0o755),
    CPIOEntry("dev/console", .characterDevice(major: 5, minor: 1), permissions: 0o600),
    CPIOEntry("dev/nbd0", .blockDevice(major: 43, minor: 0), permissions: 0o660),
    CPIOEntry("bin", .symbolicLink(target: "usr/bin"), permissions: 0o777),
    CPIOEntry("usr/bin", .directory, permissions: 0o755),
  ]

  static func archive(_ entries: [CPIOEntry]) throws -> CPIOArchive {
    var archive = CPIOArchive()
    for entry in entries { try archive.add(entry) }
    return archive
  }

  /// Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`: magic; number,
  /// mode, owner, group, links, time, length, device, special device, length of the name, check.
  @Test("is the bytes of the specification")
  func layout() throws {
    let bytes = try Self.archive([CPIOEntry("ab", .file([0x78]), permissions: 0o644)])
      .encoded(seconds: 255)
    let text =
      "070701" + "00000001" + "000081a4" + "00000000" + "00000000" + "00000001" + "000000ff"
      + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000003" + "00000000"
      + "ab\0" + "\0\0\0" + "x\0\0\0"
      + "070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000"
      + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "0000000b" + "00000000"
      + "TRAILER!!!\0" + "\0\0\0"
    #expect(bytes.starts(with: Array(text.utf8)))
    #expect(bytes.count == 512 && bytes.dropFirst(text.utf8.count).allSatisfy { $0 == 0 })
  }

  @Test("is the same whatever the order, and has directories before what lies in them")
  func reproducible() throws {
    let bytes = try Self.archive(Self.entries).encoded()
    #expect(try Self.archive(Self.entries.reversed()).encoded() == bytes)
    let read = try CPIOArchive.entries(of: bytes)
    let paths = ["bin", "dev", "dev/console", "dev/nbd0", "init", "usr", "usr/bin"]
    #expect(read.map(\.path) == paths)
    #expect(read.filter { Self.entries.contains($0) }.count == Self.entries.count)
    #expect(bytes.count.isMultiple(of: 512))
  }

  @Test("takes the same entry twice and refuses another one in its place")
  func twice() throws {
    var archive = try Self.archive(Self.entries)
    try archive.add(Self.entries[0])
    try archive.add(CPIOEntry("dev", .directory, permissions: 0o700))
    #expect(archive.sortedEntries[1].permissions == 0o700)
    #expect(throws: CPIOError.pathTaken("init")) {
      try archive.add(CPIOEntry("init", .file([]), permissions: 0o755))
    }
    #expect(throws: CPIOError.pathTaken("init")) {
      try archive.add(CPIOEntry("init/x", .directory, permissions: 0o755))
    }
    #expect(throws: CPIOError.pathTaken("dev")) {
      try archive.add(CPIOEntry("dev", .file([]), permissions: 0o755))
    }
  }

  @Test(
    "refuses a name that the kernel would not unpack where it belongs",
    arguments: ["", "/init", "a//b", "a/", "..", "a/../b", "./a", "a\0b", "TRAILER!!!"])
  func names(path: String) {
    #expect(throws: CPIOError.pathUnusable(path)) {
      try Self.archive([CPIOEntry(path, .file([]), permissions: 0o644)])
    }
  }

  @Test("has names of at most 4094 bytes")
  func longNames() throws {
    let part = String(repeating: "a", count: 4094)
    _ = try Self.archive([CPIOEntry(part, .directory, permissions: 0o755)])
    #expect(throws: CPIOError.self) {
      try Self.archive([CPIOEntry(part + "a", .directory, permissions: 0o755)])
    }
  }

  @Test("cut off before its end is refused")
  func truncations() throws {
    let bytes = try Self.archive(Self.entries).encoded()
    // The trailer: its header and eleven bytes of name, padded.
    var end = bytes.count
    while bytes[end - 1] == 0 { end -= 1 }
    for count in 0...end {
      #expect(throws: CPIOError.self, "\(count)") {
        try CPIOArchive.entries(of: Array(bytes[..<count]))
      }
    }
    #expect(try CPIOArchive.entries(of: Array(bytes[..<((end + 4) & ~3)])).count == 7)
  }

  @Test("of mutated bytes never traps", arguments: 0..<10)
  func mutated(shard: Int) throws {
    let sample = try Self.archive(Self.entries).encoded()
    var random = SeededGenerator(printingAs: "cpio archives")
    let digits = Array("0123456789abcdefABCDEF/.\0".utf8)
    var read = 0
    for _ in 0..<10_000 {
      var bytes = sample
      for _ in 0...Int(random.next() % 3) {
        bytes[Int(random.next() % UInt64(bytes.count))] =
          random.next() % 4 == 0
          ? UInt8(truncatingIfNeeded: random.next())
          : digits[Int(random.next() % UInt64(digits.count))]
      }
      if random.next() % 16 == 0 { bytes.removeLast(Int(random.next() % UInt64(bytes.count))) }
      if (try? CPIOArchive.entries(of: bytes)) != nil { read += 1 }
    }
    #expect(read > 1000)
  }
}

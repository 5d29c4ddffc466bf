// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@Suite("A file")
struct FileBackendTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test("grows to the size asked for, and is served in part when that is smaller")
  func size() throws {
    let path = ByteString(try directory.file("image", [1, 2, 3]))
    #expect(try FileBackend(path).byteCount == 3)
    #expect(try FileBackend(path, byteCount: 1 << 20).byteCount == 1 << 20)
    #expect(try fileStatus(path).byteCount == 1 << 20)
    let part = try FileBackend(path, byteCount: 2)
    #expect(part.byteCount == 2)
    #expect(try part.bytes(2, at: 0) == [1, 2])
    #expect(throws: BackendError.range) { try part.bytes(2, at: 1) }
    #expect(throws: BackendError.range) { try part.write([9], at: 2) }
    #expect(throws: BackendError.range) { try part.bytes(1, at: .max) }
  }

  @Test("that cannot be served says why and what to do")
  func refusals() throws {
    let path = ByteString(try directory.file("image", [1, 2, 3]))
    #expect(throws: FileBackend.OpenError.cannotOpen("/nosuch", .noSuchFile)) {
      try FileBackend("/nosuch")
    }
    #expect(throws: FileBackend.OpenError.notBlocks("/dev/null")) { try FileBackend("/dev/null") }
    let folder = ByteString(directory.path)
    #expect(throws: FileBackend.OpenError.notBlocks(folder)) {
      try FileBackend(folder, options: .readOnly)
    }
    #expect(throws: FileBackend.OpenError.sizeAboveDevice(path, wanted: 4, actual: 3)) {
      try FileBackend(path, options: .readOnly, byteCount: 4)
    }
    #expect(
      FileBackend.OpenError.cannotOpen("/nosuch", .noSuchFile).report.reason
        == "there is no file /nosuch")
  }

  @Test("opened for reading is never written")
  func readOnly() throws {
    let backend = try FileBackend(
      .init(try directory.file("image", [1, 2, 3])), options: .readOnly)
    #expect(!backend.capabilities.contains(.write))
    #expect(throws: BackendError.readOnly) { try backend.write([9], at: 0) }
    #expect(throws: BackendError.readOnly) {
      try backend.writeZeroes(0..<1, mayPunch: true, isDurable: false)
    }
    #expect(throws: BackendError.readOnly) { try backend.trim(0..<1, isDurable: false) }
    #expect(try backend.bytes(3, at: 0) == [1, 2, 3])
  }

  @Test("that somebody has cut short fails to be read and does not end the server")
  func truncated() throws {
    let path = try directory.file("image", [UInt8](repeating: 7, count: 8192))
    let backend = try FileBackend(.init(path))
    let handle = try #require(FileHandle(forWritingAtPath: path))
    try handle.truncate(atOffset: 4096)
    #expect(try backend.bytes(4096, at: 0) == [UInt8](repeating: 7, count: 4096))
    #expect(throws: BackendError.truncated) { try backend.bytes(4096, at: 4000) }
  }

  @Test("gives space back when it is trimmed or zeroed, and keeps it when asked to")
  func space() throws {
    let path = try directory.file("image", [UInt8](repeating: 7, count: 1 << 20))
    func allocated() throws -> Int {
      let found = try run("stat", ["--format=%b", path])
      return try #require(Int(found.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)))
    }
    let backend = try FileBackend(.init(path))
    try backend.flush()
    let full = try allocated()
    try backend.writeZeroes(0..<(256 << 10), mayPunch: false, isDurable: true)
    #expect(try allocated() >= full)
    try backend.writeZeroes(0..<(256 << 10), mayPunch: true, isDurable: true)
    let less = try allocated()
    #expect(less < full)
    try backend.trim((512 << 10)..<(768 << 10), isDurable: true)
    #expect(try allocated() < less)
    #expect(try backend.bytes(256 << 10, at: 0).allSatisfy { $0 == 0 })
    #expect(try backend.bytes(100, at: 256 << 10) == [UInt8](repeating: 7, count: 100))
  }

  /// A file in memory, whole.
  static func inMemory<Result>(
    _ body: (FileBackend, FileHandle) throws -> Result
  ) throws -> Result {
    let memory = try TemporaryDirectory(inMemory: true)
    defer { withExtendedLifetime(memory) {} }
    let path = try memory.file("image", [UInt8](repeating: 1, count: 1 << 20))
    return try body(
      try FileBackend(ByteString(path)),
      try FileHandle(forUpdating: URL(fileURLWithPath: path)))
  }

  @Test("in memory is written to through its mapping, until somebody cuts it")
  func mapping() throws {
    try Self.inMemory { backend, file in
      let mapping = try #require(backend.mapping())
      let end = UInt64(1 << 20)
      for (offset, isWritten) in [
        (0, true), (77, true), (end - 9000, true), (end - 8999, false), (end, false), (.max, false),
      ] as [(UInt64, Bool)] {
        let bytes = [UInt8](repeating: 9, count: 9000)
        // SAFETY: the array's own bytes.
        #expect(unsafe bytes.withUnsafeBytes { unsafe mapping.write($0, at: offset) } == isWritten)
        if isWritten { #expect(try backend.bytes(9000, at: offset) == bytes) }
      }
      try file.truncate(atOffset: 8192)
      let bytes = [UInt8](repeating: 3, count: 9000)
      // SAFETY: as above, twice.
      #expect(!(unsafe bytes.withUnsafeBytes { unsafe mapping.write($0, at: 65536) }))
      #expect(!(unsafe bytes.withUnsafeBytes { unsafe mapping.write($0, at: 1000) }))
      #expect(try backend.bytes(1000, at: 0) == [UInt8](repeating: 9, count: 1000))
      #expect(backend.mapping() == nil)
    }
  }

  @Test("in memory that is touched by mistake ends the process as ever")
  func touchedMapping() async throws {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      try FileBackendTests.inMemory { backend, file in
        let mapping = try #require(backend.mapping())
        // SAFETY: the array's own bytes; and then what this test is about.
        #expect(unsafe [UInt8(1)].withUnsafeBytes { unsafe mapping.write($0, at: 0) })
        try file.truncate(atOffset: 0)
        #expect(unsafe mapping.base.load(as: UInt8.self) == 0)
      }
    }
  }
}

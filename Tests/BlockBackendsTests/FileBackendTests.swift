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
}

// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@Suite("An overlay")
struct OverlayBackendTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test("leaves its base alone, and forgets everything at its end")
  func isolation() throws {
    let base = MemoryBackend(contents: [UInt8](repeating: 1, count: 200_000))
    do {
      let first = try OverlayBackend(over: base, layerIn: .init(directory.path))
      let second = try OverlayBackend(over: base, layerIn: .init(directory.path))
      try first.write([2, 2, 2], at: 65535)
      try second.write([3], at: 65536)
      try second.trim(0..<200_000, isDurable: false)
      #expect(try first.bytes(5, at: 65534) == [1, 2, 2, 2, 1])
      #expect(first.layerByteCount == 2 * 65536)
      #expect(try second.bytes(200_000, at: 0).allSatisfy { $0 == 0 })
    }
    #expect(base.bytes.allSatisfy { $0 == 1 })
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    let third = try OverlayBackend(over: base, layerIn: .init(directory.path))
    #expect(try third.bytes(5, at: 65534) == [1, 1, 1, 1, 1])
  }

  @Test("is not shared, so that no client opens a second connection to it")
  func capabilities() throws {
    let overlay = try OverlayBackend(
      over: MemoryBackend(byteCount: 512), layerIn: .init(directory.path))
    #expect(overlay.capabilities == [.write, .trim, .fastZeroes])
  }

  @Test("of a huge image takes memory for one bit a block and disk for nothing")
  func huge() throws {
    let path = ByteString(try directory.file("image"))
    let base = try FileBackend(path, byteCount: 1 << 40)
    let overlay = try OverlayBackend(over: base, layerIn: .init(directory.path))
    try overlay.write([9], at: (1 << 40) - 1)
    #expect(try overlay.bytes(2, at: (1 << 40) - 2) == [0, 9])
    #expect(overlay.layerByteCount == 65536)
  }

  @Test("reads a base whose own blocks are larger than a request")
  func coarseBase() throws {
    guard let base = try? BackendStack.direct.make(directory, 1 << 20) else { return }
    try base.write([UInt8](repeating: 5, count: 8192), at: 4096)
    let overlay = try OverlayBackend(over: base, layerIn: .init(directory.path))
    #expect(try overlay.bytes(3, at: 4095) == [0, 5, 5])
    try overlay.write([6], at: 5000)
    #expect(try overlay.bytes(3, at: 4999) == [5, 6, 5])
  }

  @Test("that has no place for its layer says which directory, and what to set")
  func noLayer() throws {
    do {
      _ = try OverlayBackend(over: MemoryBackend(byteCount: 512), layerIn: "/nosuch")
      Issue.record("a layer was made in a directory that is not there")
    } catch {
      #expect(error == .cannotKeep(directory: "/nosuch", .noSuchFile))
      #expect(error.report.advice.contains("overlay_directory"))
    }
  }

  /// Whichever call to the base fails, the operation fails with it, what was there before is
  /// still there, and the next try works.
  @Test("passes on the failure of whichever call fails and mixes nothing", arguments: 1...4)
  func everyCallMayFail(call: Int) throws {
    let base = ErrorBackend(
      over: MemoryBackend(contents: [UInt8](repeating: 1, count: 4 * 65536)))
    let overlay = try OverlayBackend(over: base, layerIn: .init(directory.path))
    let error = BackendError.system(SystemError(errno: 5))
    let new = [UInt8](repeating: 2, count: 65536 + 10)

    base.switchTo(.failingOnce(call: call, error))
    // Two blocks are covered in part, so two are copied: two calls to the base.
    if call <= 2 {
      #expect(throws: error) { try overlay.write(new, at: 65000) }
      #expect(try overlay.bytes(4 * 65536, at: 0).allSatisfy { $0 == 1 })
    } else {
      try overlay.write(new, at: 65000)
      #expect(base.callCount == 2)
    }
    base.switchTo(.working)
    try overlay.write(new, at: 65000)
    let found = try overlay.bytes(4 * 65536, at: 0)
    #expect(found[65000..<(65000 + new.count)].allSatisfy { $0 == 2 })
    #expect(found.count { $0 == 1 } == 4 * 65536 - new.count)
  }
}

@Suite("Backends for tests")
struct TestBackendTests {
  @Test("fail the operations they are told to, and no others")
  func errors() throws {
    let backend = ErrorBackend(over: MemoryBackend(byteCount: 4096))
    let error = BackendError.system(SystemError(errno: 28))
    backend.switchTo(.failing([.write, .flush], error))
    #expect(throws: error) { try backend.write([1], at: 0) }
    #expect(throws: error) { try backend.flush() }
    #expect(try backend.bytes(1, at: 0) == [0])
    try backend.trim(0..<1, isDurable: false)
    backend.switchTo(.failing(.all, error))
    #expect(throws: error) { try backend.writeZeroes(0..<1, mayPunch: true, isDurable: false) }
    #expect(throws: error) { try backend.bytes(1, at: 0) }
    backend.switchTo(.working)
    try backend.write([1], at: 0)
  }

  @Test("hold an operation until they are told to let it go")
  func delay() throws {
    let backend = DelayBackend(over: MemoryBackend(byteCount: 4096))
    backend.switchTo(.held, for: .write)
    #expect(try backend.bytes(1, at: 0) == [0])
    let thread = Thread { try? backend.write([1], at: 0) }
    thread.start()
    while backend.waitingCount == 0 { pause(milliseconds: 1) }
    #expect(try backend.bytes(1, at: 0) == [0])
    backend.switchTo(.none)
    while backend.waitingCount > 0 { pause(milliseconds: 1) }
    while try backend.bytes(1, at: 0) == [0] { pause(milliseconds: 1) }
  }
}

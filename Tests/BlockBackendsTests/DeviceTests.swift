// SPDX-License-Identifier: Apache-2.0
// A block device: a loop device over a file of the test's own.

import BlockBackends
import Foundation
import LinuxSystem
import TestSupport
import Testing
import WireFormat

/// A device over a file, until the object goes away.
private final class LoopDevice {
  let path: ByteString
  private let name: String

  init(over file: String, sectorByteCount: Int) throws {
    let made = try run(
      "losetup", ["--find", "--show", "--sector-size", "\(sectorByteCount)", file])
    try #require(made.exitStatus == 0, "\(made.standardError)")
    name = made.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
    path = ByteString(name)
  }
  deinit { _ = try? run("losetup", ["--detach", name]) }

  static let isPossible: Bool = {
    if mayNotSkip { return true }
    return geteuid() == 0 && (try? run("losetup", ["--find"]))?.exitStatus == 0
  }()
}

@Suite(
  "A block device", .enabled(if: LoopDevice.isPossible, "no loop devices, or not root"),
  .serialized)
struct DeviceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test("is served in the blocks that the kernel says it has", arguments: [512, 4096])
  func geometry(sector: Int) throws {
    let device = try LoopDevice(
      over: directory.file("image", [UInt8](repeating: 1, count: 1 << 20)),
      sectorByteCount: sector)
    let buffered = try FileBackend(device.path)
    let geometry = try #require(buffered.geometry)
    #expect(geometry.byteCount == 1 << 20 && buffered.byteCount == 1 << 20)
    #expect(geometry.logicalBlockByteCount == UInt32(sector))
    #expect(geometry.physicalBlockByteCount >= UInt32(sector))
    #expect(buffered.blockSizes.minimum == 1)
    #expect(buffered.capabilities.contains(.trim) == geometry.canDiscard)
    #expect(buffered.capabilities.contains(.fastZeroes) == geometry.canWriteZeroes)
    #expect(buffered.capabilities.contains(.rotational) == geometry.isRotational)
    let direct = try FileBackend(device.path, options: .direct)
    #expect(direct.blockSizes.minimum == UInt32(sector))
    #expect(try direct.bytes(sector, at: UInt64(sector)).allSatisfy { $0 == 1 })
    #expect(
      throws: FileBackend.OpenError.sizeAboveDevice(
        device.path, wanted: 2 << 20, actual: 1 << 20)
    ) { try FileBackend(device.path, byteCount: 2 << 20) }
    #expect(
      try buffered.extents(in: 0..<(1 << 20), maximum: 9)
        == [BackendExtent(byteCount: 1 << 20, isHole: false, readsAsZeroes: false)])
  }

  @Test("discards and zeroes whole blocks, and has the rest of a range written")
  func discard() throws {
    let file = try directory.file("image", [UInt8](repeating: 7, count: 1 << 20))
    let device = try LoopDevice(over: file, sectorByteCount: 512)
    let backend = try FileBackend(device.path)
    func allocated() throws -> Int {
      let found = try run("stat", ["--format=%b", file])
      return try #require(Int(found.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)))
    }
    let full = try allocated()
    try backend.writeZeroes(100..<300_001, mayPunch: true, isDurable: true)
    let found = try backend.bytes(300_010, at: 0)
    #expect(found.prefix(100).allSatisfy { $0 == 7 })
    #expect(found[100..<300_001].allSatisfy { $0 == 0 })
    #expect(found.suffix(9).allSatisfy { $0 == 7 })
    let zeroed = try allocated()
    #expect(zeroed < full)
    try backend.trim(524_289..<1_000_000, isDurable: true)
    #expect(try allocated() < zeroed)
    #expect(try backend.bytes(2, at: 524_288) == [7, 7] || backend.geometry?.canDiscard == false)
    try backend.writeZeroes(10..<20, mayPunch: false, isDurable: false, mustBeFast: true)
    #expect(try backend.bytes(12, at: 9) == [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7])
  }

  @Test("does what an array of bytes does", arguments: [false, true])
  func model(isDirect: Bool) throws {
    let byteCount = 3 * 65536 + 512
    let device = try LoopDevice(
      over: directory.file("image", [UInt8](repeating: 0, count: byteCount)),
      sectorByteCount: 512)
    let backend = try FileBackend(device.path, options: isDirect ? .direct : [])
    var random = SeededGenerator(printingAs: "random operations on a device")
    let model = BackendModel(backend, byteCount: byteCount)
    for number in 0..<400 {
      let operation = RandomOperation(
        byteCount: byteCount, alignment: isDirect ? 512 : 1, using: &random)
      do { try model.apply(operation) } catch {
        Issue.record("operation \(number), \(operation), seed \(random.seed): \(error)")
        return
      }
    }
    try model.apply(.read(0..<byteCount))
  }
}

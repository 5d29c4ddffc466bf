// SPDX-License-Identifier: Apache-2.0
// What outlives the process that carries a device's data: one page of a file in /run, mapped and
// locked. A keeper that takes the device up again goes on counting where the last one stopped, so
// that a server can tell its requests from copies that are still on their way; `rootlink status`
// reads how many connections live.
//
//   0 magic, 8 live connections, 16 losses, 24 requests sent again, 32 allocations, 512 counters

import CLinux
import LinuxSystem
import UblkDriver
import WireFormat

@safe struct UblkStatePage: Sendable {
  static let byteCount = 4096
  private static let magic: UInt64 = 0x726c_6b75_626c_6b31  // "rlkublk1"
  private static let countersOffset = 512
  static let depthMaximum = UInt16((byteCount - countersOffset) / 4)

  // SAFETY: a mapping of `byteCount` bytes that lives as long as the process; 8-byte aligned, and
  // every offset below is inside it. One process writes; readers take what they see.
  @unsafe private nonisolated(unsafe) let base: UnsafeMutableRawPointer

  static func path(_ device: UblkDevice) -> ByteString {
    device.root + "/run/rootlink/" + device.name + ".state"
  }

  /// Makes the file anew, or with `isNew` false goes on with what is there.
  init(_ device: UblkDevice, isNew: Bool) throws(SystemError) {
    try makeDirectories("/run/rootlink")
    let path = Self.path(device)
    if isNew { do { try removeFile(path) } catch .noSuchFile {} }
    let file = try FileDescriptor.open(path, [.readWrite, .create], mode: 0o600)
    _ = try checked(clinux_ftruncate(file.rawValue, Int64(Self.byteCount)))
    guard let mapped = unsafe clinux_map_shared(file.rawValue, Self.byteCount, 1) else {
      throw .noMemory
    }
    unsafe base = unsafe mapped
    if unsafe base.load(as: UInt64.self) != Self.magic {
      unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount)
      unsafe base.storeBytes(of: Self.magic, as: UInt64.self)
    }
  }

  /// What the file says, without mapping it; zeroes when there is none.
  static func read(_ device: UblkDevice) -> (live: UInt32, losses: UInt64, repeated: UInt64) {
    guard let text = try? readFile(path(device), limit: byteCount), text.count >= 32 else {
      return (0, 0, 0)
    }
    let bytes = text.bytes.span
    return (
      bytes.native(UInt32.self, at: 8), bytes.native(UInt64.self, at: 16),
      bytes.native(UInt64.self, at: 24)
    )
  }

  var liveCount: UInt32 {
    get { unsafe base.load(fromByteOffset: 8, as: UInt32.self) }
    nonmutating set { unsafe base.storeBytes(of: newValue, toByteOffset: 8, as: UInt32.self) }
  }
  var lossCount: UInt64 { unsafe base.load(fromByteOffset: 16, as: UInt64.self) }
  var repeatedCount: UInt64 { unsafe base.load(fromByteOffset: 24, as: UInt64.self) }

  /// A connection was lost; so many requests are sent again.
  func countLoss(repeated count: UInt64) {
    unsafe base.storeBytes(of: lossCount &+ 1, toByteOffset: 16, as: UInt64.self)
    unsafe base.storeBytes(of: repeatedCount &+ count, toByteOffset: 24, as: UInt64.self)
  }

  func counter(of tag: UInt16) -> UInt32 {
    unsafe base.load(fromByteOffset: Self.countersOffset + Int(tag) * 4, as: UInt32.self)
  }
  func setCounter(of tag: UInt16, _ counter: UInt32) {
    unsafe base.storeBytes(
      of: counter, toByteOffset: Self.countersOffset + Int(tag) * 4, as: UInt32.self)
  }
}

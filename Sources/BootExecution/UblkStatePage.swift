// SPDX-License-Identifier: Apache-2.0
// What outlives the process that carries a device's data: one page of a file in /run, mapped and
// locked. A keeper that takes the device up again goes on counting where the last one stopped, so
// that a server can tell its requests from copies that are still on their way; `rootlink status`
// reads how many connections live.
//
//   0 magic, 8 live connections, 16 losses, 24 requests sent again, 32 it is over, 40 open at the
//   server, 48 a bit for each path that is up, 512 counters

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

  /// What the file of a device says; zeroes when there is none.
  struct Reading: Sendable {
    var liveCount: UInt32 = 0
    var lossCount: UInt64 = 0
    var repeatedCount: UInt64 = 0
    var isOpen = false
    var pathsUp: UInt64 = 0

    /// Without mapping it.
    init(of device: UblkDevice) {
      guard let text = try? readFile(path(device), limit: byteCount), text.count >= 56 else {
        return
      }
      let bytes = text.bytes.span
      liveCount = bytes.native(UInt32.self, at: 8)
      lossCount = bytes.native(UInt64.self, at: 16)
      repeatedCount = bytes.native(UInt64.self, at: 24)
      isOpen = bytes.native(UInt32.self, at: 40) != 0
      pathsUp = bytes.native(UInt64.self, at: 48)
    }
  }

  var liveCount: UInt32 {
    get { unsafe base.load(fromByteOffset: 8, as: UInt32.self) }
    nonmutating set { unsafe base.storeBytes(of: newValue, toByteOffset: 8, as: UInt32.self) }
  }
  /// The device ends, or has ended: nobody takes it up any more.
  var isOver: Bool {
    get { unsafe base.load(fromByteOffset: 32, as: UInt32.self) != 0 }
    nonmutating set {
      unsafe base.storeBytes(of: newValue ? 1 : 0, toByteOffset: 32, as: UInt32.self)
    }
  }
  /// RNBD: the server has it open for us.
  func setOpen(_ isOpen: Bool) {
    unsafe base.storeBytes(of: isOpen ? 1 : 0, toByteOffset: 40, as: UInt32.self)
  }
  /// RNBD: the paths that are up; the first has the lowest bit.
  func setPathsUp(_ bits: UInt64) {
    unsafe base.storeBytes(of: bits, toByteOffset: 48, as: UInt64.self)
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

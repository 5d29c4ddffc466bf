// SPDX-License-Identifier: Apache-2.0
// What the kernel says of a block device.

import CLinux
import LinuxSystem
import WireFormat

/// One block device, a disk or a partition, as the kernel describes it.
public struct DeviceGeometry: Equatable, Sendable {
  /// As BLKGETSIZE64 says.
  public var byteCount: UInt64
  /// The least that can be read and written past the page cache; 512 to 65536, a power of two.
  public var logicalBlockByteCount: UInt32
  /// What the device writes without reading first; a power of two, not below the logical block.
  public var physicalBlockByteCount: UInt32
  /// What is best transferred at once, as of a RAID; 0: nothing is better than anything.
  public var optimalByteCount: UInt32
  /// Seeks are expensive; false where the kernel does not tell.
  public var isRotational: Bool
  /// It can be told that nobody needs a range any more.
  public var canDiscard: Bool
  /// It zeroes a range without being sent the zeroes.
  public var canWriteZeroes: Bool

  /// Of an open block device.
  init(of number: CInt, major: UInt32, minor: UInt32) throws(SystemError) {
    var bytes: UInt64 = 0
    // SAFETY: BLKGETSIZE64 writes one 64-bit integer. Source: linux/fs.h, as for all below.
    _ = try checked(unsafe clinux_ioctl_pointer(number, clinux_BLKGETSIZE64, &bytes))
    byteCount = bytes
    var logical: CInt = 0
    // SAFETY: BLKSSZGET writes one int.
    _ = try checked(unsafe clinux_ioctl_pointer(number, clinux_BLKSSZGET, &logical))
    guard logical >= 512, logical <= 65536, logical & (logical - 1) == 0 else {
      throw .invalidArgument
    }
    logicalBlockByteCount = UInt32(logical)
    var physical: UInt32 = 0
    // SAFETY: BLKPBSZGET writes one unsigned int. A device that says nothing of use is believed
    // to have no larger blocks.
    let answer = unsafe clinux_ioctl_pointer(number, clinux_BLKPBSZGET, &physical)
    let isSensible = answer >= 0 && physical <= 1 << 20 && physical & (physical &- 1) == 0
    physicalBlockByteCount = max(isSensible ? physical : 0, logicalBlockByteCount)
    var optimal: UInt32 = 0
    // SAFETY: BLKIOOPT writes one unsigned int.
    let hasOptimal = unsafe clinux_ioctl_pointer(number, clinux_BLKIOOPT, &optimal) >= 0
    optimalByteCount = hasOptimal ? optimal : 0
    var rotational: UInt16 = 0
    // SAFETY: BLKROTATIONAL writes one unsigned short.
    let isTold = unsafe clinux_ioctl_pointer(number, clinux_BLKROTATIONAL, &rotational) >= 0
    isRotational = isTold && rotational != 0
    canDiscard = Self.limit("discard_max_bytes", major, minor) > 0
    canWriteZeroes = Self.limit("write_zeroes_max_bytes", major, minor) > 0
  }

  /// A partition's limits are its disk's, one directory up. Source:
  /// Documentation/ABI/stable/sysfs-block.
  private static func limit(_ name: ByteString, _ major: UInt32, _ minor: UInt32) -> UInt64 {
    let device = ByteString("/sys/dev/block/\(major):\(minor)/")
    for directory: ByteString in ["queue/", "../queue/"] {
      guard let text = try? readFile(device + directory + name, limit: 64) else { continue }
      var value: UInt64 = 0
      for byte in text.trimmed.bytes {
        guard byte >= 0x30, byte <= 0x39 else { return 0 }
        value = value &* 10 &+ UInt64(byte - 0x30)
      }
      return value
    }
    return 0
  }
}

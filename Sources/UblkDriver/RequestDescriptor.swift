// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// One request of the disk, as the driver describes it. Source: `struct ublksrv_io_desc`.
public struct RequestDescriptor: Equatable, Sendable {
  public static let byteCount = 24
  /// Whatever the block size of the disk is.
  public static let sectorByteCount: UInt64 = 512

  /// Source: `UBLK_IO_OP_*`.
  public enum Operation: UInt8, Equatable, Sendable {
    case read = 0
    case write = 1
    case flush = 2
    case discard = 3
    case writeZeroes = 5
  }

  /// Source: `UBLK_IO_F_*`.
  public struct Flags: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The data are to be on the medium before the answer.
    public static let fua = Flags(rawValue: 1 << 13)
    /// Of zeroes: no hole may be made for them.
    public static let noUnmap = Flags(rawValue: 1 << 15)
  }

  /// Nil for one that was not asked for, as those of zoned disks.
  public var operation: Operation?
  /// With those that have no name here.
  public var flags: Flags
  /// In sectors of 512 bytes.
  public var sectorCount: UInt32
  /// Of the disk, in sectors of 512 bytes.
  public var firstSector: UInt64

  /// `word`: the operation in the lowest byte, flags above it.
  public init(word: UInt32, sectorCount: UInt32, firstSector: UInt64) {
    operation = Operation(rawValue: UInt8(truncatingIfNeeded: word))
    flags = Flags(rawValue: word & ~0xff)
    self.sectorCount = sectorCount
    self.firstSector = firstSector
  }

  /// Throws for any other length than `byteCount`.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count == Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    self.init(
      word: bytes.native(UInt32.self, at: 0), sectorCount: bytes.native(UInt32.self, at: 4),
      firstSector: bytes.native(UInt64.self, at: 8))
  }
}

/// What is said to /dev/ublkcN about one tag. Source: `struct ublksrv_io_cmd`.
public struct QueueCommand: Equatable, Sendable {
  public static let byteCount = 16
  /// Source: `UBLK_U_IO_*`.
  public static let fetch: UInt32 = 0xc010_7520
  /// The end of a tag's request, and the fetch of its next.
  public static let commitAndFetch: UInt32 = 0xc010_7521

  /// Both words in the byte order of the machine; the second is the address of a buffer, which is
  /// 0 where data are moved by pread(2) and pwrite(2).
  public let words: (UInt64, UInt64)

  /// `result`: bytes done, 0, or a negated errno.
  public init(queue: UInt16 = 0, tag: UInt16, result: Int32 = 0) {
    #if _endian(little)
      let word =
        UInt64(queue) | UInt64(tag) << 16 | UInt64(UInt32(bitPattern: result)) << 32
    #else
      let word =
        UInt64(queue) << 48 | UInt64(tag) << 32 | UInt64(UInt32(bitPattern: result))
    #endif
    words = (word, 0)
  }

  public static func == (left: Self, right: Self) -> Bool { left.words == right.words }

  /// Where the data of a tag lie for pread(2) and pwrite(2). Source: `UBLKSRV_IO_BUF_OFFSET`.
  public static func dataPosition(queue: UInt16 = 0, tag: UInt16, offset: UInt32) -> Int64 {
    0x8000_0000 + Int64(queue) << 41 + Int64(tag) << 25 + Int64(offset & 0x1ff_ffff)
  }
}

// SPDX-License-Identifier: Apache-2.0
// One operation on the blocks of a device.

public import WireFormat

/// The low 8 bits of the operation field. Source: `enum rnbd_io_flags`.
public struct IOOperation: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// `dataByteCount` bytes go to the client.
  public static let read = IOOperation(rawValue: 0)
  /// `dataByteCount` bytes come with the request.
  public static let write = IOOperation(rawValue: 1)
  /// All that was answered before it is durable once this is answered.
  public static let flush = IOOperation(rawValue: 2)
  /// The extent is not needed any more; its contents are undefined afterwards.
  public static let discard = IOOperation(rawValue: 3)
  /// To erase for good, as ATA and NVMe can. This server answers EOPNOTSUPP.
  public static let secureErase = IOOperation(rawValue: 4)
  /// The extent reads as zeroes afterwards.
  public static let writeZeroes = IOOperation(rawValue: 5)
}

/// The other 24 bits. Source: `enum rnbd_io_flags`.
public struct IOFlags: OptionSet, Sendable {
  /// The field's upper bits, moved to bit 0.
  public let rawValue: UInt32
  /// Bits above the field's 24 are dropped.
  public init(rawValue: UInt32) { self.rawValue = rawValue & 0x00ff_ffff }

  /// Somebody waits for it. On reads, flushes and direct writes of Linux's client.
  public static let sync = IOFlags(rawValue: 1 << 0)
  /// The answer comes only when what was written is durable. Linux sets it on every flush, too.
  public static let fua = IOFlags(rawValue: 1 << 1)
}

/// Source: `struct rnbd_msg_io`: 26 bytes of fields, 32 with padding.
public struct IORequest: Equatable, Sendable, WireEncodable {
  /// Of the message with its padding.
  public static let byteCount = 32
  /// Without the priority, as version 1 had it.
  private static let byteCountMinimum = 24
  private static let byteCountWithPriority = 26
  /// What Linux's client puts into a flush, with a size of 0.
  public static let noSector = UInt64.max

  /// The number that `OpenAnswer` gave it.
  public var device: UInt32
  /// In units of 512 bytes. Means nothing in a flush.
  public var sector: UInt64
  /// A number without a name here is kept, for the server to refuse.
  public var operation: IOOperation
  /// Bits without a name here are kept.
  public var flags: IOFlags
  /// In bytes. For a read or write the length of the data; for a discard or write zeroes the
  /// extent, which the session's largest request does not limit.
  public var dataByteCount: UInt32
  /// A Linux I/O priority: class in bits 15 to 13.
  public var priority: UInt16

  public init(
    device: UInt32, sector: UInt64, operation: IOOperation, flags: IOFlags = [],
    dataByteCount: UInt32, priority: UInt16 = 0
  ) {
    self.device = device
    self.sector = sector
    self.operation = operation
    self.flags = flags
    self.dataByteCount = dataByteCount
    self.priority = priority
  }

  /// Takes 24 to 32 bytes, as peers of all versions send them; refuses another type of message.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= Self.byteCountMinimum, bytes.count <= Self.byteCount else {
      throw .byteCount(expected: Self.byteCount, actual: bytes.count)
    }
    let type = bytes.littleEndian(UInt16.self, at: 0)
    guard type == MessageType.io else {
      throw .value(field: "message type", actual: UInt64(type))
    }
    device = bytes.littleEndian(UInt32.self, at: 4)
    sector = bytes.littleEndian(UInt64.self, at: 8)
    operation = IOOperation(rawValue: bytes[16])
    flags = IOFlags(rawValue: bytes.littleEndian(UInt32.self, at: 16) >> 8)
    dataByteCount = bytes.littleEndian(UInt32.self, at: 20)
    priority =
      bytes.count >= Self.byteCountWithPriority ? bytes.littleEndian(UInt16.self, at: 24) : 0
  }

  public var encodedByteCount: Int { Self.byteCount }
  public func encode(into output: inout OutputSpan<UInt8>) {
    output.append(littleEndian: MessageType.io)
    output.append(zeroes: 2)
    output.append(littleEndian: device)
    output.append(littleEndian: sector)
    output.append(littleEndian: flags.rawValue << 8 | UInt32(operation.rawValue))
    output.append(littleEndian: dataByteCount)
    output.append(littleEndian: priority)
    output.append(zeroes: 6)
  }
}

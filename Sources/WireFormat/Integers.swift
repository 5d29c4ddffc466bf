// SPDX-License-Identifier: Apache-2.0
// Integers at offsets. Reads go through a bounds-checked span and need no alignment; a decoder
// checks the length once and then uses literal offsets.
//
// Inlinable: a generic function of another module that is not costs a call for each byte.

extension Span where Element == UInt8 {
  @inlinable
  /// Traps when fewer bytes than `T` has follow `offset`.
  public func bigEndian<T: FixedWidthInteger & UnsignedInteger>(_: T.Type, at offset: Int) -> T {
    var value: T = 0
    for index in 0..<(T.bitWidth / 8) {
      value = (value &<< 8) | T(truncatingIfNeeded: self[offset + index])
    }
    return value
  }

  @inlinable
  /// Traps when fewer bytes than `T` has follow `offset`.
  public func littleEndian<T: FixedWidthInteger & UnsignedInteger>(_: T.Type, at offset: Int) -> T {
    var value: T = 0
    for index in stride(from: T.bitWidth / 8 - 1, through: 0, by: -1) {
      value = (value &<< 8) | T(truncatingIfNeeded: self[offset + index])
    }
    return value
  }

  /// In the byte order of this machine, as netlink and ublk have it.
  @inlinable
  public func native<T: FixedWidthInteger & UnsignedInteger>(_: T.Type, at offset: Int) -> T {
    #if _endian(little)
      littleEndian(T.self, at: offset)
    #else
      bigEndian(T.self, at: offset)
    #endif
  }
}

extension OutputSpan where Element == UInt8 {
  @inlinable
  /// Traps when there is no room for all bytes of `value`.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(bigEndian value: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: value &>> T(shift)))
    }
  }

  @inlinable
  /// Traps when there is no room for all bytes of `value`.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(littleEndian value: T) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      append(UInt8(truncatingIfNeeded: value &>> T(shift)))
    }
  }

  @inlinable
  /// Traps when there is no room for all of them.
  public mutating func append(bytes: [UInt8]) {
    for byte in bytes { append(byte) }
  }

  /// Padding and reserved fields: `count` zero bytes.
  @inlinable
  public mutating func append(zeroes count: Int) {
    for _ in 0..<count { append(0) }
  }
}

extension Array where Element == UInt8 {
  @inlinable
  /// As many bytes as `T` has, whatever the value.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(bigEndian value: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: value &>> T(shift)))
    }
  }

  @inlinable
  /// In the byte order of this machine, as netlink and ublk have it.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(native value: T) {
    for index in 0..<(T.bitWidth / 8) {
      #if _endian(little)
        append(UInt8(truncatingIfNeeded: value &>> T(index * 8)))
      #else
        append(UInt8(truncatingIfNeeded: value &>> T(T.bitWidth - 8 - index * 8)))
      #endif
    }
  }
}

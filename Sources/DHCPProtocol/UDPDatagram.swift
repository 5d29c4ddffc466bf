// SPDX-License-Identifier: Apache-2.0
// The datagram around a message: a machine without an address sends and takes it as bytes, through
// a packet socket, because the kernel would do neither.
// Source: RFC 791, section 3.1; RFC 768; RFC 1071 for the checksum.

import BootPlanning
import WireFormat

/// One datagram over IPv4, whole: no fragment is taken, none is sent.
public struct UDPDatagram: Equatable, Sendable {
  /// Of IPv4 without options, 20, and of UDP, 8.
  public static let headerByteCount = 28
  static let versionAndHeaderLength: UInt8 = 0x45
  static let timeToLive: UInt8 = 64
  static let protocolNumber: UInt8 = 17

  public var source: IPv4Address
  public var sourcePort: UInt16
  public var destination: IPv4Address
  public var destinationPort: UInt16
  /// 65,507 bytes at most can be sent.
  public var payload: [UInt8]

  public init(
    source: IPv4Address, sourcePort: UInt16, destination: IPv4Address, destinationPort: UInt16,
    payload: [UInt8]
  ) {
    self.source = source
    self.sourcePort = sourcePort
    self.destination = destination
    self.destinationPort = destinationPort
    self.payload = payload
  }

  /// With both checksums; nil when the payload does not fit the 16 bits of its length.
  public var encoded: [UInt8]? {
    let byteCount = Self.headerByteCount + payload.count
    guard byteCount <= 65535 else { return nil }
    var bytes: [UInt8] = [Self.versionAndHeaderLength, 0]
    bytes.reserveCapacity(byteCount)
    bytes.append(bigEndian: UInt16(truncatingIfNeeded: byteCount))
    bytes += [0, 0, 0x40, 0]  // No identification, not to be cut.
    bytes += [Self.timeToLive, Self.protocolNumber, 0, 0]
    bytes.append(bigEndian: source.rawValue)
    bytes.append(bigEndian: destination.rawValue)
    let header = ~InternetChecksum.sum(bytes.span)
    bytes[10] = UInt8(truncatingIfNeeded: header >> 8)
    bytes[11] = UInt8(truncatingIfNeeded: header)
    bytes.append(bigEndian: sourcePort)
    bytes.append(bigEndian: destinationPort)
    bytes.append(bigEndian: UInt16(truncatingIfNeeded: byteCount - 20))
    bytes += [0, 0]
    bytes += payload
    let sum = ~InternetChecksum.sum(
      bytes.span.extracting(20..<bytes.count), from: Self.pseudoHeader(bytes.span))
    // 0 would mean that there is no checksum.
    let checksum = sum == 0 ? 0xffff : sum
    bytes[26] = UInt8(truncatingIfNeeded: checksum >> 8)
    bytes[27] = UInt8(truncatingIfNeeded: checksum)
    return bytes
  }

  /// The sum over both addresses, the protocol and the length of the UDP part.
  private static func pseudoHeader(
    _ bytes: Span<UInt8>, headerByteCount: Int = 20, udpByteCount: Int? = nil
  ) -> UInt16 {
    var words: [UInt8] = [0, protocolNumber]
    words.append(bigEndian: UInt16(truncatingIfNeeded: udpByteCount ?? bytes.count - 20))
    return InternetChecksum.sum(
      words.span, from: InternetChecksum.sum(bytes.extracting(12..<20)))
  }

  /// `bytes` begin with the header of IPv4; what lies behind the datagram (Ethernet's padding)
  /// does not count. `isChecksumComplete` is false when the packet socket says that the sender
  /// left the UDP checksum to hardware that was not there, as between virtual machines
  /// (`TP_STATUS_CSUMNOTREADY` in Linux `include/uapi/linux/if_packet.h`).
  public init(decoding bytes: Span<UInt8>, isChecksumComplete: Bool) throws(WireError) {
    guard bytes.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: bytes.count)
    }
    guard bytes[0] >> 4 == 4 else {
      throw .value(field: "IP version", actual: UInt64(bytes[0] >> 4))
    }
    let header = Int(bytes[0] & 15) * 4
    let total = Int(bytes.bigEndian(UInt16.self, at: 2))
    guard header >= 20 else { throw .value(field: "IP header length", actual: UInt64(header)) }
    guard total >= header + 8, total <= bytes.count else {
      throw .byteCount(expected: max(total, header + 8), actual: bytes.count)
    }
    let fragment = bytes.bigEndian(UInt16.self, at: 6)
    // All of it but "not to be cut".
    guard fragment & 0xbfff == 0 else { throw .value(field: "fragment", actual: UInt64(fragment)) }
    guard bytes[9] == Self.protocolNumber else {
      throw .value(field: "IP protocol", actual: UInt64(bytes[9]))
    }
    let headerSum = InternetChecksum.sum(bytes.extracting(0..<header))
    guard headerSum == 0xffff else {
      throw .value(field: "sum over the IP header", actual: UInt64(headerSum))
    }
    let length = Int(bytes.bigEndian(UInt16.self, at: header + 4))
    guard length >= 8, length <= total - header else {
      throw .byteCount(expected: length, actual: total - header)
    }
    if isChecksumComplete, bytes.bigEndian(UInt16.self, at: header + 6) != 0 {
      let sum = InternetChecksum.sum(
        bytes.extracting(header..<(header + length)),
        from: Self.pseudoHeader(bytes, udpByteCount: length))
      guard sum == 0xffff else {
        throw .value(field: "sum over the UDP datagram", actual: UInt64(sum))
      }
    }
    source = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 12))
    destination = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 16))
    sourcePort = bytes.bigEndian(UInt16.self, at: header)
    destinationPort = bytes.bigEndian(UInt16.self, at: header + 2)
    payload = ByteString(copying: bytes.extracting((header + 8)..<(header + length))).bytes
  }
}

/// Source: RFC 1071, section 1.
enum InternetChecksum {
  /// The one's complement sum of big-endian words, not complemented; an odd byte is a word with a
  /// zero behind it. Over something with its right checksum in it, 0xffff.
  static func sum(_ bytes: Span<UInt8>, from start: UInt16 = 0) -> UInt16 {
    // 65535 bytes are far from filling 32 bits.
    var sum = UInt32(start)
    var index = 0
    while index + 1 < bytes.count {
      sum &+= UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
      index += 2
    }
    if index < bytes.count { sum &+= UInt32(bytes[index]) << 8 }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return UInt16(truncatingIfNeeded: sum)
  }
}

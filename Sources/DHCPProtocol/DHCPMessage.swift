// SPDX-License-Identifier: Apache-2.0
// One DHCPv4 message, as it lies in a UDP datagram. Options may stand in three places (behind the
// cookie, and in `file` and `sname` when option 52 says so) and in several pieces; here every code
// is there once, whole, in the order of its first piece.
// Source: RFC 2131, section 2; RFC 2132, section 2 and 9.3; RFC 3396, section 7.

import BootPlanning
import WireFormat

/// A message of a client or a server. Numbers are big-endian on the wire; what the RFC calls a
/// field stands beside it.
public struct DHCPMessage: Equatable, Sendable {
  /// `op`. Source: RFC 2131, section 2.
  public enum Operation: UInt8, Equatable, Sendable {
    case request = 1
    case reply = 2
  }

  /// The header up to and with the magic cookie.
  public static let headerByteCount = 240
  /// In front of the options. Source: RFC 2131, section 3.
  public static let magic: UInt32 = 0x6382_5363
  /// What fits a jumbo frame of 9000 bytes behind the headers of IPv4 and UDP.
  public static let byteCountMaximum = 9000 - 28
  /// Old relays drop shorter requests. Source: RFC 951, section 3: 300 bytes.
  static let byteCountMinimumSent = 300
  static let hardwareAddressByteCountMaximum = 16
  static let serverNameFieldByteCount = 64
  static let bootFileFieldByteCount = 128

  public var operation: Operation
  /// As in ARP; 1 is Ethernet.
  public var hardwareType: UInt8 = 1
  /// At most 16 bytes.
  public var hardwareAddress: [UInt8] = []
  /// `xid`: drawn by the client, sent back by the server.
  public var transaction: UInt32 = 0
  /// Since the client began, as far as 16 bits reach.
  public var seconds: UInt16 = 0
  /// The client cannot take a datagram sent to an address that it has not got yet.
  public var wantsBroadcast = false
  /// `ciaddr`, `yiaddr`, `siaddr`, `giaddr`.
  public var clientAddress = IPv4Address(rawValue: 0)
  public var yourAddress = IPv4Address(rawValue: 0)
  public var nextServer = IPv4Address(rawValue: 0)
  public var relay = IPv4Address(rawValue: 0)
  /// `sname` and `file`; empty when options lie there.
  public var serverName = ByteString()
  public var bootFile = ByteString()
  /// Each code once and whole, in the order of its first piece; option 52 is taken out once it was
  /// followed.
  public var options: [DHCPOption] = []

  public init(_ operation: Operation) { self.operation = operation }

  /// The bytes of the option, empty or not; nil when it is not there.
  public func option(_ code: DHCPOption.Code) -> [UInt8]? {
    for option in options where option.code == code { return option.bytes }
    return nil
  }

  /// Throws for fewer bytes than `headerByteCount` or more than `byteCountMaximum`, a wrong magic,
  /// an `op` that is neither of the two, an `hlen` above 16, an option that reaches beyond its
  /// field, and an option 52 that is not one byte from 1 to 3.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= Self.headerByteCount else {
      throw .byteCount(expected: Self.headerByteCount, actual: bytes.count)
    }
    guard bytes.count <= Self.byteCountMaximum else {
      throw .limit(
        field: "DHCP message length", maximum: UInt64(Self.byteCountMaximum),
        actual: UInt64(bytes.count))
    }
    guard let operation = Operation(rawValue: bytes[0]) else {
      throw .value(field: "op", actual: UInt64(bytes[0]))
    }
    let magic = bytes.bigEndian(UInt32.self, at: 236)
    guard magic == Self.magic else {
      throw .magic(expected: UInt64(Self.magic), actual: UInt64(magic))
    }
    let hardwareByteCount = Int(bytes[2])
    guard hardwareByteCount <= Self.hardwareAddressByteCountMaximum else {
      throw .limit(
        field: "hlen", maximum: UInt64(Self.hardwareAddressByteCountMaximum),
        actual: UInt64(hardwareByteCount))
    }
    self.operation = operation
    hardwareType = bytes[1]
    transaction = bytes.bigEndian(UInt32.self, at: 4)
    seconds = bytes.bigEndian(UInt16.self, at: 8)
    wantsBroadcast = bytes.bigEndian(UInt16.self, at: 10) & 0x8000 != 0
    clientAddress = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 12))
    yourAddress = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 16))
    nextServer = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 20))
    relay = IPv4Address(rawValue: bytes.bigEndian(UInt32.self, at: 24))
    hardwareAddress = ByteString(copying: bytes.extracting(28..<(28 + hardwareByteCount))).bytes
    try decodeOptions(bytes)
  }

  /// `sname` is at 44, `file` at 108. RFC 3396: first the options, then `file`, then `sname`.
  private mutating func decodeOptions(_ bytes: Span<UInt8>) throws(WireError) {
    let server = bytes.extracting(44..<108)
    let file = bytes.extracting(108..<236)
    try DHCPOption.read(bytes.extracting(Self.headerByteCount..<bytes.count), into: &options)
    var overload: UInt8 = 0
    if let value = option(.overload) {
      guard value.count == 1, value[0] >= 1, value[0] <= 3 else {
        throw .value(field: "option overload", actual: UInt64(value.first ?? 0))
      }
      overload = value[0]
      options.removeAll { $0.code == .overload }
    }
    if overload & 1 != 0 {
      try DHCPOption.read(file, into: &options)
    } else {
      bootFile = Self.text(file)
    }
    if overload & 2 != 0 {
      try DHCPOption.read(server, into: &options)
    } else {
      serverName = Self.text(server)
    }
  }

  /// A field that is full has no NUL; servers send that.
  private static func text(_ field: Span<UInt8>) -> ByteString {
    var count = 0
    while count < field.count, field[count] != 0 { count += 1 }
    return ByteString(copying: field.extracting(0..<count))
  }
}

extension DHCPMessage {
  /// The datagram's bytes. Long options are cut into pieces of 255 bytes as RFC 3396 has it;
  /// nothing is put into `sname` and `file` but their own text, which is cut to what fits.
  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.byteCountMinimumSent)
    let address = hardwareAddress.prefix(Self.hardwareAddressByteCountMaximum)
    bytes += [operation.rawValue, hardwareType, UInt8(truncatingIfNeeded: address.count), 0]
    bytes.append(bigEndian: transaction)
    bytes.append(bigEndian: seconds)
    bytes.append(bigEndian: UInt16(wantsBroadcast ? 0x8000 : 0))
    for number in [clientAddress, yourAddress, nextServer, relay] {
      bytes.append(bigEndian: number.rawValue)
    }
    Self.append(Array(address), fieldByteCount: 16, to: &bytes)
    Self.append(serverName.bytes, fieldByteCount: Self.serverNameFieldByteCount, to: &bytes)
    Self.append(bootFile.bytes, fieldByteCount: Self.bootFileFieldByteCount, to: &bytes)
    bytes.append(bigEndian: Self.magic)
    for option in options { option.append(to: &bytes) }
    bytes.append(DHCPOption.end)
    while bytes.count < Self.byteCountMinimumSent { bytes.append(0) }
    return bytes
  }

  private static func append(_ value: [UInt8], fieldByteCount: Int, to bytes: inout [UInt8]) {
    let shown = value.prefix(fieldByteCount)
    bytes += shown
    for _ in shown.count..<fieldByteCount { bytes.append(0) }
  }
}

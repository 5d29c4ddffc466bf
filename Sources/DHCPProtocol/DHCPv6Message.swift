// SPDX-License-Identifier: Apache-2.0
// One DHCPv6 message: a type, three bytes of transaction, options of two-byte codes and lengths.
// Source: RFC 8415, sections 8 and 21; RFC 3646 for name servers; RFC 5970 for booting.

import BootPlanning
import WireFormat

/// One option, of a message or inside of another option. Numbers in it are big-endian.
public struct DHCPv6Option: Equatable, Sendable {
  /// Source: RFC 8415, the section named behind each code, unless another RFC stands there.
  public struct Code: Equatable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// 21.2: a DUID.
    public static let clientIdentifier = Code(rawValue: 1)
    /// 21.3: a DUID.
    public static let serverIdentifier = Code(rawValue: 2)
    /// 21.4: IA_NA.
    public static let addresses = Code(rawValue: 3)
    /// 21.6: IAADDR.
    public static let address = Code(rawValue: 5)
    /// 21.7: ORO.
    public static let requests = Code(rawValue: 6)
    /// 21.8: one byte; 0 without it.
    public static let preference = Code(rawValue: 7)
    /// 21.9: 16 bits, hundredths of a second.
    public static let elapsedTime = Code(rawValue: 8)
    /// 21.13: 16 bits, 0 for success, and text.
    public static let status = Code(rawValue: 13)
    /// RFC 3646, section 3: addresses.
    public static let nameServers = Code(rawValue: 23)
    /// RFC 3646, section 4: names.
    public static let searchDomains = Code(rawValue: 24)
    /// RFC 5970, section 3.1: text.
    public static let bootFileURL = Code(rawValue: 59)
  }

  public var code: Code
  /// Without code and length. When it is sent it is cut after 65,535 bytes.
  public var bytes: [UInt8]

  public init(_ code: Code, _ bytes: [UInt8]) {
    self.code = code
    self.bytes = bytes
  }

  /// All options of `field`, which they fill.
  static func read(_ field: Span<UInt8>) throws(WireError) -> [DHCPv6Option] {
    var options: [DHCPv6Option] = []
    var offset = 0
    while offset < field.count {
      guard field.count - offset >= 4 else {
        throw .byteCount(expected: 4, actual: field.count - offset)
      }
      let code = field.bigEndian(UInt16.self, at: offset)
      let byteCount = Int(field.bigEndian(UInt16.self, at: offset + 2))
      offset += 4
      guard byteCount <= field.count - offset else {
        throw .byteCount(expected: byteCount, actual: field.count - offset)
      }
      let bytes = ByteString(copying: field.extracting(offset..<(offset + byteCount))).bytes
      options.append(DHCPv6Option(Code(rawValue: code), bytes))
      offset += byteCount
    }
    return options
  }

  func append(to output: inout [UInt8]) {
    // What is ours is far from 64 KiB.
    let shown = bytes.prefix(65535)
    output.append(bigEndian: code.rawValue)
    output.append(bigEndian: UInt16(truncatingIfNeeded: shown.count))
    output += shown
  }
}

/// A message between client and server. Those of relays are laid out otherwise and refused.
public struct DHCPv6Message: Equatable, Sendable {
  /// What is sent and taken on the way to a lease. Source: RFC 8415, section 7.3.
  public enum MessageType: UInt8, Equatable, Sendable {
    case solicit = 1
    case advertise = 2
    case request = 3
    case reply = 7
  }

  /// Of UDP. Source: RFC 8415, section 7.2.
  public static let serverPort: UInt16 = 547
  /// Of UDP. Source: RFC 8415, section 7.2.
  public static let clientPort: UInt16 = 546
  /// What fits a jumbo frame of 9000 bytes behind the headers of IPv6 and UDP.
  public static let byteCountMaximum = 9000 - 48

  public var type: MessageType
  /// 24 bits.
  public var transaction: UInt32
  /// In the order of the wire; one code may be there several times.
  public var options: [DHCPv6Option] = []

  /// Of `transaction` the lower 24 bits count.
  public init(_ type: MessageType, transaction: UInt32) {
    self.type = type
    self.transaction = transaction & 0xff_ffff
  }

  /// Throws for fewer than 4 bytes or more than `byteCountMaximum`, a type that `MessageType` has
  /// not, and an option that reaches beyond the end.
  public init(decoding bytes: Span<UInt8>) throws(WireError) {
    guard bytes.count >= 4 else { throw .byteCount(expected: 4, actual: bytes.count) }
    guard bytes.count <= Self.byteCountMaximum else {
      throw .limit(
        field: "DHCPv6 message length", maximum: UInt64(Self.byteCountMaximum),
        actual: UInt64(bytes.count))
    }
    guard let type = MessageType(rawValue: bytes[0]) else {
      throw .value(field: "DHCPv6 message type", actual: UInt64(bytes[0]))
    }
    self.type = type
    transaction = bytes.bigEndian(UInt32.self, at: 0) & 0xff_ffff
    options = try DHCPv6Option.read(bytes.extracting(4..<bytes.count))
  }

  /// The payload of a UDP datagram.
  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(type.rawValue) << 24 | transaction & 0xff_ffff)
    for option in options { option.append(to: &bytes) }
    return bytes
  }

  /// The first option of the code; nil when there is none.
  public func option(_ code: DHCPv6Option.Code) -> [UInt8]? {
    for option in options where option.code == code { return option.bytes }
    return nil
  }

  /// Of the message itself; 0 is success, also when nothing is said.
  public var status: UInt16 { Self.status(options) }

  static func status(_ options: [DHCPv6Option]) -> UInt16 {
    for option in options where option.code == .status {
      return option.bytes.count >= 2 ? option.bytes.span.bigEndian(UInt16.self, at: 0) : 1
    }
    return 0
  }
}

/// What a reply (or an advertisement) gives.
public struct DHCPv6Lease: Equatable, Sendable {
  /// Without a network around it: what else is on the link, a router says.
  public var address: IPv6Address
  /// Above 0; `UInt32.max` is for ever.
  public var validSeconds: UInt32
  /// A DUID of 3 to 130 bytes, to be sent back with the request.
  public var serverIdentifier: [UInt8]
  /// At most `DHCPLease.nameServerCountMaximum`; none of an option that is no multiple of 16 bytes.
  public var nameServers: [IPv6Address] = []
  /// Written out with dots; none when one of them is malformed.
  public var searchDomains: [ByteString] = []
  /// 1 to `DHCPLease.textByteCountMaximum` bytes without NUL. Stands for the root path, which
  /// DHCPv6 has not.
  public var bootFileURL: ByteString?

  /// Source: RFC 8415, section 11.1.
  static let identifierByteCountMaximum = 130

  /// Nil unless the message gives an address for the association `identifier`.
  public init?(_ message: DHCPv6Message, association identifier: UInt32) {
    guard message.status == 0, let server = message.option(.serverIdentifier), server.count >= 3,
      server.count <= Self.identifierByteCountMaximum
    else { return nil }
    for option in message.options where option.code == .addresses {
      guard option.bytes.count >= 12,
        option.bytes.span.bigEndian(UInt32.self, at: 0) == identifier,
        let found = Self.address(option.bytes)
      else { continue }
      address = found.address
      validSeconds = found.validSeconds
      serverIdentifier = server
      readConfiguration(message)
      return
    }
    return nil
  }

  private static func address(
    _ association: [UInt8]
  ) -> (address: IPv6Address, validSeconds: UInt32)? {
    let span = association.span
    let options: [DHCPv6Option]
    do throws(WireError) {
      options = try DHCPv6Option.read(span.extracting(12..<span.count))
    } catch {
      return nil
    }
    guard DHCPv6Message.status(options) == 0 else { return nil }
    for option in options where option.code == .address && option.bytes.count >= 24 {
      let bytes = option.bytes
      let preferred = bytes.span.bigEndian(UInt32.self, at: 16)
      let valid = bytes.span.bigEndian(UInt32.self, at: 20)
      guard valid > 0, preferred <= valid else { continue }
      return (IPv6Address(bytes.span, at: 0), valid)
    }
    return nil
  }

  private mutating func readConfiguration(_ message: DHCPv6Message) {
    if let bytes = message.option(.nameServers), bytes.count.isMultiple(of: 16) {
      for offset in stride(from: 0, to: bytes.count, by: 16)
      where nameServers.count < DHCPLease.nameServerCountMaximum {
        nameServers.append(IPv6Address(bytes.span, at: offset))
      }
    }
    if let bytes = message.option(.searchDomains) {
      searchDomains = SearchDomains.decode(bytes) ?? []
    }
    if let url = message.option(.bootFileURL), !url.isEmpty, !url.contains(0),
      url.count <= DHCPLease.textByteCountMaximum
    {
      bootFileURL = ByteString(url)
    }
  }
}

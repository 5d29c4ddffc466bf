// SPDX-License-Identifier: Apache-2.0
// Options as they lie in a field: a code, a length and so many bytes; 0 is padding, 255 the end.
// Source: RFC 2132; RFC 3396 for options in several pieces.

import BootPlanning
import WireFormat

/// One option of a message. Numbers in it are big-endian.
public struct DHCPOption: Equatable, Sendable {
  /// Source: RFC 2132, the section named behind each code, unless another RFC stands there.
  public struct Code: Equatable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// 3.3: 4 bytes.
    public static let subnetMask = Code(rawValue: 1)
    /// 3.5: addresses, the preferred first.
    public static let routers = Code(rawValue: 3)
    /// 3.8: addresses, the preferred first.
    public static let nameServers = Code(rawValue: 6)
    /// 3.14: text.
    public static let hostName = Code(rawValue: 12)
    /// 3.17: text.
    public static let domainName = Code(rawValue: 15)
    /// 3.19: text.
    public static let rootPath = Code(rawValue: 17)
    /// 5.1: 16 bits, 68 at least.
    public static let mtu = Code(rawValue: 26)
    /// 5.3: an address.
    public static let broadcastAddress = Code(rawValue: 28)
    /// 9.1: an address.
    public static let requestedAddress = Code(rawValue: 50)
    /// 9.2: 32 bits, seconds.
    public static let leaseTime = Code(rawValue: 51)
    /// 9.3: 1 `file`, 2 `sname`, 3 both.
    public static let overload = Code(rawValue: 52)
    /// 9.6: one byte, `DHCPMessageType`.
    public static let messageType = Code(rawValue: 53)
    /// 9.7: an address.
    public static let serverIdentifier = Code(rawValue: 54)
    /// 9.8: one code a byte.
    public static let parameterRequests = Code(rawValue: 55)
    /// 9.9: text, why it is refused.
    public static let message = Code(rawValue: 56)
    /// 9.10: 16 bits.
    public static let messageByteCountMaximum = Code(rawValue: 57)
    /// 9.11: 32 bits, seconds.
    public static let renewalTime = Code(rawValue: 58)
    /// 9.12: 32 bits, seconds.
    public static let rebindingTime = Code(rawValue: 59)
    /// 9.13: bytes.
    public static let vendorClass = Code(rawValue: 60)
    /// 9.14: a type and an identifier.
    public static let clientIdentifier = Code(rawValue: 61)
    /// 9.4: text.
    public static let serverName = Code(rawValue: 66)
    /// 9.5: text.
    public static let bootFile = Code(rawValue: 67)
    /// RFC 3397.
    public static let searchDomains = Code(rawValue: 119)
    /// RFC 3442.
    public static let classlessRoutes = Code(rawValue: 121)
  }

  public var code: Code
  /// Whole, whatever the pieces were.
  public var bytes: [UInt8]

  static let padding: UInt8 = 0
  static let end: UInt8 = 255
  static let pieceByteCountMaximum = 255

  public init(_ code: Code, _ bytes: [UInt8]) {
    self.code = code
    self.bytes = bytes
  }
  /// An option of four bytes.
  public init(_ code: Code, _ address: IPv4Address) { self.init(code, address.bytes) }

  /// Adds what lies in `field`. A field that ends without 255 ends there, as some servers let it;
  /// an option that reaches beyond the field is refused.
  static func read(_ field: Span<UInt8>, into options: inout [DHCPOption]) throws(WireError) {
    var index = 0
    while index < field.count {
      let code = field[index]
      index += 1
      if code == end { return }
      if code == padding { continue }
      guard index < field.count else { throw .byteCount(expected: 1, actual: 0) }
      let byteCount = Int(field[index])
      index += 1
      guard byteCount <= field.count - index else {
        throw .byteCount(expected: byteCount, actual: field.count - index)
      }
      add(Code(rawValue: code), field.extracting(index..<(index + byteCount)), to: &options)
      index += byteCount
    }
  }

  private static func add(_ code: Code, _ piece: Span<UInt8>, to options: inout [DHCPOption]) {
    for index in options.indices where options[index].code == code {
      for offset in 0..<piece.count { options[index].bytes.append(piece[offset]) }
      return
    }
    options.append(DHCPOption(code, ByteString(copying: piece).bytes))
  }

  func append(to output: inout [UInt8]) {
    var rest = bytes[...]
    repeat {
      let piece = rest.prefix(Self.pieceByteCountMaximum)
      output.append(code.rawValue)
      output.append(UInt8(truncatingIfNeeded: piece.count))
      output += piece
      rest = rest.dropFirst(piece.count)
    } while !rest.isEmpty
  }
}

/// Option 53: the messages between a client without an address and a server. What a client does
/// with a lease later (decline, release, inform) is not there, and is passed over like any other
/// unknown type. Source: RFC 2132, section 9.6.
public enum DHCPMessageType: UInt8, Equatable, Sendable {
  case discover = 1
  case offer = 2
  case request = 3
  case acknowledgement = 5
  case refusal = 6
}

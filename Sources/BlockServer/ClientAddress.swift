// SPDX-License-Identifier: Apache-2.0
// Where a client is, without the port, which is another one for each connection: what lists of
// networks are compared with, and what limits and directories of one client go by.

import CLinux
import LinuxSystem
import WireFormat

/// Where a client is, without its port.
public enum ClientAddress: Hashable, Sendable {
  /// 4 octets in network order.
  case ipv4([UInt8])
  /// 16 octets in network order; also of an InfiniBand GID, which has the same form.
  case ipv6([UInt8])
  /// Somebody on this machine, through a socket in its file system.
  case local
  /// Nothing is known of it. It is in no network, and has no limit of its own.
  case unknown

  /// As connections are called in the log: `tcp:192.0.2.1:4321`, `tcp:[2001:db8::1]:4321`,
  /// `unix:/run/x`, over RDMA a host alone or `gid:` and 32 digits. An IPv4 address inside an IPv6
  /// one is the IPv4 address; an interface behind `%` does not count.
  public init(_ text: ByteString) {
    if text.hasPrefix("unix:") {
      self = .local
    } else if let digits = text.dropping(prefix: "gid:") {
      let token = AttachmentToken(hexadecimal: digits)
      self = token.map { Self(octets: $0.octets) } ?? .unknown
    } else {
      self = Self(host: Self.host(in: text.dropping(prefix: "tcp:") ?? text)) ?? .unknown
    }
  }

  /// A numeric address; nil for anything else.
  public init?(host text: ByteString) {
    let plain = text.cut(at: UInt8(ascii: "%"))?.head ?? text
    guard !plain.bytes.contains(0), let octets = Self.octets(of: plain) else { return nil }
    self.init(octets: octets)
  }

  /// 4 or 16 octets.
  private init(octets: [UInt8]) {
    // Source: RFC 4291, 2.5.5.2.
    let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    if octets.count == 4 {
      self = .ipv4(octets)
    } else if Array(octets.prefix(12)) == mapped {
      self = .ipv4(Array(octets.suffix(4)))
    } else {
      self = .ipv6(octets)
    }
  }

  private static func host(in text: ByteString) -> ByteString {
    if text.hasPrefix("["), let end = text.bytes.lastIndex(of: UInt8(ascii: "]")) {
      return ByteString(text.bytes[1..<end])
    }
    // One colon ends an IPv4 address; several are an IPv6 address without brackets.
    guard text.bytes.count(where: { $0 == UInt8(ascii: ":") }) == 1 else { return text }
    return text.cut(at: UInt8(ascii: ":"))?.head ?? text
  }

  private static func octets(of text: ByteString) -> [UInt8]? {
    var octets = [UInt8](repeating: 0, count: 16)
    let count = try? unsafe withCString(text) { pointer in
      unsafe octets.withUnsafeMutableBufferPointer { octets in
        // SAFETY: a terminated copy, and room for the longer of the two kinds.
        unsafe clinux_parse_address(pointer, octets.baseAddress!)
      }
    }
    guard let count, count > 0 else { return nil }
    return Array(octets.prefix(Int(count)))
  }

  /// As it is written: `192.0.2.1`, `2001:db8::1`, `local`; nil when nothing is known. No text of
  /// it has a slash in it or is `..`.
  public var text: ByteString? {
    switch self {
    case .ipv4(let octets), .ipv6(let octets): Self.text(of: octets)
    case .local: "local"
    case .unknown: nil
    }
  }

  static func text(of octets: [UInt8]) -> ByteString {
    var buffer = [UInt8](repeating: 0, count: 64)
    unsafe octets.withUnsafeBufferPointer { octets in
      unsafe buffer.withUnsafeMutableBytes { buffer in
        // SAFETY: 4 or 16 octets, as every maker of an address has seen to; there is room for the
        // longest text.
        unsafe clinux_format_address(
          octets.baseAddress!, CInt(octets.count),
          buffer.baseAddress!.assumingMemoryBound(to: CChar.self))
      }
    }
    return ByteString(buffer.prefix { $0 != 0 })
  }
}

extension AttachmentToken {
  fileprivate var octets: [UInt8] {
    [high, low].flatMap { word in
      stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> UInt64($0)) }
    }
  }
}

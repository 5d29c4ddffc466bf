// SPDX-License-Identifier: Apache-2.0
// One question about one name, and the addresses in its answer. A static program has no libc
// resolver with modules to ask; this asks the name servers of the lease itself. Everything in an
// answer is checked: pointers only point back, names and counts have limits, and addresses count
// only when they belong to the name asked or to what it is an alias of.
// Source: RFC 1035, section 4; RFC 3596 for AAAA.

import WireFormat

/// The kinds of record that matter here.
public enum DNSRecordType: UInt16, Sendable {
  case ipv4 = 1
  case alias = 5
  case ipv6 = 28
}

/// The question as a datagram, recursion desired.
public func encodeDNSQuestion(identifier: UInt16, name: DNSName, type: DNSRecordType) -> [UInt8] {
  var message: [UInt8] = []
  message.append(bigEndian: identifier)
  message.append(bigEndian: UInt16(0x0100))
  message.append(bigEndian: UInt16(1))
  message += [0, 0, 0, 0, 0, 0]
  message += name.wire
  message.append(bigEndian: type.rawValue)
  message.append(bigEndian: UInt16(1))
  return message
}

/// What a name server said to a question.
public enum DNSAnswer: Equatable, Sendable {
  /// 4 or 16 octets each, in the order of the answer; none when the name has none of the kind.
  case addresses([[UInt8]])
  case noSuchName
  /// Another response code: 2 is the server's own failure, 5 a refusal.
  case failed(code: UInt8)
}

/// Why a datagram is no answer to be used.
public enum DNSMessageError: Error, Equatable, Sendable {
  /// Not an answer to this question: another identifier, name or type. Wait for the next.
  case unrelated
  case malformed
}

/// At most this many records are looked at; 512 bytes hold fewer.
private let recordCountMaximum = 64

/// Reads an answer, which may be cut off (TC): the addresses before the cut are good.
public func decodeDNSAnswer(
  _ message: [UInt8], identifier: UInt16, name: DNSName, type: DNSRecordType
) throws(DNSMessageError) -> DNSAnswer {
  guard message.count >= 12 else { throw .malformed }
  let span = message.span
  guard span.bigEndian(UInt16.self, at: 0) == identifier else { throw .unrelated }
  let flags = span.bigEndian(UInt16.self, at: 2)
  guard flags & 0x8000 != 0, span.bigEndian(UInt16.self, at: 4) == 1 else { throw .unrelated }
  var offset = 12
  let asked = try readName(span, at: &offset)
  guard offset + 4 <= span.count else { throw .malformed }
  guard asked == name, span.bigEndian(UInt16.self, at: offset) == type.rawValue else {
    throw .unrelated
  }
  offset += 4
  switch flags & 15 {
  case 0: break
  case 3: return .noSuchName
  default: return .failed(code: UInt8(flags & 15))
  }
  let isCut = flags & 0x0200 != 0
  var owner = name
  var addresses: [[UInt8]] = []
  for _ in 0..<min(Int(span.bigEndian(UInt16.self, at: 6)), recordCountMaximum) {
    do throws(DNSMessageError) {
      let recordName = try readName(span, at: &offset)
      guard offset + 10 <= span.count else { throw DNSMessageError.malformed }
      let recordType = span.bigEndian(UInt16.self, at: offset)
      let recordClass = span.bigEndian(UInt16.self, at: offset + 2)
      let byteCount = Int(span.bigEndian(UInt16.self, at: offset + 8))
      offset += 10
      guard offset + byteCount <= span.count else { throw DNSMessageError.malformed }
      if recordClass == 1, recordName == owner {
        if recordType == DNSRecordType.alias.rawValue {
          var at = offset
          owner = try readName(span, at: &at)
        } else if recordType == type.rawValue, byteCount == (type == .ipv4 ? 4 : 16) {
          addresses.append(Array(message[offset..<(offset + byteCount)]))
        }
      }
      offset += byteCount
    } catch {
      if isCut { break }
      throw .malformed
    }
  }
  return .addresses(addresses)
}

/// Reads a name and moves past it. A pointer must point before itself, so that there is no loop.
private func readName(
  _ message: Span<UInt8>, at offset: inout Int
) throws(DNSMessageError) -> DNSName {
  var wire: [UInt8] = []
  var at = offset
  var end: Int?
  while true {
    guard at < message.count else { throw .malformed }
    let length = Int(message[at])
    switch length {
    case 0:
      wire.append(0)
      offset = end ?? at + 1
      return DNSName(wire: wire)
    case 1...DNSName.labelByteCountMaximum:
      guard at + 1 + length <= message.count,
        wire.count + length + 2 <= DNSName.byteCountMaximum
      else { throw .malformed }
      wire.append(UInt8(length))
      for index in (at + 1)...(at + length) {
        let byte = message[index]
        wire.append(byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte)
      }
      at += 1 + length
    case 0xc0...0xff:
      guard at + 1 < message.count else { throw .malformed }
      let target = (length & 0x3f) << 8 | Int(message[at + 1])
      guard target < at else { throw .malformed }
      end = end ?? at + 2
      at = target
    default:
      throw .malformed
    }
  }
}

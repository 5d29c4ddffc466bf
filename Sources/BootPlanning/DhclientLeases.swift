// SPDX-License-Identifier: Apache-2.0
// ISC dhclient's lease file: blocks appended over time, of which the last for an interface counts.
//
//   lease { interface "eth0"; fixed-address 192.0.2.121; option root-path "..."; expire 6 DATE; }
//
// Statements end with `;`, strings have C's escapes, dates are in UTC. The header's siaddr is not in
// the file. `lease6` blocks hold no root-path and are stepped over. Source: dhclient.leases(5).

import WireFormat

struct DhclientLeases {
  private enum Token {
    case word(Text)
    case string(ByteString)
    case open, close, end, comma
  }

  static let leaseCountMaximum = 64
  static let statementTokenCountMaximum = 64

  private var rest: Text
  private let path: ByteString
  private let modificationTime: Int64

  /// One lease an interface.
  static func read(_ file: LeaseFile) -> [Lease] {
    var reader = DhclientLeases(
      rest: file.bytes.bytes[...], path: file.path, modificationTime: file.modificationTime)
    var leases: [Lease] = []
    while let token = reader.next() {
      guard case .word(let word) = token, case .open? = reader.next() else { continue }
      guard word.isEqual(to: "lease") else {
        reader.skipBlock()
        continue
      }
      guard let lease = reader.readBlock() else { break }
      leases.removeAll { $0.interface == lease.interface }
      if leases.count < leaseCountMaximum { leases.append(lease) }
    }
    return leases
  }

  /// Nil when the file ends inside the block: its last statement may be half of itself.
  private mutating func readBlock() -> Lease? {
    var lease = Lease(
      producer: .dhclient, interface: ByteString(), path: path, modificationTime: modificationTime)
    var statement: [Token] = []
    while let token = next() {
      switch token {
      case .close:
        return lease
      case .open:
        skipBlock()
        statement.removeAll()
      case .end:
        Self.apply(statement[...], to: &lease)
        statement.removeAll()
      default:
        if statement.count < Self.statementTokenCountMaximum { statement.append(token) }
      }
    }
    return nil
  }

  /// To the `}` that closes the block whose `{` was just read.
  private mutating func skipBlock() {
    var depth = 1
    while depth > 0, let token = next() {
      if case .open = token { depth += 1 }
      if case .close = token { depth -= 1 }
    }
  }

  private static func apply(_ statement: ArraySlice<Token>, to lease: inout Lease) {
    guard case .word(let keyword)? = statement.first else { return }
    let rest = statement.dropFirst()
    let value = joined(rest)
    let text = value.bytes[...]
    if keyword.isEqual(to: "option") {
      guard case .word(let option)? = rest.first else { return }
      apply(option: option, joined(rest.dropFirst()).bytes[...], to: &lease)
    } else if keyword.isEqual(to: "interface") {
      if ServerGrammar.isInterfaceName(text) { lease.interface = value }
    } else if keyword.isEqual(to: "fixed-address") {
      lease.setAddress(text)
    } else if keyword.isEqual(to: "server-name") {
      if lease.serverName == nil { lease.setServerName(text, key: "server-name") }
    } else if keyword.isEqual(to: "expire") {
      if let expiry = UTCDate.secondsSince1970(text) { lease.expiry = expiry }
    }
  }

  private static func apply(option: Text, _ text: Text, to lease: inout Lease) {
    if option.isEqual(to: "root-path") {
      lease.setRootPath(text, key: "option root-path")
    } else if option.isEqual(to: "dhcp-server-identifier") {
      lease.setDHCPServer(text, key: "option dhcp-server-identifier")
    } else if option.isEqual(to: "tftp-server-name") {
      lease.setServerName(text, key: "option tftp-server-name")
    } else if option.isEqual(to: "subnet-mask") {
      lease.setNetmask(text)
    } else if option.isEqual(to: "routers") {
      lease.setGateway(text)
    } else if option.isEqual(to: "domain-name-servers") {
      lease.addNameServers(text)
    } else if option.isEqual(to: "domain-search") {
      lease.searchDomains.removeAll()
      lease.addSearchDomains(text)
    } else if option.isEqual(to: "domain-name") {
      if lease.searchDomains.isEmpty { lease.addSearchDomains(text) }
    } else if option.isEqual(to: "host-name") {
      lease.setHostName(text)
    } else if option.isEqual(to: "interface-mtu") {
      lease.setMTU(text)
    } else if option.isEqual(to: "dhcp-lease-time") {
      // The block says when it expires; the file's age says nothing about this block's.
      lease.leaseSeconds = text.decimal(maximum: UInt64(UInt32.max)).map {
        UInt32(truncatingIfNeeded: $0)
      }
    }
  }

  /// The words and strings of a statement with single spaces between.
  private static func joined(_ tokens: ArraySlice<Token>) -> ByteString {
    var text: [UInt8] = []
    for token in tokens {
      if !text.isEmpty { text.append(.space) }
      switch token {
      case .word(let word): text += word
      case .string(let string): text += string.bytes
      default: break
      }
    }
    return ByteString(text)
  }

  /// Nil at the end of the file, and at a string that is not closed.
  private mutating func next() -> Token? {
    while let byte = rest.first {
      switch byte {
      case .space, 0x09, .newline, 0x0d:
        rest = rest.dropFirst()
      case 0x23:
        rest = rest.drop { $0 != .newline }
      case 0x7b:
        rest = rest.dropFirst()
        return .open
      case 0x7d:
        rest = rest.dropFirst()
        return .close
      case 0x3b:
        rest = rest.dropFirst()
        return .end
      case .comma:
        rest = rest.dropFirst()
        return .comma
      case .quote:
        return nextString()
      default:
        let end = rest.firstIndex(where: Self.endsWord) ?? rest.endIndex
        let word = rest[..<end]
        rest = rest[end...]
        return .word(word)
      }
    }
    return nil
  }

  private static func endsWord(_ byte: UInt8) -> Bool {
    switch byte {
    case .space, 0x09, .newline, 0x0d, 0x7b, 0x7d, 0x3b, .comma, .quote: true
    default: false
    }
  }

  private mutating func nextString() -> Token? {
    var string: [UInt8] = []
    rest = rest.dropFirst()
    while let byte = rest.first {
      rest = rest.dropFirst()
      if byte == .quote { return .string(ByteString(string)) }
      string.append(byte == .backslash ? CEscape.read(&rest) : byte)
    }
    return nil
  }
}

/// `weekday yyyy/mm/dd hh:mm:ss` in UTC, or `epoch seconds`.
enum UTCDate {
  static func secondsSince1970(_ text: Text) -> Int64? {
    let fields = text.split(separator: .space)
    guard fields.count >= 2 else { return nil }
    if fields[0].isEqual(to: "epoch") {
      return fields[1].decimal(maximum: 1 << 40).map { Int64($0) }
    }
    guard fields.count >= 3 else { return nil }
    let date = fields[1].split(separator: .slash)
    let time = fields[2].split(separator: .colon)
    guard date.count == 3, time.count == 3, let year = date[0].decimal(maximum: 9999),
      let month = date[1].decimal(maximum: 12), let day = date[2].decimal(maximum: 31),
      let hour = time[0].decimal(maximum: 23), let minute = time[1].decimal(maximum: 59),
      let second = time[2].decimal(maximum: 60), year >= 1970, month >= 1, day >= 1
    else { return nil }
    return days(year: Int64(year), month: Int64(month), day: Int64(day)) * 86400
      + Int64(hour) * 3600 + Int64(minute) * 60 + Int64(second)
  }

  /// Days from 1970-01-01, counting years from March so that a leap day ends its year.
  private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
    let shifted = month > 2 ? year : year - 1
    let era = shifted / 400
    let yearOfEra = shifted % 400
    let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
    return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
  }
}

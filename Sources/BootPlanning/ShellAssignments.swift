// SPDX-License-Identifier: Apache-2.0
// Files of shell assignments, read as data. What a shell would run stays text: `$(reboot)` is nine
// bytes. Quoting that the writers use: none, `'...'` joined with `\'` and `\!`, and that of the
// shell's own `set` and `printf %q` (backslashes, `"..."`, `$'...'`). A value may span lines in
// quotes. A quote that is never closed ends the reading: what follows could be anything.

import WireFormat

struct ShellAssignments {
  private(set) var assignments: [(name: Text, value: ByteString)] = []
  private var rest: Text

  static let countMaximum = 512

  init(_ file: ByteString) {
    rest = file.bytes[...]
    while !rest.isEmpty, assignments.count < Self.countMaximum {
      guard readLine() else { return }
    }
  }

  /// False when a quote is not closed.
  private mutating func readLine() -> Bool {
    rest = rest.drop { $0 == .space || $0 == 0x09 || $0 == .newline }
    if rest.hasPrefix("export ") { rest = rest.dropFirst(7) }
    let nameEnd =
      rest.firstIndex { !$0.isLetter && !$0.isDigit && $0 != .underscore } ?? rest.endIndex
    guard nameEnd > rest.startIndex, nameEnd < rest.endIndex, rest[nameEnd] == .equals else {
      skipLine()
      return true
    }
    let name = rest[..<nameEnd]
    rest = rest[(nameEnd + 1)...]
    guard let value = readWord() else { return false }
    assignments.append((name, value))
    skipLine()
    return true
  }

  private mutating func skipLine() {
    let end = rest.firstIndex(of: .newline) ?? rest.endIndex
    rest = rest[end...].dropFirst()
  }

  private mutating func readWord() -> ByteString? {
    var word: [UInt8] = []
    while let byte = rest.first {
      switch byte {
      case .space, 0x09, .newline:
        return ByteString(word)
      case .apostrophe:
        guard let (inside, after) = rest.dropFirst().cut(at: .apostrophe) else { return nil }
        word += inside
        rest = after
      case .quote:
        rest = rest.dropFirst()
        guard readDoubleQuoted(into: &word) else { return nil }
      case 0x24 where rest.hasPrefix("$'"):
        rest = rest.dropFirst(2)
        guard readANSIQuoted(into: &word) else { return nil }
      case .backslash:
        rest = rest.dropFirst()
        if let escaped = rest.first {
          if escaped != .newline { word.append(escaped) }
          rest = rest.dropFirst()
        }
      default:
        word.append(byte)
        rest = rest.dropFirst()
      }
    }
    return ByteString(word)
  }

  private mutating func readDoubleQuoted(into word: inout [UInt8]) -> Bool {
    while let byte = rest.first {
      rest = rest.dropFirst()
      if byte == .quote { return true }
      if byte == .backslash, let next = rest.first,
        next == .quote || next == .backslash || next == 0x24 || next == 0x60
      {
        word.append(next)
        rest = rest.dropFirst()
      } else {
        word.append(byte)
      }
    }
    return false
  }

  /// `$'...'` with C's escapes.
  private mutating func readANSIQuoted(into word: inout [UInt8]) -> Bool {
    while let byte = rest.first {
      rest = rest.dropFirst()
      if byte == .apostrophe { return true }
      guard byte == .backslash else {
        word.append(byte)
        continue
      }
      word.append(CEscape.read(&rest))
    }
    return false
  }
}

/// What follows a backslash in C's notation.
enum CEscape {
  /// Takes the escape from `rest`, which stands behind the backslash. At the end: a backslash.
  static func read(_ rest: inout Text) -> UInt8 {
    guard let byte = rest.first else { return .backslash }
    if byte >= 0x30, byte <= 0x37 { return readOctal(&rest) }
    rest = rest.dropFirst()
    switch byte {
    case 0x61: return 0x07
    case 0x62: return 0x08
    case 0x65, 0x45: return 0x1b
    case 0x66: return 0x0c
    case 0x6e: return 0x0a
    case 0x72: return 0x0d
    case 0x74: return 0x09
    case 0x76: return 0x0b
    case 0x78: return readHexadecimal(&rest)
    default: return byte
    }
  }

  private static func readOctal(_ rest: inout Text) -> UInt8 {
    var value: UInt8 = 0
    for _ in 0..<3 {
      guard let digit = rest.first, digit >= 0x30, digit <= 0x37 else { break }
      value = value &<< 3 | (digit - 0x30)
      rest = rest.dropFirst()
    }
    return value
  }

  private static func readHexadecimal(_ rest: inout Text) -> UInt8 {
    var value: UInt8 = 0
    for _ in 0..<2 {
      guard let digit = rest.first?.hexadecimalDigit else { break }
      value = value &<< 4 | digit
      rest = rest.dropFirst()
    }
    return value
  }
}

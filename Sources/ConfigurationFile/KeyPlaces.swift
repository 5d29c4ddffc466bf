// SPDX-License-Identifier: Apache-2.0
// Where in a TOML text each key and value stands. The parser of the library has read the text before
// and found it well-formed, but keeps no places: this goes over it once more, for them alone, and
// understands no more of it than that takes. Source of the grammar: TOML 1.0.
//
// Whatever it cannot follow ends the search: a missing place costs an error its line, nothing else.

/// Of a character, both from 1.
public struct Place: Equatable, Comparable, Sendable {
  public var line: Int
  public var column: Int

  public init(line: Int, column: Int) {
    self.line = line
    self.column = column
  }

  public static func < (left: Place, right: Place) -> Bool {
    (left.line, left.column) < (right.line, right.column)
  }
}

/// One step from a value to one inside it.
enum Step: Hashable {
  case key(String)
  case index(Int)
}

struct KeyPlaces {
  /// Where a key, or the header of a table, is written first.
  private(set) var keys: [[Step]: Place] = [:]
  private(set) var values: [[Step]: Place] = [:]

  private let text: [Unicode.Scalar]
  private var at = 0
  private var line = 1
  private var lineStart = 0
  /// The table that keys belong to now.
  private var table: [Step] = []
  /// How many tables an array of tables has.
  private var counts: [[Step]: Int] = [:]
  /// Nested values, against a text that is deep on purpose.
  private static let depthMaximum = 100

  init(_ text: String) {
    self.text = Array(text.unicodeScalars)
    while at < self.text.count, expression() {}
  }

  private var here: Place { Place(line: line, column: at - lineStart + 1) }
  private var next: Unicode.Scalar? { at < text.count ? text[at] : nil }

  private mutating func advance(_ count: Int = 1) {
    for _ in 0..<count where at < text.count {
      at += 1
      if text[at - 1] == "\n" {
        line += 1
        lineStart = at
      }
    }
  }

  private func follows(_ word: String) -> Bool {
    text[at...].starts(with: word.unicodeScalars)
  }

  /// Blanks; with `lines` also line ends and comments.
  private mutating func skip(lines: Bool) {
    while let scalar = next {
      if scalar == " " || scalar == "\t" || scalar == "\r" || (lines && scalar == "\n") {
        advance()
      } else if lines, scalar == "#" {
        while let inside = next, inside != "\n" { advance() }
      } else {
        return
      }
    }
  }

  /// A header or a key with its value; false when there is nothing more to be understood.
  private mutating func expression() -> Bool {
    skip(lines: true)
    guard let scalar = next else { return false }
    if scalar == "[" { return header() }
    return keyAndValue(in: table, depth: 0)
  }

  private mutating func header() -> Bool {
    let isArray = follows("[[")
    advance(isArray ? 2 : 1)
    var path: [Step] = []
    guard let keys = dottedKey() else { return false }
    for (index, (key, place)) in keys.enumerated() {
      path.append(.key(key))
      let isLast = index == keys.count - 1
      if isLast, isArray {
        let count = counts[path, default: 0]
        counts[path] = count + 1
        note(path, place)
        path.append(.index(count))
      } else if let count = counts[path], count > 0 {
        path.append(.index(count - 1))
      }
      note(path, place)
    }
    table = path
    skip(lines: false)
    guard next == "]" else { return false }
    advance(isArray ? 2 : 1)
    return true
  }

  private mutating func note(_ path: [Step], _ place: Place) {
    if keys[path] == nil { keys[path] = place }
  }

  private mutating func keyAndValue(in table: [Step], depth: Int) -> Bool {
    guard let keys = dottedKey() else { return false }
    var path = table
    for (key, place) in keys {
      path.append(.key(key))
      note(path, place)
    }
    skip(lines: false)
    guard next == "=" else { return false }
    advance()
    skip(lines: false)
    return value(path, depth: depth)
  }

  private mutating func dottedKey() -> [(String, Place)]? {
    var keys: [(String, Place)] = []
    while true {
      skip(lines: false)
      let place = here
      guard let key = simpleKey() else { return nil }
      keys.append((key, place))
      skip(lines: false)
      guard next == "." else { return keys }
      advance()
    }
  }

  private mutating func simpleKey() -> String? {
    guard let first = next else { return nil }
    if first == "\"" || first == "'" { return quoted() }
    var key = String.UnicodeScalarView()
    while let scalar = next, Self.isBare(scalar) {
      key.append(scalar)
      advance()
    }
    return key.isEmpty ? nil : String(key)
  }

  private static func isBare(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", "_", "-": true
    default: false
    }
  }

  private mutating func value(_ path: [Step], depth: Int) -> Bool {
    guard depth < Self.depthMaximum, let first = next else { return false }
    values[path] = here
    switch first {
    case "\"", "'": return quoted() != nil
    case "[": return array(path, depth: depth + 1)
    case "{": return inlineTable(path, depth: depth + 1)
    default:
      let start = at
      while let scalar = next, !(["," as Unicode.Scalar, "]", "}", "#", "\n"].contains(scalar)) {
        advance()
      }
      return at > start
    }
  }

  private mutating func array(_ path: [Step], depth: Int) -> Bool {
    advance()
    var index = 0
    while true {
      skip(lines: true)
      if next == "]" { break }
      let element = path + [.index(index)]
      note(element, here)
      guard value(element, depth: depth) else { return false }
      index += 1
      skip(lines: true)
      if next == "," { advance() } else if next != "]" { return false }
    }
    advance()
    return true
  }

  private mutating func inlineTable(_ path: [Step], depth: Int) -> Bool {
    advance()
    while true {
      skip(lines: true)
      if next == "}" { break }
      guard keyAndValue(in: path, depth: depth) else { return false }
      skip(lines: true)
      if next == "," { advance() } else if next != "}" { return false }
    }
    advance()
    return true
  }

  /// A string of any of the four kinds, without its quotes.
  private mutating func quoted() -> String? {
    guard let quote = next else { return nil }
    let isMultiline = follows(String(repeating: Character(quote), count: 3))
    advance(isMultiline ? 3 : 1)
    let end = String(repeating: Character(quote), count: isMultiline ? 3 : 1)
    var content = String.UnicodeScalarView()
    while let scalar = next {
      if scalar == "\\", quote == "\"" {
        advance()
        guard let escaped = escape() else { return nil }
        content.append(escaped)
      } else if follows(end) {
        advance(end.unicodeScalars.count)
        // Up to two quotes may stand right before the three that end it.
        while isMultiline, next == quote { advance() }
        return String(content)
      } else {
        content.append(scalar)
        advance()
      }
    }
    return nil
  }

  private mutating func escape() -> Unicode.Scalar? {
    guard let kind = next else { return nil }
    advance()
    switch kind {
    case "b": return "\u{8}"
    case "t": return "\t"
    case "n": return "\n"
    case "f": return "\u{c}"
    case "r": return "\r"
    case "e": return "\u{1b}"
    case "x", "u", "U":
      let count = kind == "x" ? 2 : kind == "u" ? 4 : 8
      guard at + count <= text.count else { return nil }
      var digits = ""
      digits.unicodeScalars.append(contentsOf: text[at..<(at + count)])
      advance(count)
      return UInt32(digits, radix: 16).flatMap { Unicode.Scalar($0) }
    default: return kind  // A quote, a backslash, or the end of a line that goes on.
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// One table of the file, asked for values of one kind each.

import WireFormat

struct Section {
  /// With its dots; empty for the document.
  let name: String
  let place: Place?
  private let members: [String: ConfigurationNode]
  private let known: [String]

  /// Refuses keys that are not `known`.
  init(_ node: ConfigurationNode, name: String, known: [String]) throws(ConfigurationError) {
    guard case .table(let members) = node.value else {
      throw ConfigurationError(
        at: node.valuePlace ?? node.place, "'\(name)' is not a table",
        advice: "write [\(name)], then its keys; rootlinkd.toml(5) has examples")
    }
    self.members = members
    self.name = name
    self.known = known
    place = node.place
    try refuseUnknownKeys()
  }

  private var suffix: String { name.isEmpty ? "" : " in [\(name)]" }

  private func refuseUnknownKeys() throws(ConfigurationError) {
    let unknown = members.filter { !known.contains($0.key) }
    // The first in the file.
    let first = unknown.min {
      ($0.value.place ?? Place(line: .max, column: 0), $0.key)
        < ($1.value.place ?? Place(line: .max, column: 0), $1.key)
    }
    guard let first else { return }
    var advice = "known here: " + known.joined(separator: ", ")
    if let nearest = nearestWord(to: first.key, among: known) {
      advice = "did you mean '\(nearest)'? " + advice
    }
    throw ConfigurationError(
      at: first.value.place, "unknown key '\(ByteString(first.key).printable)'" + suffix,
      advice: advice)
  }

  func has(_ key: String) -> Bool { members[key] != nil }
  func node(_ key: String) -> ConfigurationNode? { members[key] }

  /// An error about a value of this section.
  func wrong(_ key: String, _ reason: String, advice: String) -> ConfigurationError {
    let node = members[key]
    return ConfigurationError(at: node?.valuePlace ?? node?.place ?? place, reason, advice: advice)
  }

  private func notA(_ key: String, _ wanted: String) -> ConfigurationError {
    wrong(
      key, "'\(key)'\(suffix) is not \(wanted)", advice: "rootlinkd.toml(5) says what it may be")
  }

  /// For a key that must be there.
  func missing(_ key: String, advice: String) -> ConfigurationError {
    ConfigurationError(at: place, "[\(name)] has no \(key)", advice: advice)
  }

  func string(_ key: String) throws(ConfigurationError) -> String? {
    guard let node = members[key] else { return nil }
    guard case .string(let string) = node.value else { throw notA(key, "a text in quotes") }
    return string
  }

  func text(_ key: String) throws(ConfigurationError) -> ByteString? {
    guard let string = try string(key) else { return nil }
    return ByteString(string)
  }

  /// One of several words.
  func word<Word: RawRepresentable & CaseIterable>(
    _ key: String, _ type: Word.Type
  ) throws(ConfigurationError) -> Word? where Word.RawValue == String {
    guard let string = try string(key) else { return nil }
    if let word = Word(rawValue: string) { return word }
    let words = Word.allCases.map(\.rawValue)
    let nearest = nearestWord(to: string, among: words).map { "did you mean \"\($0)\"? " } ?? ""
    throw wrong(
      key, "\(name.isEmpty ? "" : "[\(name)] ")\(key) is \"\(ByteString(string).printable)\"",
      advice: nearest + "write " + words.map { "\"\($0)\"" }.joined(separator: " or "))
  }

  /// Each element with its place.
  func strings(_ key: String) throws(ConfigurationError) -> [(text: String, place: Place?)]? {
    guard let node = members[key] else { return nil }
    guard case .array(let elements) = node.value else { throw notA(key, "a list of texts") }
    var strings: [(text: String, place: Place?)] = []
    for element in elements {
      guard case .string(let string) = element.value else { throw notA(key, "a list of texts") }
      strings.append((string, element.valuePlace ?? element.place))
    }
    return strings
  }

  func bool(_ key: String) throws(ConfigurationError) -> Bool? {
    guard let node = members[key] else { return nil }
    guard case .bool(let bool) = node.value else { throw notA(key, "true or false") }
    return bool
  }

  func integer(
    _ key: String, in range: ClosedRange<Int>
  ) throws(ConfigurationError) -> Int? {
    guard let node = members[key] else { return nil }
    guard case .integer(let integer) = node.value, range.contains(integer) else {
      throw notA(key, "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  func seconds(
    _ key: String, in range: ClosedRange<UInt64>
  ) throws(ConfigurationError) -> UInt64? {
    guard let integer = try integer(key, in: Int(range.lowerBound)...Int(range.upperBound)) else {
      return nil
    }
    return UInt64(integer)
  }

  /// A number of bytes, or a text such as "64 KiB".
  func byteCount(
    _ key: String, in range: ClosedRange<Int>
  ) throws(ConfigurationError) -> Int? {
    guard let node = members[key] else { return nil }
    var count: Int?
    if case .integer(let integer) = node.value { count = integer }
    if case .string(let string) = node.value { count = ByteCount.parse(string) }
    guard let count, range.contains(count) else {
      throw notA(
        key,
        "a number of bytes from \(range.lowerBound) to \(range.upperBound), "
          + "or one with KiB, MiB, GiB or TiB in quotes")
    }
    return count
  }

  func section(_ key: String, known: [String]) throws(ConfigurationError) -> Section? {
    guard let node = members[key] else { return nil }
    return try Section(node, name: name.isEmpty ? key : "\(name).\(key)", known: known)
  }

  /// The tables inside table `key`, in the order of the file.
  func sections(
    _ key: String, known: [String]
  ) throws(ConfigurationError) -> [(String, Section)] {
    guard let node = members[key] else { return [] }
    guard case .table(let tables) = node.value else { throw notA(key, "a table of tables") }
    let sorted = tables.sorted {
      ($0.value.place ?? Place(line: .max, column: 0), $0.key)
        < ($1.value.place ?? Place(line: .max, column: 0), $1.key)
    }
    var sections: [(String, Section)] = []
    for (name, node) in sorted {
      sections.append((name, try Section(node, name: "\(key).\(name)", known: known)))
    }
    return sections
  }
}

enum ByteCount {
  /// `65536`, `64KiB`, `64 KiB`; nil for anything else, and for more than an integer holds.
  static func parse(_ text: String) -> Int? {
    let bytes = ByteString(text).trimmed.bytes
    let digits = bytes.prefix { $0 >= 0x30 && $0 <= 0x39 }
    guard let number = ByteString(digits).decimal(maximum: UInt64(Int.max)) else { return nil }
    let units: [(ByteString, Int)] = [
      ("", 0), ("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40),
    ]
    let unit = ByteString(Array(bytes.dropFirst(digits.count))).trimmed
    guard let shift = units.first(where: { $0.0 == unit })?.1 else { return nil }
    let (product, overflow) = Int(number).multipliedReportingOverflow(by: 1 << shift)
    return overflow ? nil : product
  }
}

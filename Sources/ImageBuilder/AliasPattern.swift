// SPDX-License-Identifier: Apache-2.0
// The patterns of modules.alias: `*`, `?` and `[a-f]`, as fnmatch(3) without options has them.
// Takes time in proportion to pattern and text, whatever stars there are.

enum AliasPattern {
  /// Whether `pattern` covers all of `text`. A bracket that is not closed stands for itself.
  static func matches(_ pattern: [UInt8], _ text: [UInt8]) -> Bool {
    var place = 0
    var index = 0
    /// Behind the last star, and how much of the text it has taken.
    var star: (place: Int, index: Int)?
    while index < text.count {
      if place < pattern.count, pattern[place] == 0x2a {
        place += 1
        star = (place, index)
      } else if let next = step(pattern, place, text[index]) {
        place = next
        index += 1
      } else if let last = star {
        star = (last.place, last.index + 1)
        place = last.place
        index = last.index + 1
      } else {
        return false
      }
    }
    while place < pattern.count, pattern[place] == 0x2a { place += 1 }
    return place == pattern.count
  }

  /// The place behind the one character at `place`, when that one covers `byte`.
  private static func step(_ pattern: [UInt8], _ place: Int, _ byte: UInt8) -> Int? {
    guard place < pattern.count else { return nil }
    switch pattern[place] {
    case 0x3f: return place + 1
    case 0x5b:
      guard let close = pattern[(place + 1)...].firstIndex(of: 0x5d) else {
        return byte == 0x5b ? place + 1 : nil
      }
      return isIn(pattern[(place + 1)..<close], byte) ? close + 1 : nil
    default: return pattern[place] == byte ? place + 1 : nil
    }
  }

  private static func isIn(_ set: ArraySlice<UInt8>, _ byte: UInt8) -> Bool {
    let isNegated = set.first == 0x21 || set.first == 0x5e
    var rest = isNegated ? set.dropFirst() : set
    var isFound = false
    while let low = rest.first {
      rest = rest.dropFirst()
      var high = low
      if rest.first == 0x2d, rest.count >= 2 {
        high = rest[rest.startIndex + 1]
        rest = rest.dropFirst(2)
      }
      if low <= byte && byte <= high { isFound = true }
    }
    return isFound != isNegated
  }
}

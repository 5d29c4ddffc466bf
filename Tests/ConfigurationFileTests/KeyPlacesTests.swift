// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import ConfigurationFile

@Suite("The place of a key")
struct KeyPlacesTests {
  static func path(_ text: String) -> [Step] {
    text.split(separator: "/").map { Int($0).map { .index($0) } ?? .key(String($0)) }
  }

  /// A document, a path in it, and where its key and its value stand. Source of the forms: TOML 1.0.
  static let places: [(text: String, path: String, key: Place?, value: Place?)] = [
    ("a = 1", "a", Place(line: 1, column: 1), Place(line: 1, column: 5)),
    ("\n  a=1", "a", Place(line: 2, column: 3), Place(line: 2, column: 5)),
    ("# a = 1\r\nb = 'x' # c\nc = 2", "c", Place(line: 3, column: 1), Place(line: 3, column: 5)),
    ("[t]\na = 1", "t/a", Place(line: 2, column: 1), Place(line: 2, column: 5)),
    ("[t]\na = 1", "t", Place(line: 1, column: 2), nil),
    ("[ t . u ]\na = 1", "t/u", Place(line: 1, column: 7), nil),
    ("[t.\"two words\"]\na = 1", "t/two words/a", Place(line: 2, column: 1), nil),
    ("[t.\"q\\\"\\u0041\"]\na = 1", "t/q\"A/a", Place(line: 2, column: 1), nil),
    ("a.b.c = 1", "a/b/c", Place(line: 1, column: 5), Place(line: 1, column: 9)),
    ("a.b = 1\na.c = 2", "a/c", Place(line: 2, column: 3), Place(line: 2, column: 7)),
    ("a = [1,\n 2, # x\n 3]\nb = 4", "a/2", Place(line: 3, column: 2), Place(line: 3, column: 2)),
    ("a = [1,\n 2,\n ]\nb = 4", "b", Place(line: 4, column: 1), Place(line: 4, column: 5)),
    ("a = { b = 1, c = { d = 2 } }", "a/c/d", Place(line: 1, column: 20), nil),
    ("a = [{ b = 1 }, { b = 2 }]", "a/1/b", Place(line: 1, column: 19), nil),
    ("[[t]]\na = 1\n[[t]]\na = 2", "t/1/a", Place(line: 4, column: 1), nil),
    ("[[t]]\n[t.u]\na = 1\n[[t]]\n[t.u]\na = 2", "t/1/u/a", Place(line: 6, column: 1), nil),
    ("a = \"\"\"\nb = 1\n\"\"\"\nc = 2", "c", Place(line: 4, column: 1), nil),
    ("a = \"\"\"\nb = 1\n\"\"\"\nc = 2", "b", nil, nil),
    ("a = '''x''''\nc = 2", "c", Place(line: 2, column: 1), nil),
    ("a = \"x # y\"\nc = 2", "c", Place(line: 2, column: 1), nil),
    ("a = 'C:\\'\nc = 2", "c", Place(line: 2, column: 1), nil),
    ("é = 1", "é", nil, nil),
    ("\"é\" = 1", "é", Place(line: 1, column: 1), Place(line: 1, column: 7)),
    ("a = 1979-05-27T07:32:00Z\nc = 2", "c", Place(line: 2, column: 1), nil),
  ]

  @Test("is a line and a column, whatever stands before it", arguments: places)
  func finds(text: String, path: String, key: Place?, value: Place?) {
    let places = KeyPlaces(text)
    #expect(places.keys[Self.path(path)] == key)
    if let value { #expect(places.values[Self.path(path)] == value) }
  }

  @Test("is looked for in any text without an end or a trap")
  func anything() {
    let text = "a = [{ b.\"c\" = \"\"\"x\"\"\" }, 'y']\n[[t.u]]\nv = 1 # z\n[w]\nx = { }\n"
    for end in text.indices {
      _ = KeyPlaces(String(text[..<end]))
      _ = KeyPlaces(String(text[end...]))
    }
    _ = KeyPlaces("a = " + String(repeating: "[", count: 100_000))
  }
}

@Suite("The nearest word")
struct NearestWordTests {
  static let words: [(word: String, known: [String], nearest: String?)] = [
    ("mod", ["path", "mode"], "mode"),
    ("Mode", ["path", "mode"], "mode"),
    ("dirct", ["direct", "size"], "direct"),
    ("szie", ["direct", "size"], "size"),
    ("connection", ["connections", "sessions"], "connections"),
    ("speed", ["path", "mode"], nil),
    ("", ["path"], nil),
    ("x", ["a"], "a"),
    ("handshake", ["handshake_seconds"], nil),
  ]

  @Test("is the one with the fewest letters wrong, if it is near", arguments: words)
  func nearest(word: String, known: [String], nearest: String?) {
    #expect(nearestWord(to: word, among: known) == nearest)
  }
}

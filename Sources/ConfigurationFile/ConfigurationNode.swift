// SPDX-License-Identifier: Apache-2.0
// A TOML document as a tree of its own, each value with its place.

import TOMLKit

/// What is wrong with a configuration file, where, and what to do.
public struct ConfigurationError: Error, Equatable, Sendable {
  public var place: Place?
  public var reason: String
  public var advice: String

  public init(at place: Place?, _ reason: String, advice: String) {
    self.place = place
    self.reason = reason
    self.advice = advice
  }

  /// The reason behind its place: "line 3, column 1: unknown key 'mod'".
  public var report: (reason: String, advice: String) {
    let prefix = place.map { "line \($0.line), column \($0.column): " } ?? ""
    return (prefix + reason, advice)
  }
}

struct ConfigurationNode {
  indirect enum Value {
    case string(String)
    case integer(Int)
    case bool(Bool)
    case array([ConfigurationNode])
    case table([String: ConfigurationNode])
    /// A kind that no key has.
    case other
  }

  var value: Value
  /// Of its key; nil for the document.
  var keyPlace: Place?
  var valuePlace: Place?

  /// Where to point at when something inside is missing.
  var place: Place? { keyPlace ?? valuePlace }

  init(document text: String) throws(ConfigurationError) {
    let root: TOMLTable
    do {
      root = try TOMLTable(string: text)
    } catch let error as TOMLParseError {
      let begin = error.source.begin
      throw ConfigurationError(
        at: Place(line: begin.line, column: begin.column), error.description,
        advice: "correct the line; rootlinkd.toml(5) has examples")
    } catch {
      throw ConfigurationError(
        at: nil, "it is no TOML: \(error)", advice: "rootlinkd.toml(5) has examples")
    }
    self = withExtendedLifetime(root) { Self(root, KeyPlaces(text), []) }
  }

  private init(_ value: any TOMLValueConvertible, _ places: KeyPlaces, _ path: [Step]) {
    keyPlace = places.keys[path]
    valuePlace = places.values[path]
    switch value.type {
    case .string: self.value = value.string.map { .string($0) } ?? .other
    case .int: self.value = value.int.map { .integer($0) } ?? .other
    case .bool: self.value = value.bool.map { .bool($0) } ?? .other
    case .array:
      var elements: [ConfigurationNode] = []
      if let array = value.array {
        for index in 0..<array.count {
          elements.append(Self(array[index], places, path + [.index(index)]))
        }
      }
      self.value = .array(elements)
    case .table:
      var members: [String: ConfigurationNode] = [:]
      if let table = value.table {
        for key in table.keys {
          guard let member = table[key] else { continue }
          members[key] = Self(member, places, path + [.key(key)])
        }
      }
      self.value = .table(members)
    default: self.value = .other
    }
  }
}

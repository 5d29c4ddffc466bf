// SPDX-License-Identifier: Apache-2.0
// What an export is made of: a path in quotes, or a table with a type and the keys of that type, whose
// members are of the same kind again.
//
//   [export.root.backend]
//   type = "mirror"
//   members = ["/dev/sda", { type = "linear", members = ["/dev/sdb", "/dev/sdc"] }]
//   state = "/var/lib/rootlinkd/root.state"

import BlockServer
import WireFormat

enum BackendSection {
  private enum Kind: String, CaseIterable {
    case file, device, memory, linear, stripe, mirror, overlay

    var keys: [String] {
      switch self {
      case .file, .device: ["type", "path"]
      case .memory: ["type", "size"]
      case .linear: ["type", "members"]
      case .stripe: ["type", "members", "chunk"]
      case .mirror: ["type", "members", "state", "resync_rate", "retry_seconds"]
      case .overlay: ["type", "base", "layer"]
      }
    }
  }

  static let allKeys: [String] = {
    var keys: [String] = []
    for key in Kind.allCases.flatMap(\.keys) where !keys.contains(key) { keys.append(key) }
    return keys
  }()

  /// `name`: with its dots, as far as it has one.
  static func parse(
    _ node: ConfigurationNode, name: String, depth: Int
  ) throws(ConfigurationError) -> BackendDefinition {
    guard depth <= BackendDefinition.depthMaximum else {
      throw ConfigurationError(
        at: node.place, "'\(name)' is inside \(BackendDefinition.depthMaximum) others",
        advice: "make the stack flatter")
    }
    if case .string(let path) = node.value {
      return .file(path: try nonEmpty(ByteString(path), node, name))
    }
    guard case .table = node.value else {
      throw ConfigurationError(
        at: node.valuePlace ?? node.place, "'\(name)' is neither a path nor a table",
        advice: "write a path in quotes, or a table with a type")
    }
    // The type says which of the other keys are known.
    let any = try Section(node, name: name, known: allKeys)
    guard let kind = try any.word("type", Kind.self) else {
      throw any.missing(
        "type", advice: "add type = " + Kind.allCases.map { "\"\($0)\"" }.joined(separator: " or "))
    }
    let section = try Section(node, name: name, known: kind.keys)
    switch kind {
    case .file: return .file(path: try path(section, "path"))
    case .device: return .device(path: try path(section, "path"))
    case .memory:
      guard let count = try section.byteCount("size", in: 512...(1 << 46)) else {
        throw section.missing("size", advice: "add size = \"64 MiB\"")
      }
      return .memory(byteCount: UInt64(count))
    case .linear: return .linear(try members(section, 1, depth))
    case .stripe:
      let chunk = try chunkByteCount(section)
      return .stripe(try members(section, 2, depth), chunkByteCount: chunk)
    case .mirror:
      var settings = MirrorSettings(state: try path(section, "state"))
      settings.resyncBytesPerSecond = try section.byteCount("resync_rate", in: 0...Int.max)
        .map { UInt64($0) }
      settings.retrySeconds = try section.seconds(
        "retry_seconds", in: MirrorSettings.retrySecondsRange)
      let maximum = MirrorSettings.memberCountMaximum
      return .mirror(try members(section, 2, depth, maximum: maximum), settings)
    case .overlay:
      guard let base = section.node("base") else {
        throw section.missing("base", advice: "add base = \"FILE\", or a table")
      }
      return .overlay(
        base: try parse(base, name: name + ".base", depth: depth + 1),
        layer: try path(section, "layer"))
    }
  }

  private static func chunkByteCount(_ section: Section) throws(ConfigurationError) -> UInt64 {
    let range = BackendDefinition.chunkByteCountRange
    guard let chunk = try section.byteCount("chunk", in: range) else {
      throw section.missing("chunk", advice: "add chunk = \"64 KiB\"")
    }
    guard chunk & (chunk - 1) == 0 else {
      throw section.wrong(
        "chunk", "'chunk' in [\(section.name)] is no power of two", advice: "write \"64 KiB\"")
    }
    return UInt64(chunk)
  }

  private static func path(
    _ section: Section, _ key: String
  ) throws(ConfigurationError) -> ByteString {
    guard let path = try section.text(key), let node = section.node(key) else {
      throw section.missing(key, advice: "add \(key) = \"FILE\"")
    }
    return try nonEmpty(path, node, section.name + "." + key)
  }

  private static func nonEmpty(
    _ path: ByteString, _ node: ConfigurationNode, _ name: String
  ) throws(ConfigurationError) -> ByteString {
    guard !path.isEmpty, !path.bytes.contains(0) else {
      throw ConfigurationError(
        at: node.valuePlace ?? node.place, "'\(name)' is empty or holds a NUL",
        advice: "write a path")
    }
    return path
  }

  private static func members(
    _ section: Section, _ least: Int, _ depth: Int,
    maximum: Int = BackendDefinition.memberCountMaximum
  ) throws(ConfigurationError) -> [BackendDefinition] {
    guard let node = section.node("members") else {
      throw section.missing("members", advice: "add members = [\"FILE\", \"FILE\"]")
    }
    guard case .array(let elements) = node.value, (least...maximum).contains(elements.count) else {
      throw section.wrong(
        "members", "'members' in [\(section.name)] is not a list of \(least) to \(maximum)",
        advice: "write paths in quotes, or tables with a type")
    }
    var members: [BackendDefinition] = []
    for (index, element) in elements.enumerated() {
      members.append(
        try parse(element, name: "\(section.name).members[\(index)]", depth: depth + 1))
    }
    return members
  }
}

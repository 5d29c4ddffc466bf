// SPDX-License-Identifier: Apache-2.0
// The options that people hand to nbd-client through dracut's last field: `bs=4096`, `timeout=30`,
// `-C4`, `-C,4`, `-connections,4`, `-connections=4`, `-b512`. A comma cuts, so a value may be the
// next field. Source: nbd-client(8).

import WireFormat

struct NBDOptions: Equatable {
  var blockSize: UInt32?
  var timeoutSeconds: UInt32?
  var connectionCount: UInt32?
  var isReadOnly: Bool?

  static let timeoutMaximum: UInt64 = 86_400
  static let connectionMaximum: UInt64 = 64

  private enum Key { case blockSize, timeout, connections }

  /// Options that change nothing here: what they ask for is always done, or never needed.
  private static let harmless = [
    "-persist", "-p", "-swap", "-s", "-nofork", "-n", "-systemd-mark", "-m", "-nonetlink", "-L",
    "persist", "swap",
  ]

  static func read(
    _ text: Text
  ) throws(SyntaxError) -> (options: NBDOptions, unknown: [ByteString]) {
    var options = NBDOptions()
    var unknown: [ByteString] = []
    let fields = text.fields(separatedBy: .comma)
    var index = 0
    while index < fields.count {
      var field = fields[index]
      index += 1
      if field.isEmpty || isHarmless(field) { continue }
      if field.isEqual(to: "-readonly") || field.isEqual(to: "-R") || field.isEqual(to: "ro") {
        options.isReadOnly = true
        continue
      }
      if field.hasPrefix("--") { field = field.dropFirst() }
      guard let (key, glued) = key(of: field) else {
        unknown.append(ByteString(field))
        continue
      }
      var value = glued
      if value.isEmpty, index < fields.count {
        value = fields[index]
        index += 1
      }
      try options.set(key, to: value)
    }
    return (options, unknown)
  }

  private static func isHarmless(_ field: Text) -> Bool {
    for option in harmless where field.isEqual(to: option) { return true }
    return false
  }

  /// The option and what is glued to it. Long names first: `-b` is a prefix of `-block-size`.
  private static func key(of field: Text) -> (Key, Text)? {
    let long: [(String, Key)] = [
      ("bs", .blockSize), ("-block-size", .blockSize), ("-block_size", .blockSize),
      ("timeout", .timeout), ("-timeout", .timeout), ("connections", .connections),
      ("-connections", .connections),
    ]
    for (name, key) in long where field.hasPrefix(name) {
      let rest = field.dropFirst(name.utf8.count)
      if rest.isEmpty { return (key, rest) }
      if rest.first == .equals { return (key, rest.dropFirst()) }
    }
    let short: [(String, Key)] = [("-b", .blockSize), ("-t", .timeout), ("-C", .connections)]
    for (name, key) in short where field.hasPrefix(name) {
      let rest = field.dropFirst(2)
      if rest.isEmpty || rest.isAllDigits { return (key, rest) }
    }
    return nil
  }

  private mutating func set(_ key: Key, to value: Text) throws(SyntaxError) {
    switch key {
    case .blockSize: blockSize = try Self.checkedBlockSize(value)
    case .timeout: timeoutSeconds = try ServerGrammar.number(value, maximum: Self.timeoutMaximum)
    case .connections:
      connectionCount = try ServerGrammar.number(
        value, minimum: 1, maximum: Self.connectionMaximum)
    }
  }

  /// Source: NBD `doc/proto.md`, "Block size constraints": a power of two from 512 to 65536.
  private static func checkedBlockSize(_ value: Text) throws(SyntaxError) -> UInt32 {
    guard let size = value.decimal(maximum: 65536), size >= 512, size & (size - 1) == 0 else {
      throw SyntaxError(at: value, expected: .blockSize)
    }
    return UInt32(truncatingIfNeeded: size)
  }
}

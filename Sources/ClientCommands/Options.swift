// SPDX-License-Identifier: Apache-2.0
// The words after a command. Embedded Swift has no reflection, so the argument parser that the
// server uses cannot be had here; this takes `--name VALUE`, `--name=VALUE` and flags, and
// refuses everything that the command does not know.

import WireFormat

/// An option that some command takes.
struct OptionName: Equatable {
  let text: ByteString
  let takesValue: Bool

  static let device = OptionName(text: "--device", takesValue: true)
  static let driver = OptionName(text: "--driver", takesValue: true)
  static let connections = OptionName(text: "--connections", takesValue: true)
  static let silence = OptionName(text: "--silence", takesValue: true)
  static let answer = OptionName(text: "--answer", takesValue: true)
  static let timeout = OptionName(text: "--timeout", takesValue: true)
  static let once = OptionName(text: "--once", takesValue: false)
  static let keep = OptionName(text: "--keep", takesValue: true)
  static let noKeep = OptionName(text: "--no-keep", takesValue: false)
  static let interface = OptionName(text: "--interface", takesValue: true)
  static let commandLine = OptionName(text: "--cmdline", takesValue: true)
  static let commandLineFile = OptionName(text: "--cmdline-file", takesValue: true)
  static let root = OptionName(text: "--root", takesValue: true)
  static let format = OptionName(text: "--format", takesValue: true)
  static let withoutLease = OptionName(text: "--without-lease", takesValue: false)
  static let json = OptionName(text: "--json", takesValue: false)
  static let force = OptionName(text: "--force", takesValue: false)
}

/// Why the words of a command are not a request.
enum UsageError: Error {
  case unknownOption(ByteString)
  case missingValue(ByteString)
  case repeated(ByteString)
  case unexpectedValue(ByteString)
  case unexpectedWord(ByteString)
  case missingWord(ByteString)
  case badValue(option: ByteString, value: ByteString, expected: String)
  case exclusive(ByteString, ByteString)
  case notFirst

  var reason: String {
    switch self {
    case .unknownOption(let name): "unknown option '\(name.printable)'"
    case .missingValue(let name): "\(name.printable) needs a value"
    case .repeated(let name): "\(name.printable) is given twice"
    case .unexpectedValue(let name): "\(name.printable) takes no value"
    case .unexpectedWord(let word): "unexpected '\(word.printable)'"
    case .missingWord(let name): "\(name.printable) is missing"
    case .badValue(let option, let value, let expected):
      "\(option.printable) '\(value.printable)': \(expected) expected"
    case .exclusive(let one, let other):
      "\(one.printable) and \(other.printable) exclude each other"
    case .notFirst: "init is what the first process of a machine does, and this is not the first"
    }
  }
}

struct Options {
  private var values: [(name: ByteString, value: ByteString)] = []
  /// What is not an option, in order.
  private(set) var words: [ByteString] = []

  init(_ arguments: ArraySlice<ByteString>, known: [OptionName], wordCountMaximum: Int)
    throws(UsageError)
  {
    var rest = arguments
    while let argument = rest.popFirst() {
      guard argument.hasPrefix("--") else {
        guard words.count < wordCountMaximum else { throw .unexpectedWord(argument) }
        words.append(argument)
        continue
      }
      let cut = argument.cut(at: 0x3d)
      let text = cut?.head ?? argument
      guard let name = known.first(where: { $0.text == text }) else {
        throw .unknownOption(argument)
      }
      guard self[name] == nil else { throw .repeated(text) }
      if !name.takesValue {
        guard cut == nil else { throw .unexpectedValue(text) }
        values.append((text, ""))
      } else if let value = cut?.tail ?? rest.popFirst() {
        values.append((text, value))
      } else {
        throw .missingValue(text)
      }
    }
  }

  subscript(name: OptionName) -> ByteString? {
    for entry in values where entry.name == name.text { return entry.value }
    return nil
  }

  func has(_ name: OptionName) -> Bool { self[name] != nil }

  func number(_ name: OptionName, in range: ClosedRange<UInt64>) throws(UsageError) -> UInt64? {
    guard let text = self[name] else { return nil }
    guard let value = text.decimal(maximum: range.upperBound), value >= range.lowerBound else {
      throw .badValue(
        option: name.text, value: text,
        expected: "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }
}

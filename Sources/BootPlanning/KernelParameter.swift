// SPDX-License-Identifier: Apache-2.0
// One word of the kernel command line, and the kernel's way of cutting the line into words.
//
// White space cuts unless a `"` is open; there is no escape. The first `=` that is not the first
// byte ends the name. A quote that opens the value (or the word) and one that closes the word are
// taken away; quotes in the middle stay. `--` ends the parameters. A shell-like tokenizer differs
// in each of these. Source: `next_arg()` in Linux `lib/cmdline.c`, `parse_args()` in
// `kernel/params.c`.

import WireFormat

/// A word of the command line as the kernel sees it.
public struct KernelParameter: Equatable, Sendable {
  /// Without a quote around the word, otherwise as it stands there: `isNamed` compares it.
  public let name: ByteString
  /// Nil when the word has no `=`.
  public let value: ByteString?
  /// Where the value (the name, if there is no value) begins in its text, in bytes from 0.
  public let offset: Int

  public init(name: ByteString, value: ByteString?, offset: Int) {
    self.name = name
    self.value = value
    self.offset = offset
  }

  /// Names are compared as the kernel does: `-` and `_` are the same.
  public func isNamed(_ literal: String) -> Bool {
    guard name.count == literal.utf8.count else { return false }
    var index = 0
    for byte in literal.utf8 {
      let own = name.bytes[index]
      guard
        own == byte || (own == .minus && byte == .underscore)
          || (own == .underscore && byte == .minus)
      else { return false }
      index += 1
    }
    return true
  }
}

extension KernelParameter {
  /// The words of one text up to `--`. A NUL ends the text, as it does in the kernel.
  public static func split(_ text: ByteString) -> [KernelParameter] {
    let bytes = text.bytes
    let end = bytes.firstIndex(of: 0) ?? bytes.count
    var words: [KernelParameter] = []
    var index = 0
    while true {
      while index < end, bytes[index].isKernelSpace { index += 1 }
      guard index < end else { return words }
      let word = next(in: bytes, from: &index, end: end)
      if word.value == nil, word.name == "--" { return words }
      words.append(word)
    }
  }

  /// The words behind `--`, which the kernel hands to init: without their quotes, otherwise as
  /// they are.
  public static func wordsForInit(_ text: ByteString) -> [ByteString] {
    let bytes = text.bytes
    let end = bytes.firstIndex(of: 0) ?? bytes.count
    var words: [ByteString] = []
    var isForInit = false
    var index = 0
    while true {
      while index < end, bytes[index].isKernelSpace { index += 1 }
      guard index < end, words.count < initWordCountMaximum else { return words }
      let word = next(in: bytes, from: &index, end: end)
      if isForInit {
        words.append(word.value.map { word.name + "=" + $0 } ?? word.name)
      } else {
        isForInit = word.value == nil && word.name == "--"
      }
    }
  }

  /// `line` with the parameters of `words` behind its own; what stands behind `--` on either of
  /// them stays with init.
  public static func appending(_ words: ByteString, to line: ByteString) -> ByteString {
    let (head, tail) = parts(line)
    let (more, moreTail) = parts(words)
    var text = head + " " + more
    if !tail.isEmpty || !moreTail.isEmpty { text += " --" + tail + moreTail }
    return text
  }

  /// What lies before `--` and behind it, the latter beginning with white space.
  private static func parts(_ text: ByteString) -> (head: ByteString, tail: ByteString) {
    let bytes = text.bytes
    let end = bytes.firstIndex(of: 0) ?? bytes.count
    var index = 0
    while true {
      while index < end, bytes[index].isKernelSpace { index += 1 }
      // A line end at the end of the file.
      guard index < end else { return (ByteString(bytes[..<end]).trimmed, ByteString()) }
      let start = index
      let word = next(in: bytes, from: &index, end: end)
      if word.value == nil, word.name == "--" {
        let tail = ByteString(bytes[index..<end]).trimmed
        return (ByteString(bytes[..<start]).trimmed, tail.isEmpty ? tail : " " + tail)
      }
    }
  }

  /// Source: `MAX_INIT_ARGS` in Linux `init/main.c`.
  static let initWordCountMaximum = 32

  private static func next(in bytes: [UInt8], from index: inout Int, end: Int) -> KernelParameter {
    let isQuoted = bytes[index] == .quote
    if isQuoted { index += 1 }
    var isInQuotes = isQuoted
    let start = index
    var equals: Int?
    while index < end {
      let byte = bytes[index]
      if byte.isKernelSpace && !isInQuotes { break }
      if byte == .equals, equals == nil, index > start { equals = index }
      if byte == .quote { isInQuotes.toggle() }
      index += 1
    }
    // The word is bytes[start..<index]; a closing quote is taken away once at most.
    var wordEnd = index
    guard let equals else {
      if isQuoted, wordEnd > start, bytes[wordEnd - 1] == .quote { wordEnd -= 1 }
      return KernelParameter(
        name: ByteString(bytes[start..<wordEnd]), value: nil, offset: start)
    }
    var valueStart = equals + 1
    let valueIsQuoted = valueStart < end && bytes[valueStart] == .quote && valueStart < index
    if valueIsQuoted { valueStart += 1 }
    if valueIsQuoted || isQuoted, bytes[wordEnd - 1] == .quote { wordEnd -= 1 }
    return KernelParameter(
      name: ByteString(bytes[start..<equals]),
      value: ByteString(bytes[valueStart..<max(valueStart, wordEnd)]), offset: valueStart)
  }
}

// SPDX-License-Identifier: Apache-2.0
// Small files that one of our programs leaves for another: a line `NAME=VALUE` for each thing. What of
// a value is no printable ASCII stands as `\xNN`. A name may come more than once.

/// The lines of one such file, in order; see the head of this file.
public struct NamedLines {
  private var lines: [(name: ByteString, value: ByteString)] = []

  /// No line at all.
  public init() {}

  /// Nil when `text` is longer than `limit` bytes, or a line has no `=` or a bad escape.
  public init?(decoding text: ByteString, limit: Int) {
    guard text.count <= limit else { return nil }
    for line in text.fields(separatedBy: UInt8(ascii: "\n")) where !line.isEmpty {
      guard let (name, value) = line.cut(at: UInt8(ascii: "=")),
        let plain = value.unescapingHexadecimal
      else { return nil }
      lines.append((name, plain))
    }
  }

  /// Behind the lines of the same name. `name` has neither `=` nor a line end, and is not escaped.
  public mutating func add(_ name: ByteString, _ value: ByteString) { lines.append((name, value)) }
  public mutating func add(_ name: ByteString, _ number: UInt64) {
    add(name, ByteString("\(number)"))
  }

  /// The whole file; `init(decoding:limit:)` reads the same values from it.
  public var encoded: ByteString {
    var text: ByteString = ""
    for (name, value) in lines {
      text += name + "=" + ByteString(value.printable(limit: .max)) + "\n"
    }
    return text
  }

  /// The last of that name.
  public subscript(name: ByteString) -> ByteString? {
    for line in lines.reversed() where line.name == name { return line.value }
    return nil
  }

  /// All of that name, in their order.
  public func all(_ name: ByteString) -> [ByteString] {
    var values: [ByteString] = []
    for line in lines where line.name == name { values.append(line.value) }
    return values
  }

  /// Nil when there is none, or it is no decimal number up to `maximum`.
  public func number(_ name: ByteString, maximum: UInt64 = .max) -> UInt64? {
    self[name]?.decimal(maximum: maximum)
  }
}

extension ByteString {
  /// Undoes `printable`; nil when a `\` begins anything but `\xNN`.
  public var unescapingHexadecimal: ByteString? {
    var result: [UInt8] = []
    var position = 0
    func digit(_ byte: UInt8) -> UInt8? {
      switch byte {
      case 0x30...0x39: byte - 0x30
      case 0x61...0x66: byte - 0x61 + 10
      default: nil
      }
    }
    while position < count {
      guard bytes[position] == 0x5c else {
        result.append(bytes[position])
        position += 1
        continue
      }
      guard position + 3 < count, bytes[position + 1] == 0x78,
        let high = digit(bytes[position + 2]), let low = digit(bytes[position + 3])
      else { return nil }
      result.append(high << 4 | low)
      position += 4
    }
    return ByteString(result)
  }
}

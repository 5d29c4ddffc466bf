// SPDX-License-Identifier: Apache-2.0
// IPv6 addresses, which are also the form of InfiniBand's GIDs. Source: RFC 4291 section 2.2 for
// reading, RFC 5952 for writing.

/// An address without its scope, or a GID.
public struct IPv6Address: Hashable, Sendable {
  /// The first eight bytes, the very first one most significant; `low` has the others.
  public let high: UInt64
  public let low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Without brackets and without a scope.
  public init?(_ text: ArraySlice<UInt8>) {
    // Groups before and after `::`; without one all groups are `leading`.
    var leading: [UInt16] = []
    var trailing: [UInt16] = []
    var hasGap = false
    var index = text.startIndex
    if text.hasPrefix("::") {
      hasGap = true
      index += 2
    }
    while index < text.endIndex {
      guard leading.count + trailing.count < 8 else { return nil }
      let rest = text[index...]
      if let colon = rest.firstIndex(of: .colon) {
        guard let group = Self.group(rest[..<colon]) else { return nil }
        if hasGap { trailing.append(group) } else { leading.append(group) }
        index = colon + 1
        guard index < text.endIndex else { return nil }
        if text[index] == .colon {
          guard !hasGap else { return nil }
          hasGap = true
          index += 1
        }
      } else if let group = Self.group(rest) {
        if hasGap { trailing.append(group) } else { leading.append(group) }
        index = text.endIndex
      } else if let last = IPv4Address(rest) {
        let groups = [
          UInt16(truncatingIfNeeded: last.rawValue >> 16),
          UInt16(truncatingIfNeeded: last.rawValue),
        ]
        if hasGap { trailing += groups } else { leading += groups }
        index = text.endIndex
      } else {
        return nil
      }
    }
    let count = leading.count + trailing.count
    guard hasGap ? count <= 7 : count == 8 else { return nil }
    var value: (high: UInt64, low: UInt64) = (0, 0)
    for position in 0..<8 {
      let fromEnd = 8 - position
      let group: UInt16 =
        position < leading.count
        ? leading[position]
        : fromEnd <= trailing.count ? trailing[trailing.count - fromEnd] : 0
      if position < 4 {
        value.high = value.high << 16 | UInt64(group)
      } else {
        value.low = value.low << 16 | UInt64(group)
      }
    }
    (high, low) = value
  }

  private static func group(_ text: ArraySlice<UInt8>) -> UInt16? {
    guard text.count >= 1, text.count <= 4 else { return nil }
    var value: UInt16 = 0
    for byte in text {
      guard let digit = byte.hexadecimalDigit else { return nil }
      value = value << 4 | UInt16(digit)
    }
    return value
  }

  private func group(_ position: Int) -> UInt16 {
    let half = position < 4 ? high : low
    return UInt16(truncatingIfNeeded: half >> UInt64(16 * (3 - position % 4)))
  }

  /// Network byte order.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    for position in 0..<8 {
      let group = group(position)
      bytes.append(UInt8(truncatingIfNeeded: group >> 8))
      bytes.append(UInt8(truncatingIfNeeded: group))
    }
    return bytes
  }

  public var text: String {
    // The first of the longest runs of zero groups becomes `::`, unless it is one group long.
    var best = (start: 0, count: 0)
    var run = (start: 0, count: 0)
    for position in 0..<8 {
      if group(position) == 0 {
        if run.count == 0 { run.start = position }
        run.count += 1
        if run.count > best.count { best = run }
      } else {
        run.count = 0
      }
    }
    var text = ""
    var position = 0
    while position < 8 {
      if best.count >= 2, position == best.start {
        text += "::"
        position += best.count
        continue
      }
      if position > 0, best.count < 2 || position != best.start + best.count { text += ":" }
      text += String(group(position), radix: 16)
      position += 1
    }
    return text
  }
}

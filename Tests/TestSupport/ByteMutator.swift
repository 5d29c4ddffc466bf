// SPDX-License-Identifier: Apache-2.0
// Bytes that are nearly right: samples with a few bytes changed, doubled, cut out or taken from
// another sample. Nearly right input gets past the first check of a parser, random bytes do not.

public struct ByteMutator {
  private let samples: [[UInt8]]
  /// Bytes that mean something to the parser under test.
  private let alphabet: [UInt8]
  private var generator: SeededGenerator

  /// Neither list may be empty.
  public init(samples: [[UInt8]], alphabet: [UInt8], seed: UInt64) {
    precondition(!samples.isEmpty && !alphabet.isEmpty)
    self.samples = samples
    self.alphabet = alphabet
    generator = SeededGenerator(seed: seed)
  }

  private mutating func below(_ bound: Int) -> Int {
    Int(truncatingIfNeeded: generator.next() >> 33) % bound
  }

  public mutating func next() -> [UInt8] {
    if below(16) == 0 { return random() }
    var bytes = samples[below(samples.count)]
    for _ in 0...below(4) { mutate(&bytes) }
    return bytes
  }

  private mutating func random() -> [UInt8] {
    var bytes: [UInt8] = []
    for _ in 0..<below(48) {
      bytes.append(
        below(4) == 0
          ? UInt8(truncatingIfNeeded: generator.next()) : alphabet[below(alphabet.count)])
    }
    return bytes
  }

  private mutating func mutate(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else {
      bytes = random()
      return
    }
    let place = below(bytes.count)
    let end = min(bytes.count, place + 1 + below(12))
    switch below(8) {
    case 0: bytes[place] = alphabet[below(alphabet.count)]
    case 1: bytes[place] = UInt8(truncatingIfNeeded: generator.next())
    case 2: bytes.insert(alphabet[below(alphabet.count)], at: place)
    case 3: bytes.removeSubrange(place..<end)
    case 4: bytes.insert(contentsOf: bytes[place..<end], at: place)
    case 5: bytes.removeSubrange(place...)
    case 6: bytes[place] = UInt8(0x30 + below(10))
    default:
      let other = samples[below(samples.count)]
      guard !other.isEmpty else { return }
      let start = below(other.count)
      bytes.replaceSubrange(place..<end, with: other[start..<min(other.count, start + 24)])
    }
  }
}

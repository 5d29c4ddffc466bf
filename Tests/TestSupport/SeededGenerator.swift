// SPDX-License-Identifier: Apache-2.0
import Foundation

/// SplitMix64: random numbers that a printed seed brings back. `ROOTLINK_TEST_SEED` sets the seed.
public struct SeededGenerator: RandomNumberGenerator {
  public let seed: UInt64
  private var state: UInt64

  public init(seed: UInt64) {
    self.seed = seed
    state = seed
  }

  /// A fresh seed, printed, unless the environment gives one.
  public init(printingAs name: String) {
    let given = ProcessInfo.processInfo.environment["ROOTLINK_TEST_SEED"].flatMap { UInt64($0) }
    self.init(seed: given ?? .random(in: .min ... .max))
    print("\(name): ROOTLINK_TEST_SEED=\(seed)")
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}

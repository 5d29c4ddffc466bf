// SPDX-License-Identifier: Apache-2.0
// Keeps the copying of a region and the writes to it apart, without a lock for the writes.
//
// Regions share 64 stripes. A writer counts itself in and then looks whether its stripes are
// closed; whoever closes says so and then looks at the counts. Both in one order of all threads, so
// that at least one of them sees the other; it is the writer that steps back.

import CLinux
import Synchronization

struct MirrorGate: ~Copyable, Sendable {
  private let counts = InlineArray<64, Atomic<Int>> { _ in Atomic(0) }
  private let closed = Atomic<UInt64>(0)
  private let closing = Mutex(())

  /// The stripes of some regions, a bit each.
  static func stripes(of regions: ClosedRange<UInt64>) -> UInt64 {
    let count = regions.upperBound - regions.lowerBound + 1
    if count >= 64 { return .max }
    let bits: UInt64 = (1 << count) - 1
    let shift = regions.lowerBound % 64
    return bits << shift | (shift == 0 ? 0 : bits >> (64 - shift))
  }

  /// Waits while one of the stripes is closed.
  func enter(_ stripes: UInt64) {
    while true {
      add(1, to: stripes)
      if closed.load(ordering: .sequentiallyConsistent) & stripes == 0 { return }
      add(-1, to: stripes)
      closing.withLock { _ in }
    }
  }

  func leave(_ stripes: UInt64) { add(-1, to: stripes) }

  @inline(__always)
  private func add(_ value: Int, to stripes: UInt64) {
    var rest = stripes
    while rest != 0 {
      counts[rest.trailingZeroBitCount].add(value, ordering: .sequentiallyConsistent)
      rest &= rest - 1
    }
  }

  /// While `body` runs nobody is inside the stripes.
  func close(_ stripes: UInt64, _ body: () -> Void) {
    closing.withLock { _ in
      closed.store(stripes, ordering: .sequentiallyConsistent)
      var rest = stripes
      while rest != 0 {
        while counts[rest.trailingZeroBitCount].load(ordering: .sequentiallyConsistent) != 0 {
          clinux_sleep_nanoseconds(20_000)
        }
        rest &= rest - 1
      }
      body()
      closed.store(0, ordering: .sequentiallyConsistent)
    }
  }
}

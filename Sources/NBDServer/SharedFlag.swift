// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// Set once, by one thread, for another to see.
final class SharedFlag: Sendable {
  private let value = Atomic(false)
  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }
}

// SPDX-License-Identifier: Apache-2.0
import CLinux
import Synchronization

/// What the threads of one server tell each other.
final class EngineState: Sendable {
  /// So many sessions at once have threads of their own; when more are busy they share a few.
  let ownThreadCountMaximum: Int
  private let busyCount = Atomic<Int>(0)
  /// In `clinux_coarse_nanoseconds`; no file is sent uncopied before then.
  private let copiesUntil = Atomic<UInt64>(0)

  init(ownThreadCountMaximum: Int) { self.ownThreadCountMaximum = ownThreadCountMaximum }

  /// A session has begun to be busy, or has stopped to be: one that nothing comes from for a while.
  func addBusy(_ change: Int) { busyCount.add(change, ordering: .relaxed) }

  var isAlone: Bool { busyCount.load(ordering: .relaxed) <= 1 }
  var isCrowded: Bool { busyCount.load(ordering: .relaxed) > ownThreadCountMaximum }
  /// Whether one more thread of its own would not soon have to be given up again.
  var hasRoom: Bool { busyCount.load(ordering: .relaxed) <= ownThreadCountMaximum / 4 * 3 }

  var sendsFiles: Bool {
    let time = copiesUntil.load(ordering: .relaxed)
    return time == 0 || clinux_coarse_nanoseconds() >= time
  }

  /// For a minute everything is copied. A session whose reply could not be finished had to end: its
  /// client comes back, asks again, and is then told what is wrong with the medium.
  func sendNoFiles() {
    copiesUntil.store(clinux_coarse_nanoseconds() &+ 60_000_000_000, ordering: .relaxed)
  }
}

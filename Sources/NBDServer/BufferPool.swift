// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import Synchronization

/// Buffers that no session uses: a few are kept, with little memory in each.
final class BufferPool: Sendable {
  private static let keptCount = 8
  private let free = Mutex<[SessionBuffers]>([])

  func take() throws(SystemError) -> SessionBuffers {
    if let kept = free.withLock({ $0.popLast() }) { return kept }
    return try SessionBuffers()
  }

  func give(_ buffers: SessionBuffers) {
    buffers.trim()
    free.withLock { free in
      if free.count < Self.keptCount { free.append(buffers) }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Threads for sessions that have one of their own. They are kept for a while when their session has
// ended or gone quiet, so that the next one need not wait for a new thread.

import CLinux
import Foundation
import LinuxSystem

final class SessionThreads: @unchecked Sendable {
  // Unchecked: whatever changes is touched only while `condition` is locked.
  private let condition = NSCondition()
  private var waiting: [Session] = []
  private var idleCount = 0
  private var threadCount = 0

  /// The kernel gives memory page by page: what is not used costs nothing.
  private static let stackByteCount = 512 << 10
  private static let idleSeconds = 5.0

  /// The session goes on in a thread of its own from here on. False when there is none and the
  /// system gives none.
  func run(_ session: Session) -> Bool {
    condition.lock()
    defer { condition.unlock() }
    waiting.append(session)
    if idleCount >= waiting.count {
      condition.signal()
      return true
    }
    let box = unsafe Unmanaged.passRetained(self)
    // SAFETY: the object is the thread's from here on.
    let result = unsafe clinux_start_thread(
      Self.stackByteCount,
      { argument in
        // SAFETY: retained below for this thread alone.
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<SessionThreads>.fromOpaque(argument).takeRetainedValue().serve()
        return nil
      }, box.toOpaque())
    if result == 0 {
      threadCount += 1
      return true
    }
    unsafe box.release()  // SAFETY: the thread that would have taken it does not exist.
    // One of the others takes it, later.
    if threadCount > 0 { return true }
    waiting.removeLast()
    return false
  }

  private func serve() {
    while let session = next() { session.runInOwnThread() }
  }

  private func next() -> Session? {
    condition.lock()
    defer { condition.unlock() }
    idleCount += 1
    defer { idleCount -= 1 }
    let end = Date(timeIntervalSinceNow: Self.idleSeconds)
    while waiting.isEmpty {
      guard condition.wait(until: end) else {
        if !waiting.isEmpty { break }
        threadCount -= 1
        return nil
      }
    }
    return waiting.removeFirst()
  }
}

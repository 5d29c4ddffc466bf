// SPDX-License-Identifier: Apache-2.0
// Where completions arrive. The order that misses none:
//
//   arm ─► poll until 0 ─► wait until `descriptor` is readable ─► disarm ─► arm ─► poll until 0 ...

import CVerbs
import LinuxSystem

@safe public struct CompletionQueue: ~Copyable {
  // SAFETY: made by `init` and destroyed by `deinit` alone. If a queue pair still uses it then, the
  // kernel refuses and it stays.
  @unsafe let raw: UnsafeMutableRawPointer
  /// Does not block. For poll(2), epoll or io_uring; nobody else reads it or closes it.
  public let descriptor: CInt

  /// On the device that `connection` is bound to. `entryCount`: all that its queue pairs may have out
  /// at a time; more than fit are lost, and the queue with them.
  public init(
    on connection: borrowing ConnectionIdentifier, entryCount: UInt32
  ) throws(VerbsError) {
    guard let device = unsafe cverbs_device_of(connection.raw) else {
      throw .notBound(.createCompletionQueue)
    }
    var made: UnsafeMutableRawPointer?
    var descriptor: CInt = -1
    // SAFETY: variables of ours, and a device that is open.
    let result = unsafe cverbs_queue_create(&made, device, entryCount, &descriptor)
    try verbs(.createCompletionQueue, result)
    guard let made = unsafe made else { throw .failed(.createCompletionQueue, .noMemory) }
    unsafe raw = unsafe made
    self.descriptor = descriptor
  }

  deinit { _ = unsafe cverbs_queue_destroy(raw) }

  /// The next completion makes the descriptor readable. What came before does not: poll after it.
  public borrowing func arm() throws(VerbsError) {
    try verbs(.armCompletionQueue, unsafe cverbs_queue_arm(raw))
  }

  /// Makes the descriptor unreadable again.
  public borrowing func disarm() { unsafe cverbs_queue_disarm(raw) }

  /// Takes completions that are there, at most as many as fit; how many.
  public borrowing func poll(
    into completions: UnsafeMutableBufferPointer<Completion>
  ) throws(VerbsError) -> Int {
    // SAFETY: the room that the caller vouches for; a Completion is one cverbs_completion.
    let count = unsafe UnsafeMutableRawBufferPointer(completions).withMemoryRebound(
      to: cverbs_completion.self
    ) {
      unsafe cverbs_queue_poll(raw, $0.baseAddress, UInt32(clamping: $0.count))
    }
    try verbs(.pollCompletionQueue, count)
    return Int(count)
  }
}

/// What came of a work request.
public struct Completion: Sendable {
  let raw: cverbs_completion

  /// Room to poll into.
  public init() { raw = cverbs_completion() }

  /// As it was posted.
  public var work: UInt64 { raw.work }
  /// 0, or why it failed. Then only `work` and `queuePair` mean anything. Source: `enum
  /// ibv_wc_status`.
  public var status: UInt32 { raw.status }
  public var isSuccess: Bool { raw.status == 0 }
  /// It was still out when its queue pair ended: source of the number: `IBV_WC_WR_FLUSH_ERR`.
  public var isFlushed: Bool { raw.status == 5 }
  /// Of the queue pair, `ConnectionIdentifier.queuePairNumber`.
  public var queuePair: UInt32 { raw.queue_pair }
  /// Whether a receive was completed. Source: `IBV_WC_RECV` and up.
  public var isReceive: Bool { raw.operation & 1 << 7 != 0 }
  /// Of a receive: it carried a message, and not (only) the number of an RDMA WRITE.
  public var isMessage: Bool { raw.operation == 1 << 7 }
  /// Of a message the bytes that came; of an RDMA WRITE those that were written.
  public var byteCount: UInt32 { raw.byte_count }
  /// Of a receive, what the peer gave with it; nil when it gave none.
  public var immediate: UInt32? { raw.has_immediate != 0 ? raw.immediate : nil }
  /// The key of ours that the peer has ended.
  public var invalidatedKey: UInt32? { raw.has_invalidated != 0 ? raw.immediate : nil }
}

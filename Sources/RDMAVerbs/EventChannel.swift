// SPDX-License-Identifier: Apache-2.0
// Where the connection manager tells what became of connections.

import CVerbs
import LinuxSystem

/// Wait until `descriptor` is readable, then take `next` until nil. Must outlive its identifiers.
@safe public struct EventChannel: ~Copyable {
  // SAFETY: made by `init`, which has one only on success, and closed by `deinit` alone.
  @unsafe let raw: UnsafeMutableRawPointer
  /// Does not block. For poll(2), epoll or io_uring; nobody else reads it or closes it.
  public let descriptor: CInt

  /// Opens /dev/infiniband/rdma_cm. ENODEV or ENOENT without rdma_ucm.
  public init() throws(VerbsError) {
    var made: UnsafeMutableRawPointer?
    var descriptor: CInt = -1
    // SAFETY: two variables of ours that the call fills.
    try verbs(.openChannel, unsafe cverbs_channel_open(&made, &descriptor))
    guard let made = unsafe made else { throw .failed(.openChannel, .noMemory) }
    unsafe raw = unsafe made
    self.descriptor = descriptor
  }

  deinit { unsafe cverbs_channel_close(raw) }

  /// The next event, copied out and acknowledged: what it says stays valid, and identifiers can be
  /// destroyed at once. Nil when there is none now.
  public borrowing func next() throws(VerbsError) -> ConnectionEvent? {
    var event = unsafe cverbs_event()
    // SAFETY: a variable of ours that the call fills.
    let result = unsafe cverbs_channel_next(raw, &event)
    if result == -11 || result == -4 { return nil }
    try verbs(.takeEvent, result)
    return unsafe ConnectionEvent(event)
  }
}

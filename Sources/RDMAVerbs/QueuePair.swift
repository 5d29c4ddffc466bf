// SPDX-License-Identifier: Apache-2.0
// The queue pair of a connection: what was posted completes in the completion queues that it was made
// with, in the order of posting. Posting allocates nothing.

import CVerbs

/// How much may be out at a time, and in how many pieces.
public struct QueuePairSizes: Equatable, Sendable {
  public var sendCount: UInt32
  public var receiveCount: UInt32
  /// 1 or 2.
  public var sendSegmentCount: UInt32 = 2
  public init(sendCount: UInt32, receiveCount: UInt32) {
    self.sendCount = sendCount
    self.receiveCount = receiveCount
  }
}

extension ConnectionIdentifier {
  /// A reliable connection's, not connected yet; receives can be posted at once. Domain and queues
  /// must be of the same device, and outlive it. Gives the sizes that the device granted, at least
  /// those asked for. The peer may write where keys allow it, and read nothing.
  public borrowing func createQueuePair(
    in domain: borrowing ProtectionDomain, sends: borrowing CompletionQueue,
    receives: borrowing CompletionQueue, _ wanted: QueuePairSizes
  ) throws(VerbsError) -> QueuePairSizes {
    var sizes = cverbs_sizes(
      sends: wanted.sendCount, receives: wanted.receiveCount,
      send_segments: wanted.sendSegmentCount, receive_segments: 1)
    // SAFETY: all four are alive; `sizes` is ours.
    let result = unsafe cverbs_pair_create(raw, domain.raw, sends.raw, receives.raw, &sizes)
    try verbs(.createQueuePair, result)
    var granted = wanted
    granted.sendCount = sizes.sends
    granted.receiveCount = sizes.receives
    return granted
  }

  /// As completions name it; 0 when there is none. Used again by the device some time after the
  /// identifier, and the queue pair with it, has gone.
  public var queuePairNumber: UInt32 { unsafe cverbs_pair_number(raw) }

  /// Everything that is out completes in error, and nothing more is taken from the peer.
  public borrowing func failQueuePair() throws(VerbsError) {
    try verbs(.failQueuePair, unsafe cverbs_pair_fail(raw))
  }

  /// Posts all, in this order. When it throws some may have been posted: the queue pair is of no
  /// more use. ENOMEM: more is out than it was made for.
  public borrowing func post(_ requests: Span<SendRequest>) throws(VerbsError) {
    let result = unsafe requests.withUnsafeBufferPointer { buffer in
      // SAFETY: a SendRequest is one cverbs_send_request and nothing else.
      unsafe UnsafeRawBufferPointer(buffer).withMemoryRebound(to: cverbs_send_request.self) {
        unsafe cverbs_post_sends(raw, $0.baseAddress, $0.count)
      }
    }
    try verbs(.postSend, result)
  }

  public borrowing func post(_ request: SendRequest) throws(VerbsError) {
    var one = unsafe request.raw
    try verbs(.postSend, unsafe cverbs_post_sends(raw, &one, 1))
  }

  public borrowing func postReceives(_ requests: Span<ReceiveRequest>) throws(VerbsError) {
    let result = unsafe requests.withUnsafeBufferPointer { buffer in
      // SAFETY: a ReceiveRequest is one cverbs_receive_request and nothing else.
      unsafe UnsafeRawBufferPointer(buffer).withMemoryRebound(to: cverbs_receive_request.self) {
        unsafe cverbs_post_receives(raw, $0.baseAddress, $0.count)
      }
    }
    try verbs(.postReceive, result)
  }

  public borrowing func postReceive(_ request: ReceiveRequest) throws(VerbsError) {
    var one = request.raw
    try verbs(.postReceive, unsafe cverbs_post_receives(raw, &one, 1))
  }
}

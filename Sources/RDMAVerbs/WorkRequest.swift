// SPDX-License-Identifier: Apache-2.0
import CVerbs

/// A piece of registered memory.
public struct MemorySegment: Equatable, Sendable {
  /// In this process.
  public var address: UInt64
  public var byteCount: UInt32
  /// The region's local key.
  public var key: UInt32

  public init(address: UInt64, byteCount: UInt32, key: UInt32) {
    self.address = address
    self.byteCount = byteCount
    self.key = key
  }

  static let none = MemorySegment(address: 0, byteCount: 0, key: 0)
  var raw: cverbs_segment { cverbs_segment(address: address, byte_count: byteCount, key: key) }
}

/// Memory of the peer's: an address and a key that it told us.
public struct RemoteMemory: Equatable, Sendable {
  public var address: UInt64
  public var key: UInt32
  public init(address: UInt64, key: UInt32) {
    self.address = address
    self.key = key
  }
  /// Of a transfer without data.
  public static let none = RemoteMemory(address: 0, key: 0)
}

/// What a queue pair is to do. `work` comes back in the completion; one that is not signalled
/// completes only in error. Fields that an operation does not have are zero.
@safe public struct SendRequest {
  public struct Flags: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Tell when it is done. A send queue must see one at least every time around.
    public static let signalled = Flags(rawValue: UInt32(cverbs_signalled))
    /// Not before earlier invalidations on this queue pair are done.
    public static let fence = Flags(rawValue: UInt32(cverbs_fence))
  }

  // SAFETY: the pointers inside are a window's and its region's, which must be alive when it is
  // posted; everything else is numbers.
  @unsafe var raw: cverbs_send_request

  private init(
    _ operation: cverbs_operation, work: UInt64, _ flags: Flags,
    _ first: MemorySegment? = nil, _ second: MemorySegment? = nil, to remote: RemoteMemory = .none,
    immediate: UInt32 = 0
  ) {
    unsafe raw = unsafe cverbs_send_request(
      work: work, remote_address: remote.address, remote_key: remote.key, immediate: immediate,
      operation: operation.rawValue, flags: flags.rawValue,
      first: (first ?? .none).raw, second: (second ?? .none).raw,
      segment_count: (first == nil ? 0 : 1) + (second == nil ? 0 : 1), reserved: 0,
      window: nil, region: nil)
  }

  /// RDMA WRITE: the peer notices nothing.
  public static func write(
    work: UInt64, _ flags: Flags = [], _ first: MemorySegment, _ second: MemorySegment? = nil,
    to remote: RemoteMemory
  ) -> SendRequest {
    SendRequest(cverbs_write, work: work, flags, first, second, to: remote)
  }

  /// RDMA WRITE WITH IMMEDIATE: takes a receive of the peer's. Without segments only the number goes.
  public static func write(
    work: UInt64, _ flags: Flags = [], _ first: MemorySegment? = nil,
    _ second: MemorySegment? = nil, to remote: RemoteMemory = .none, immediate: UInt32
  ) -> SendRequest {
    SendRequest(
      cverbs_write_immediate, work: work, flags, first, second, to: remote, immediate: immediate)
  }

  /// A message: takes a receive of the peer's, which must be long enough.
  public static func send(
    work: UInt64, _ flags: Flags = [], _ segment: MemorySegment
  ) -> SendRequest {
    SendRequest(cverbs_send, work: work, flags, segment)
  }

  /// A message with a number of 32 bits, which comes with its completion.
  public static func send(
    work: UInt64, _ flags: Flags = [], _ segment: MemorySegment, immediate: UInt32
  ) -> SendRequest {
    SendRequest(cverbs_send_immediate, work: work, flags, segment, immediate: immediate)
  }

  /// An empty message that invalidates a key of the peer's.
  public static func sendInvalidating(
    work: UInt64, _ flags: Flags = [], key: UInt32
  ) -> SendRequest {
    SendRequest(
      cverbs_send_invalidate, work: work, flags, to: RemoteMemory(address: 0, key: key))
  }

  /// Ends a key of ours: that of a window, which must be bound.
  public static func invalidate(
    work: UInt64, _ flags: Flags = [], key: UInt32
  ) -> SendRequest {
    SendRequest(
      cverbs_local_invalidate, work: work, flags, to: RemoteMemory(address: 0, key: key))
  }

  /// From when it is done the peer may write to the bytes of `region` with `key`, which is the
  /// window's last with its low 8 bits changed (`MemoryWindow.key(after:)`). Through this queue pair
  /// only. The window must not be bound.
  public static func bind(
    work: UInt64, _ flags: Flags = [], _ window: borrowing MemoryWindow,
    to region: borrowing MemoryRegion, offset: Int, byteCount: Int, key: UInt32
  ) -> SendRequest {
    var request = SendRequest(
      cverbs_bind_window, work: work, flags, region.segment(offset, byteCount),
      to: RemoteMemory(address: 0, key: key))
    unsafe request.raw.window = unsafe window.raw
    unsafe request.raw.region = unsafe region.raw
    return request
  }
}

/// Room for one message of the peer's; none is room for an immediate alone.
public struct ReceiveRequest: Sendable {
  let raw: cverbs_receive_request

  public init(work: UInt64, _ segment: MemorySegment? = nil) {
    raw = cverbs_receive_request(
      work: work, segment: (segment ?? .none).raw, segment_count: segment == nil ? 0 : 1,
      reserved: 0)
  }
}

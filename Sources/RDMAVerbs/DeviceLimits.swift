// SPDX-License-Identifier: Apache-2.0
import CVerbs

/// What a device can do at most.
public struct DeviceLimits: Equatable, Sendable {
  /// Out at a time on one queue pair, in each direction.
  public var workRequestCount: UInt32
  /// Of one completion queue.
  public var completionCount: UInt32
  /// Of one work request.
  public var segmentCount: UInt32
  public var queuePairCount: UInt32
  public var regionCount: UInt32
  /// Of one memory region.
  public var regionByteCount: UInt64
  public var windowCount: UInt32
  /// It has memory windows of type 2.
  public var bindsWindows: Bool
}

extension ConnectionIdentifier {
  /// Throws `.notBound` before the identifier has a device.
  public borrowing func deviceLimits() throws(VerbsError) -> DeviceLimits {
    guard let device = unsafe cverbs_device_of(raw) else { throw .notBound(.queryDevice) }
    var limits = cverbs_limits()
    try verbs(.queryDevice, unsafe cverbs_query_device(device, &limits))
    return DeviceLimits(
      workRequestCount: limits.work_requests, completionCount: limits.completions,
      segmentCount: limits.segments, queuePairCount: limits.queue_pairs,
      regionCount: limits.regions, regionByteCount: limits.region_bytes,
      windowCount: limits.windows, bindsWindows: limits.binds_windows != 0)
  }
}

// SPDX-License-Identifier: Apache-2.0
// What can be said of RDMA on a machine that has none. With a device the guests' tests speak.

import CVerbs
import LinuxSystem
import Testing

@testable import RDMAVerbs

@Suite("events of the connection manager")
struct ConnectionEventTests {
  /// Source: `enum rdma_cm_event_type`, whose numbers cverbs_cm.c asserts.
  static let kinds: [(UInt32, Int32, ConnectionEvent.Kind)] = [
    (0, 0, .addressResolved),
    (1, -19, .failed(.address, SystemError(errno: 19))),
    (2, 0, .routeResolved),
    (3, -110, .failed(.route, .timedOut)),
    (4, 0, .connectRequest),
    (6, -104, .failed(.connect, .connectionReset)),
    (7, -110, .failed(.unreachable, .timedOut)),
    (7, 110, .failed(.unreachable, .timedOut)),
    (8, 28, .rejected(reason: 28)),
    (9, 0, .established),
    (10, 0, .disconnected),
    (11, 0, .deviceRemoved),
    (14, 0, .addressChanged),
    (15, 0, .timeWaitEnded),
    (5, 0, .other(5)),
    (99, .min, .other(99)),
  ]

  @Test("are told apart, with an errno or a reason", arguments: kinds)
  func kind(number: UInt32, status: Int32, kind: ConnectionEvent.Kind) {
    #expect(ConnectionEvent.kind(of: number, status: status) == kind)
  }

  @Test("hold what the peer said, and no more than fits", arguments: [0, 1, 56, 196, 256])
  func privateData(count: Int) {
    var raw = unsafe cverbs_event()
    unsafe raw.private_count = UInt32(count)
    unsafe withUnsafeMutableBytes(of: &raw.private_data) { bytes in
      for index in 0..<count { unsafe bytes[index] = UInt8(truncatingIfNeeded: index) }
    }
    let event = unsafe ConnectionEvent(raw)
    let told = event.withPrivateData { bytes in
      var copy: [UInt8] = []
      for index in bytes.indices { copy.append(bytes[index]) }
      return copy
    }
    #expect(told == (0..<count).map { UInt8(truncatingIfNeeded: $0) })
  }
}

@Suite("requests")
struct WorkRequestTests {
  @Test("lie in a list as the shims read them")
  func layout() {
    #expect(unsafe MemoryLayout<SendRequest>.stride == MemoryLayout<cverbs_send_request>.stride)
    #expect(MemoryLayout<ReceiveRequest>.stride == MemoryLayout<cverbs_receive_request>.stride)
    #expect(MemoryLayout<Completion>.stride == MemoryLayout<cverbs_completion>.stride)
    let first = unsafe MemoryLayout<cverbs_send_request>.offset(of: \.first)
    let second = unsafe MemoryLayout<cverbs_send_request>.offset(of: \.second)
    #expect(first.map { $0 + MemoryLayout<cverbs_segment>.size } == second)
  }

  static let data = MemorySegment(address: 0x1000, byteCount: 4096, key: 7)
  static let head = MemorySegment(address: 0x9000, byteCount: 36, key: 8)
  static let there = RemoteMemory(address: 0xdead_0000, key: 9)

  @Test("have as many segments as they were given")
  func segments() {
    let both = SendRequest.write(
      work: 1, [.signalled], Self.data, Self.head, to: Self.there, immediate: 0x0008_1020)
    let raw = unsafe both.raw
    #expect(unsafe raw.segment_count == 2 && raw.second.address == 0x9000)
    #expect(unsafe raw.immediate == 0x0008_1020 && raw.remote_key == 9 && raw.work == 1)
    #expect(unsafe raw.operation == cverbs_write_immediate.rawValue)
    let none = unsafe SendRequest.write(work: 2, immediate: 8 << 28).raw
    #expect(unsafe none.segment_count == 0 && none.remote_address == 0 && none.flags == 0)
    #expect(ReceiveRequest(work: 3).raw.segment_count == 0)
    #expect(ReceiveRequest(work: 3, Self.data).raw.segment_count == 1)
  }

  @Test("name the key that an invalidation is about")
  func invalidation() {
    let remote = unsafe SendRequest.sendInvalidating(work: 1, key: 0x1201).raw
    #expect(
      unsafe remote.operation == cverbs_send_invalidate.rawValue && remote.remote_key == 0x1201)
    let local = unsafe SendRequest.invalidate(work: 1, [.fence], key: 0x1201).raw
    #expect(unsafe local.operation == cverbs_local_invalidate.rawValue)
    #expect(unsafe local.flags == UInt32(cverbs_fence))
  }

  /// Source: `ibv_inc_rkey` in verbs.h: the low 8 bits alone, around.
  @Test(
    "of a window go through 256 keys",
    arguments: [(0x1200, 0x1201), (0x12ff, 0x1200), (0xffff_ff00, 0xffff_ff01)]
      as [(UInt32, UInt32)])
  func keys(key: UInt32, next: UInt32) {
    #expect(MemoryWindow.key(after: key) == next)
  }
}

@Suite("a machine without an RDMA device")
struct NoDeviceTests {
  @Test(
    "says so, and what to do",
    .enabled(if: RDMADevices.names().isEmpty, "this machine has an RDMA device"))
  func noDevice() {
    do {
      #expect(try RDMADevices.find() == 0)
    } catch { #expect(error == .noDevice) }
    do {
      _ = try EventChannel()
      Issue.record("a channel without rdma_cm")
    } catch {
      let report = error.report
      #expect(report.reason.contains("/dev/infiniband/rdma_cm") || error == .noDevice)
      #expect(report.advice.contains("rdma_ucm"))
    }
  }

  @Test("still has the words for an address of InfiniBand's own")
  func address() {
    let gid: [UInt8] = [0xfe, 0x80] + Array(repeating: 0, count: 13) + [1]
    let address = SocketAddress(gid: gid, port: 1234)
    #expect(address.family == 27)  // Source: AF_IB in Linux's socket.h.
    #expect(address.bytes.count == 48)
    #expect(Array(address.bytes[8..<24]) == gid)
    // Source: the service ids of Linux's rtrs with port space IB, 0x13f0000 + port, in network order.
    #expect(Array(address.bytes[24..<32]) == [0, 0, 0, 0, 0x01, 0x3f, 0x04, 0xd2])
  }
}

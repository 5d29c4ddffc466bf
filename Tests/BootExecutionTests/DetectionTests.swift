// SPDX-License-Identifier: Apache-2.0
// What follows from the two numbers that say how a silence is told from a pause.

import Glibc
import Testing

@testable import BootExecution

@Suite("Detection")
struct DetectionTests {
  /// Source: rootlink(8), "WHEN THE SERVER GOES AWAY".
  @Test(
    "derives the options of TCP and the length of an attempt from one number",
    arguments: [
      (silence: nil, idle: 5, interval: 2, user: 6000, attempt: 3000),
      (1, 1, 1, 1000, 1000), (2, 1, 1, 2000, 1000), (6, 5, 2, 6000, 3000),
      (30, 25, 10, 30_000, 10_000), (3600, 3000, 1200, 3_600_000, 10_000),
    ] as [(silence: UInt64?, idle: CInt, interval: CInt, user: CInt, attempt: UInt64)])
  func rules(silence: UInt64?, idle: CInt, interval: CInt, user: CInt, attempt: UInt64) {
    let detection = Detection(silenceSeconds: silence)
    #expect(detection.keepAliveIdleSeconds == idle)
    #expect(detection.keepAliveIntervalSeconds == interval)
    #expect(detection.userTimeoutMilliseconds == user)
    #expect(detection.attemptMilliseconds == attempt)
    // Asked at least once before the time is up, or at the same moment.
    #expect(idle <= max(user / 1000, 1))
  }

  @Test(
    "leaves it to the kernel where that can, and what was asked of the kernel wins",
    arguments: [
      (answer: nil, asked: 0, connections: 1, kernel: 0, probe: 10_000, ublk: 10),
      (nil, 0, 4, 4, nil, 10), (3, 0, 1, 0, 3000, 3), (3, 0, 4, 3, nil, 3),
      (3, 30, 1, 30, nil, 30), (3, 30, 4, 30, nil, 30),
    ]
      as [(
        answer: UInt64?, asked: UInt64, connections: UInt32, kernel: UInt64, probe: UInt64?,
        ublk: UInt64
      )])
  func answers(
    answer: UInt64?, asked: UInt64, connections: UInt32, kernel: UInt64, probe: UInt64?,
    ublk: UInt64
  ) {
    let detection = Detection(answerSeconds: answer)
    #expect(detection.kernelTimeoutSeconds(asked, connectionCount: connections) == kernel)
    #expect(detection.probeMilliseconds(asked, connectionCount: connections) == probe)
    #expect(detection.ublkSilenceSeconds(asked) == ublk)
  }

  @Test("is what the kernel says of a socket")
  func options() throws {
    let number = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
    defer { close(number) }
    try Reconnection.setOptions(number, Detection(silenceSeconds: 12))
    func option(_ level: CInt, _ name: CInt) -> CInt {
      var value: CInt = -1
      var length = socklen_t(MemoryLayout<CInt>.size)
      // SAFETY: an integer of ours and its length.
      unsafe getsockopt(number, level, name, &value, &length)
      return value
    }
    #expect(option(SOL_SOCKET, SO_KEEPALIVE) == 1)
    #expect(option(CInt(IPPROTO_TCP), TCP_KEEPIDLE) == 10)
    #expect(option(CInt(IPPROTO_TCP), TCP_KEEPINTVL) == 4)
    #expect(option(CInt(IPPROTO_TCP), TCP_KEEPCNT) == 3)
    #expect(option(CInt(IPPROTO_TCP), 18) == 12_000)  // TCP_USER_TIMEOUT, Linux `uapi/linux/tcp.h`.
  }
}

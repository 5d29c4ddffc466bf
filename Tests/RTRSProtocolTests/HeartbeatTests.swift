// SPDX-License-Identifier: Apache-2.0
import RTRSProtocol
import Testing

@Suite("The heartbeat of a path")
struct HeartbeatTests {
  static let second: UInt64 = 1_000_000_000

  /// What a tick each second says in `seconds` seconds: the seconds at which it sends, and at
  /// which the path ends.
  static func run(
    _ heartbeat: inout Heartbeat, seconds: Range<UInt64>, heardAt: Set<UInt64> = []
  ) -> (sent: [UInt64], ended: UInt64?) {
    var sent: [UInt64] = []
    for time in seconds {
      if heardAt.contains(time) { heartbeat.heard() }
      switch heartbeat.tick(at: time * second) {
      case .wait: break
      case .sendHeartbeat: sent.append(time)
      case .endPath: return (sent, time)
      }
    }
    return (sent, nil)
  }

  /// Source: `hb_work` in Linux `rtrs.c`; 30 to 35 s after the peer's death were seen.
  @Test("notices a peer that died at once after 35 s, with Linux's limits")
  func deadFromTheStart() {
    var heartbeat = Heartbeat(.linux, at: 0)
    let (sent, ended) = Self.run(&heartbeat, seconds: 0..<100)
    #expect(sent == [5])
    #expect(ended == 35)
  }

  @Test("notices a peer that dies later 30 to 35 s after its last sign")
  func deadLater() throws {
    for last in UInt64(10)...20 {
      var heartbeat = Heartbeat(.linux, at: 0)
      let (_, ended) = Self.run(
        &heartbeat, seconds: 0..<100, heardAt: Set(UInt64(1)...last))
      let silence = try #require(ended) - last
      #expect(silence >= 30 && silence <= 35, "\(silence)")
    }
  }

  @Test("asks once each interval while anything is heard, for ever")
  func alive() {
    var heartbeat = Heartbeat(.brisk, at: 0)
    let (sent, ended) = Self.run(
      &heartbeat, seconds: 0..<3600, heardAt: Set(UInt64(0)..<3600))
    #expect(sent == Array(1..<3600))
    #expect(ended == nil)
  }

  @Test("lets a peer come back with its last chance")
  func lastChance() {
    var heartbeat = Heartbeat(.linux, at: 0)
    let (sent, ended) = Self.run(&heartbeat, seconds: 0..<100, heardAt: [35, 65])
    #expect(sent == [5, 35, 65])
    #expect(ended == 95)
  }

  @Test("counts one tick when nobody asked for a long time")
  func stoppedProcess() {
    var heartbeat = Heartbeat(.brisk, at: 0)
    #expect(heartbeat.tick(at: 1000 * Self.second) == .sendHeartbeat)
    #expect(heartbeat.tick(at: 1000 * Self.second) == .wait)
    #expect(heartbeat.tickNanoseconds == 1001 * Self.second)
  }

  @Test("measures the time to an acknowledgement, and takes none that was not asked for")
  func latency() {
    var heartbeat = Heartbeat(.linux, at: 0)
    heartbeat.acknowledged(at: 3)
    #expect(heartbeat.latencyNanoseconds == 0)
    #expect(heartbeat.tick(at: 5 * Self.second) == .sendHeartbeat)
    heartbeat.acknowledged(at: 5 * Self.second + 1234)
    #expect(heartbeat.latencyNanoseconds == 1234)
    heartbeat.acknowledged(at: 0)
    #expect(heartbeat.latencyNanoseconds == 1234)
  }
}

@Suite("The pauses between attempts")
struct ReconnectBackoffTests {
  @Test("double from half a second to eight, in their upper half, and begin anew")
  func doubling() {
    var backoff = ReconnectBackoff()
    for longest: UInt64 in [500, 1000, 2000, 4000, 8000, 8000, 8000] {
      var other = backoff
      #expect(other.pause(random: 0) == longest * 500_000)
      let pause = backoff.pause(random: .max)
      #expect(pause >= longest * 500_000 && pause <= longest * 1_000_000)
    }
    backoff.reset()
    #expect(backoff.pause(random: 0) == 250_000_000)
  }
}

// SPDX-License-Identifier: Apache-2.0
// How a silence is told from a pause. Two numbers are asked for, the others follow from them.

import WireFormat

/// Source: rootlink(8), "WHEN THE SERVER GOES AWAY", which gives each rule.
struct Detection: Equatable, Sendable {
  static let silenceSecondsDefault: UInt64 = 6
  /// The kernel knows only to give up the connection of a request that was unanswered for so long.
  static let answerSecondsWithSeveral: UInt64 = 4
  /// Else a server is asked over another connection first, or is told so: nothing is lost by patience.
  static let answerSecondsDefault: UInt64 = 10
  static let secondsMaximum: UInt64 = 3600

  /// How long the machine of the server may say nothing, `rootlink.silence=`; 1 to 3600.
  var silenceSeconds: UInt64
  /// How long the server may owe an answer, `rootlink.answer=`; 1 to 3600, nil leaves it to us.
  var answerSeconds: UInt64?

  init(silenceSeconds: UInt64? = nil, answerSeconds: UInt64? = nil) {
    self.silenceSeconds = silenceSeconds ?? Self.silenceSecondsDefault
    self.answerSeconds = answerSeconds
  }

  /// TCP_USER_TIMEOUT: data that were not acknowledged for so long end the connection.
  var userTimeoutMilliseconds: CInt { CInt(silenceSeconds * 1000) }
  /// An idle connection is asked after five sixths of the silence, and again after every third.
  /// Once the silence has passed, TCP_USER_TIMEOUT ends it at the next question.
  var keepAliveIdleSeconds: CInt { CInt(max(silenceSeconds * 5 / 6, 1)) }
  var keepAliveIntervalSeconds: CInt { CInt(max(silenceSeconds / 3, 1)) }
  /// Only where TCP_USER_TIMEOUT does not decide.
  static let keepAliveCount: CInt = 3
  /// From connect to content half the silence: a peer that takes longer is tried anew.
  var attemptMilliseconds: UInt64 { min(max(silenceSeconds * 500, 1000), 10_000) }

  /// What the kernel's nbd driver is told: the seconds that were asked for it, else those of an
  /// answer where there are several connections; 0 has it wait.
  func kernelTimeoutSeconds(_ asked: UInt64, connectionCount: UInt32) -> UInt64 {
    if asked != 0 { return asked }
    return connectionCount > 1 ? answerSeconds ?? Self.answerSecondsWithSeveral : 0
  }

  /// How long one connection of the kernel's may owe an answer before the server is asked over
  /// another; nil where the kernel looks after that.
  func probeMilliseconds(_ asked: UInt64, connectionCount: UInt32) -> UInt64? {
    guard asked == 0, connectionCount == 1 else { return nil }
    return (answerSeconds ?? Self.answerSecondsDefault) * 1000
  }

  /// How long a connection of a ublk device may owe an answer.
  func ublkSilenceSeconds(_ asked: UInt64) -> UInt64 {
    asked != 0 ? asked : answerSeconds ?? Self.answerSecondsDefault
  }
}

// SPDX-License-Identifier: Apache-2.0
// Answers who asks for metrics, on threads of their own: a collector that reads slowly, or many of
// them, cost the data path nothing.

import CLinux
import Foundation
public import LinuxSystem
import Synchronization

/// Answers HTTP requests for metrics; any thread may call.
public final class MetricsAnswerer: Sendable {
  /// Who comes while so many are being answered is told to come back.
  public static let connectionCountMaximum = 8

  private let deadlineMilliseconds: UInt64
  private let text: @Sendable () -> String
  private let count = Atomic(0)

  /// `text` is called on many threads. `deadlineMilliseconds`: for the whole of one conversation.
  public init(deadlineMilliseconds: UInt64 = 5000, text: @escaping @Sendable () -> String) {
    self.deadlineMilliseconds = deadlineMilliseconds
    self.text = text
  }

  /// Takes over an accepted, non-blocking connection and returns at once.
  public func serve(_ connection: consuming FileDescriptor) {
    let socket = StreamSocket(owning: connection)
    guard count.add(1, ordering: .relaxed).newValue <= Self.connectionCountMaximum else {
      count.subtract(1, ordering: .relaxed)
      // It fits in the empty buffer of a new socket.
      try? socket.send(HTTPAnswer(.busy).encoded, until: .milliseconds(0))
      return
    }
    let number = socket.releaseDescriptor()
    let thread = Thread { [self] in
      converse(StreamSocket(owning: FileDescriptor(owning: number)))
      count.subtract(1, ordering: .relaxed)
    }
    thread.stackSize = 512 << 10
    thread.start()
  }

  /// Being answered now.
  public var connectionCount: Int { count.load(ordering: .relaxed) }

  private func converse(_ socket: consuming StreamSocket) {
    let deadline = Deadline.milliseconds(deadlineMilliseconds)
    var head = HTTPRequestHead()
    do {
      while true {
        var bytes: [UInt8] = []
        try socket.receive(into: &bytes, maximum: 4096, until: deadline)
        if bytes.isEmpty { return }
        let answer: HTTPAnswer
        switch head.receive(bytes) {
        case .wantsMore: continue
        case .refused(let status): answer = HTTPAnswer(status)
        case .request(let method, let target):
          answer = HTTPAnswer(method: method, target: target, metrics: text)
        }
        try socket.send(answer.encoded, until: deadline)
        break
      }
      // What it may still send must not reset the connection before it has read the answer.
      _ = clinux_shutdown_writing(socket.descriptor.rawValue)
      var rest: [UInt8] = []
      while rest.count < 1 << 20 {
        let count = rest.count
        try socket.receive(into: &rest, maximum: 4096, until: deadline)
        if rest.count == count { return }
      }
    } catch {
      return  // Gone, or too slow.
    }
  }
}

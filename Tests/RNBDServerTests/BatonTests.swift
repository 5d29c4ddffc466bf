// SPDX-License-Identifier: Apache-2.0
import Foundation
import LinuxSystem
import RNBDProtocol
import Synchronization
import Testing
import WireFormat

@testable import RNBDServer

@Suite("The baton of the engine")
struct BatonTests {
  final class Standby: Sendable {
    let baton = Baton(patienceMilliseconds: 20)
    let outcomes = Mutex<[Bool]>([])

    init() {
      let thread = Thread { [self] in
        while true {
          let hasBaton = baton.standBy()
          outcomes.withLock { $0.append(hasBaton) }
          if !hasBaton { return }
        }
      }
      thread.start()
      wait { self.baton.hasStandby }
    }

    func wait(for fact: () -> Bool, _ location: SourceLocation = #_sourceLocation) {
      let deadline = Deadline.milliseconds(5000)
      while !fact() {
        guard !deadline.hasPassed else {
          Issue.record("it did not come to that", sourceLocation: location)
          return
        }
        pause(milliseconds: 1)
      }
    }
  }

  @Test("goes back to whoever returns in time, again and again")
  func inTime() {
    let standby = Standby()
    for _ in 0..<1000 {
      let token = standby.baton.lend(at: .now)
      #expect(standby.baton.takeBack(token))
    }
    #expect(standby.outcomes.withLock { $0.isEmpty })
    standby.baton.end()
    standby.wait { standby.outcomes.withLock { $0 == [false] } }
  }

  @Test(
    "goes to the one that stands by when it is away for too long, after any pause",
    arguments: [0, 700])
  func tooLate(pauseMilliseconds: UInt64) {
    let standby = Standby()
    pause(milliseconds: pauseMilliseconds)  // Nobody looks any more after a while.
    let token = standby.baton.lend(at: .now)
    standby.wait { standby.outcomes.withLock { $0 == [true] } }
    #expect(!standby.baton.takeBack(token))
    standby.baton.end()
    standby.wait { standby.outcomes.withLock { $0 == [true, false] } }
  }
}

@Suite("An engine that executes requests itself")
struct LoneRequestTests {
  /// What the engine's threads have; the test asks it by `FinishedJobs.ask` alone.
  final class Running: @unchecked Sendable {
    // Unchecked: everything but `isOver` is touched by whoever runs the engine.
    let server: PlayedServer
    let slow: PlayedClient
    let quick: PlayedClient
    let baton = Baton()
    let isOver = Atomic(false)
    let endedCount = Atomic(0)

    init() throws {
      server = try PlayedServer()
      slow = PlayedClient(server, session: 1)
      quick = PlayedClient(server, session: 2, from: "10.9.0.3")
      server.settle()
      try slow.introduce("slow")
      try quick.introduce("quick")
      server.settle(slow.isUp && quick.isUp)
      #expect(try slow.open("disk", .readWrite).error == .success)
      #expect(try quick.open("fixed", .readOnly).error == .success)
      server.engine.baton = baton
    }

    func start() {
      for isRunner in [true, false] {
        let thread = Thread { [self] in
          if isRunner || baton.standBy() {
            repeat {
              if server.engine.run(until: { isOver.load(ordering: .acquiring) }) {
                baton.end()
                break
              }
            } while baton.standBy()
          }
          endedCount.add(1, ordering: .acquiringAndReleasing)
        }
        thread.start()
      }
    }

    /// What the engine's thread finds.
    func find<Value: Sendable>(_ body: @escaping @Sendable (Running) -> Value) -> Value? {
      let found = DispatchSemaphore(value: 0)
      let box = ValueBox<Value>()
      server.engine.finished.ask { [self] in
        box.value.withLock { $0 = body(self) }
        found.signal()
      }
      _ = found.wait(timeout: .now() + 5)
      return box.value.withLock { $0 }
    }

    func wait(for fact: () -> Bool, _ location: SourceLocation = #_sourceLocation) {
      let deadline = Deadline.milliseconds(10_000)
      while !fact() {
        guard !deadline.hasPassed else {
          Issue.record("it did not come to that", sourceLocation: location)
          return
        }
        pause(milliseconds: 1)
      }
    }
  }
  final class ValueBox<Value: Sendable>: Sendable {
    let value = Mutex<Value?>(nil)
  }

  @Test("answers others while the disk lets the one request that it executes wait")
  func slowDisk() throws {
    let running = try Running()
    running.server.backend.set(isOpen: false)
    running.start()
    running.wait { running.baton.hasStandby }
    let write = IORequest(device: 0, sector: 0, operation: .write, dataByteCount: 512).encoded
    let read = IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 512).encoded
    _ = running.find { $0.slow.send(write, data: [UInt8](repeating: 1, count: 512)) }
    running.wait { running.server.backend.waitingCount == 1 }
    for _ in 0..<3 {
      let before = running.find { $0.server.transport.answers.count } ?? 0
      _ = running.find { $0.quick.send(read, room: 512) }
      running.wait {
        running.find {
          let answers = $0.server.transport.answers
          return answers.count == before + 1 && answers.last?.connection == $0.quick.io
        } == true
      }
    }
    running.server.backend.set(isOpen: true)
    running.wait {
      running.find { $0.server.transport.answers.last?.connection == $0.slow.io } == true
    }
    running.isOver.store(true, ordering: .releasing)
    running.wait { running.endedCount.load(ordering: .acquiring) == 2 }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Threads of one session that wait for its disks, so that the one that has the connections never
// does. Jobs are made with the session, one for each chunk: a request takes no memory.

import BlockBackends
import BlockServer
import Foundation
import RNBDProtocol
import RTRSProtocol
import Synchronization
import WireFormat

/// What is done for one request. Belongs to the engine's thread, and between `Workers.run` and its
/// appearance in the `FinishedJobs` to a worker.
@safe final class Job: @unchecked Sendable {
  // Unchecked: handed over under the locks of `Workers` and `FinishedJobs`.
  enum Work {
    case none
    case io(RNBDProtocol.BlockOperation, OpenDevice, Range<UInt64>, isFUA: Bool)
    case open(OpenRequest, OpenContext)
    /// Makes durable what was answered, before the device is closed.
    case close(OpenDevice, number: UInt32)
  }

  let session: Int
  let chunk: UInt16
  var work = Work.none
  /// The data, in the chunk. Valid until the request is finished.
  @unsafe var data = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)
  var error = PeerErrno.success
  /// What `open` came to.
  var opened: OpenDevice?
  var refusal: DeviceRefusal?

  init(session: Int, chunk: UInt16) {
    self.session = session
    self.chunk = chunk
  }

  func execute() {
    switch work {
    case .none: break
    case .io(let operation, let device, let range, let isFUA):
      do throws(BackendError) {
        switch operation {
        case .read: try unsafe device.backend.read(into: data, at: range.lowerBound)
        case .write:
          try unsafe device.backend.write(
            UnsafeRawBufferPointer(data), at: range.lowerBound, isDurable: isFUA)
        case .writeZeroes:
          try device.backend.writeZeroes(range, mayPunch: true, isDurable: isFUA)
        case .discard: try device.backend.trim(range, isDurable: isFUA)
        case .flush: try device.backend.flush()
        }
      } catch { self.error = PeerErrno(error) }
    case .open(let request, let context):
      do { opened = try context.open(request) } catch {
        refusal = error
        self.error = PeerErrno(error)
      }
    case .close(let device, _):
      do { try device.flush() } catch { self.error = PeerErrno(error) }
    }
  }
}

final class Workers: @unchecked Sendable {
  // Unchecked: what changes is touched only while `condition` is locked.
  private let condition = NSCondition()
  /// A ring; as long as there are jobs, so it never overflows.
  private var waiting: [Job?]
  private var first = 0
  private var count = 0
  private var idleCount = 0
  private var isOver = false
  private let finished: FinishedJobs

  init(jobCount: Int, threadCount: Int, finished: FinishedJobs) {
    waiting = [Job?](repeating: nil, count: jobCount)
    self.finished = finished
    for _ in 0..<threadCount {
      let thread = Thread { [self] in run() }
      thread.stackSize = 512 << 10
      thread.start()
    }
  }

  func run(_ job: Job) {
    condition.lock()
    waiting[(first + count) % waiting.count] = job
    count += 1
    if idleCount > 0 { condition.signal() }
    condition.unlock()
  }

  /// When nothing is left to do.
  func end() {
    condition.lock()
    isOver = true
    condition.broadcast()
    condition.unlock()
  }

  private func run() {
    while true {
      condition.lock()
      while count == 0 {
        if isOver {
          condition.unlock()
          return
        }
        idleCount += 1
        condition.wait()
        idleCount -= 1
      }
      let job = waiting[first]
      waiting[first] = nil
      first = (first + 1) % waiting.count
      count -= 1
      condition.unlock()
      guard let job else { continue }
      job.execute()
      finished.add(job)
    }
  }
}

/// On their way back to the engine, and what others ask of it.
final class FinishedJobs: Sendable {
  private struct State {
    var jobs: [Job] = []
    var commands: [@Sendable () -> Void] = []
    var ends: [(session: Int, uuid: RTRSUUID)] = []
  }
  private let state: Mutex<State>
  private let waker: any TransportWaker

  init(waker: any TransportWaker) {
    var state = State()
    state.jobs.reserveCapacity(4096)
    self.state = Mutex(state)
    self.waker = waker
  }

  func add(_ job: Job) {
    let isFirst = state.withLock { state in
      state.jobs.append(job)
      return state.jobs.count == 1
    }
    if isFirst { waker.wake() }
  }

  /// Done by the engine's thread, soon.
  func ask(_ command: @escaping @Sendable () -> Void) {
    state.withLock { $0.commands.append(command) }
    waker.wake()
  }

  /// The session is to end, if it is still the one of that number.
  func end(_ session: Int, _ uuid: RTRSUUID) {
    state.withLock { $0.ends.append((session, uuid)) }
    waker.wake()
  }

  /// All that are there, in exchange for room as large.
  func take(
    into jobs: inout [Job]
  ) -> (commands: [@Sendable () -> Void], ends: [(session: Int, uuid: RTRSUUID)]) {
    state.withLock { state in
      swap(&state.jobs, &jobs)
      defer {
        state.commands.removeAll()
        state.ends.removeAll()
      }
      return (state.commands, state.ends)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// One client's session: what the machine does not keep of it. Touched by the engine's thread alone.

import BlockServer
import LinuxSystem
import RNBDProtocol
import RTRSProtocol
import Synchronization
import WireFormat

final class EngineSession<Memory: ChunkMemory> {
  /// A path that is not torn down.
  final class Path {
    /// The transport's.
    let key: Int
    let generation: UInt32
    let ends: ConnectionEnds
    let memory: Memory
    let attempt: UInt16
    /// The client counts on what it has here.
    let isReturning: Bool
    let uuid: RTRSUUID
    let since = MonotonicTime.now
    /// By their numbers in the path; -1 for those that are not there yet.
    var connections: [Int]
    var counters = PathCounters()

    init(
      key: Int, generation: UInt32, ends: ConnectionEnds, memory: Memory, attempt: UInt16,
      isReturning: Bool, uuid: RTRSUUID, connectionCount: Int
    ) {
      self.key = key
      self.generation = generation
      self.ends = ends
      self.memory = memory
      self.attempt = attempt
      self.isReturning = isReturning
      self.uuid = uuid
      connections = [Int](repeating: -1, count: connectionCount)
    }
  }

  let number: Int
  var machine: ServerSession
  var paths: [Path?]
  /// Of each device that a path went through.
  var memories: [(device: UInt, memory: Memory)] = []
  var memoryByteCount: Int { memories.count * machine.geometry.totalByteCount }

  var devices: ServerDevices
  /// By their numbers.
  var open: [OpenDevice?]
  let jobs: [Job]
  let workers: Workers
  var isOver = false
  private(set) var openCount: UInt16 = 0

  /// When anything came from the client last.
  var heard = MonotonicTime(nanoseconds: 0)

  init(number: Int, machine: ServerSession, limits: RNBDServerLimits, finished: FinishedJobs) {
    self.number = number
    self.machine = machine
    paths = [Path?](repeating: nil, count: machine.pathCountMaximum)
    devices = ServerDevices(deviceCountMaximum: limits.deviceCountMaximum)
    open = [OpenDevice?](repeating: nil, count: limits.deviceCountMaximum)
    let depth = Int(machine.geometry.queueDepth)
    jobs = (0..<depth).map { Job(session: number, chunk: UInt16($0)) }
    workers = Workers(jobCount: depth, threadCount: limits.workerCount, finished: finished)
  }

  var name: ByteString { machine.name?.text ?? "" }
  var clientText: ByteString {
    for path in paths { if let path { return path.ends.client } }
    return ""
  }

  func nextSlot() -> UInt16 {
    openCount &+= 1
    return openCount
  }

  func memory(on device: UInt) -> Memory? { memories.first { $0.device == device }?.memory }

  /// Where a chunk begins.
  func offset(of chunk: UInt16) -> Int { Int(chunk) * Int(machine.geometry.chunkByteCount) }

  /// The path that a request came by, unless it has ended.
  func path(_ token: ServerPathToken) -> Path? {
    guard let path = paths[token.index], path.generation == token.generation else { return nil }
    return path
  }
}

/// What went over a path. The names are those of the JSON of `rootlinkd status`.
struct PathCounters: Equatable {
  var reads: UInt64 = 0
  var readBytes: UInt64 = 0
  var writes: UInt64 = 0
  var writtenBytes: UInt64 = 0
}

extension EngineSession {
  func status() -> ServerStatus.TransportSession {
    var shown: [ServerStatus.TransportPath] = []
    for index in paths.indices {
      guard let path = paths[index] else { continue }
      shown.append(
        ServerStatus.TransportPath(
          client: path.ends.client.shown, server: path.ends.server.shown,
          device: path.ends.device.shown,
          state: machine.isConnected(index) ? "connected" : "connecting",
          connections: path.connections.count { $0 >= 0 }, attempt: path.attempt,
          seconds: MonotonicTime.now.milliseconds(since: path.since) / 1000,
          reads: path.counters.reads, readBytes: path.counters.readBytes,
          writes: path.counters.writes, writtenBytes: path.counters.writtenBytes))
    }
    return ServerStatus.TransportSession(
      name: name.shown, inFlight: machine.executingCount, memoryBytes: memoryByteCount,
      devices: open.compactMap { device in
        device.map {
          ServerStatus.OpenDevice(
            mappingPath: $0.name.shown, export: $0.export.name.shown, accessMode: $0.mode.name)
        }
      }, paths: shown)
  }
}

extension ByteString {
  /// For JSON, which has no bytes: what is not UTF-8 is replaced.
  var shown: String { String(decoding: bytes, as: UTF8.self) }
}

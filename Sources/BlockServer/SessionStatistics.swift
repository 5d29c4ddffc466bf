// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// What a session has done. The session's thread adds, anybody may look.
public final class SessionStatistics: Sendable {
  /// READs that succeeded.
  public let readCount = Atomic<UInt64>(0)
  /// What they gave, in bytes.
  public let readByteCount = Atomic<UInt64>(0)
  /// WRITEs that succeeded.
  public let writeCount = Atomic<UInt64>(0)
  /// What they brought, in bytes.
  public let writtenByteCount = Atomic<UInt64>(0)
  /// Zeroing requests that succeeded, however long.
  public let zeroCount = Atomic<UInt64>(0)
  /// TRIMs that succeeded.
  public let trimCount = Atomic<UInt64>(0)
  /// Flushes that succeeded.
  public let flushCount = Atomic<UInt64>(0)
  /// Requests answered with an error.
  public let errorCount = Atomic<UInt64>(0)

  public init() {}

  /// Adds what has been done since the last time.
  public func add(_ done: SessionCounters) {
    if done.reads != 0 {
      readCount.add(done.reads, ordering: .relaxed)
      readByteCount.add(done.readBytes, ordering: .relaxed)
    }
    if done.writes != 0 {
      writeCount.add(done.writes, ordering: .relaxed)
      writtenByteCount.add(done.writtenBytes, ordering: .relaxed)
    }
    if done.zeroes != 0 { zeroCount.add(done.zeroes, ordering: .relaxed) }
    if done.trims != 0 { trimCount.add(done.trims, ordering: .relaxed) }
    if done.flushes != 0 { flushCount.add(done.flushes, ordering: .relaxed) }
    if done.errors != 0 { errorCount.add(done.errors, ordering: .relaxed) }
  }

  /// Each number is what it was at some moment of the call; together they may be of several.
  public var snapshot: SessionCounters {
    SessionCounters(
      reads: readCount.load(ordering: .relaxed),
      readBytes: readByteCount.load(ordering: .relaxed),
      writes: writeCount.load(ordering: .relaxed),
      writtenBytes: writtenByteCount.load(ordering: .relaxed),
      zeroes: zeroCount.load(ordering: .relaxed),
      trims: trimCount.load(ordering: .relaxed),
      flushes: flushCount.load(ordering: .relaxed),
      errors: errorCount.load(ordering: .relaxed))
  }
}

/// `SessionStatistics` at one moment. The names are those of the JSON of `rootlinkd status`.
public struct SessionCounters: Codable, Equatable, Sendable {
  /// READs that succeeded.
  public var reads: UInt64 = 0
  /// In bytes, of all `reads`.
  public var readBytes: UInt64 = 0
  /// WRITEs that succeeded.
  public var writes: UInt64 = 0
  /// In bytes, of all `writes`.
  public var writtenBytes: UInt64 = 0
  /// Zeroing requests that succeeded.
  public var zeroes: UInt64 = 0
  /// TRIMs that succeeded.
  public var trims: UInt64 = 0
  /// Flushes that succeeded.
  public var flushes: UInt64 = 0
  /// Requests answered with an error, whatever they were.
  public var errors: UInt64 = 0

  public init(
    reads: UInt64 = 0, readBytes: UInt64 = 0, writes: UInt64 = 0, writtenBytes: UInt64 = 0,
    zeroes: UInt64 = 0, trims: UInt64 = 0, flushes: UInt64 = 0, errors: UInt64 = 0
  ) {
    self.reads = reads
    self.readBytes = readBytes
    self.writes = writes
    self.writtenBytes = writtenBytes
    self.zeroes = zeroes
    self.trims = trims
    self.flushes = flushes
    self.errors = errors
  }
}

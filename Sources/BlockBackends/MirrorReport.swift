// SPDX-License-Identifier: Apache-2.0
// What a mirror is asked for, and what it has to say.

import LinuxSystem
import WireFormat

/// How a mirror is kept up; what is not named is done as by default.
public struct MirrorOptions: Sendable {
  /// So many bytes a second are copied at most while a half is brought up to date; 0: as many as
  /// can be.
  public var resyncBytesPerSecond: UInt64 = 256 << 20
  /// A half that has failed is tried again after so many seconds, twice as many after each time;
  /// 0: only when `putBack` is called.
  public var retrySeconds: UInt64 = 60
  /// How often marks of regions that nobody writes to are taken away.
  public var upkeepMilliseconds: UInt64 = 1000
  /// Bytes a mark stands for, a power of two from 4096 on; counts when the state is made. Nil: what
  /// keeps the state small.
  public var regionByteCount: UInt64?
  /// For tests: nothing is done in the background.
  var hasThread = true

  public init() {}
}

/// Why there is no mirror.
public enum MirrorError: Error, Equatable, Sendable {
  /// A half, by its number from 1 on, and why it cannot be used.
  case half(Int, HalfRefusal)
  /// Of halves that were named; 2 to 8 are possible.
  case halfCount(Int)
  /// None of the halves that are there has all that was written.
  case noGoodHalf
  /// Of a new mirror the first half is copied to the others, and it is not there.
  case firstMissing
  /// The state is lost, and not every half can say what it knows.
  case stateLost
  /// Halves of several mirrors, or ones that were written to separately.
  case halvesDiffer
  /// In bytes; `MirrorBackend.stateByteCount` says how long it must be.
  case stateTooSmall(needed: UInt64, actual: UInt64)
  /// It could not be read or written.
  case state(BackendError)
  /// No space for what has to be remembered.
  case memory(SystemError)

  /// What happened, and what the administrator can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .half(let half, let refusal):
      ("half \(half) \(refusal.report.reason)", refusal.report.advice)
    case .halfCount(let count):
      ("a mirror of \(count) halves", "name 2 to \(MirrorHeader.halfCountMaximum)")
    case .noGoodHalf:
      (
        "the half that has everything is not there",
        "bring it back; what the others have is older"
      )
    case .firstMissing:
      (
        "the mirror is new, and its first half is not there",
        "name the half first that has the data; it is copied to the others"
      )
    case .stateLost:
      (
        "the state of the mirror is lost, and not every half is there to say what it knows",
        "bring all halves back, or name only those that are left"
      )
    case .halvesDiffer:
      (
        "the halves were written to separately, or belong to several mirrors",
        "zero the last 8 KiB of each half that is to be overwritten"
      )
    case .stateTooSmall(let needed, let actual):
      (
        "the state of the mirror has \(actual) bytes and needs \(needed)",
        "make its file larger"
      )
    case .state(let error):
      ("the state of the mirror cannot be used: \(error.text)", "check the file of its state")
    case .memory(let error):
      ("the mirror has no memory for its maps: \(error.text)", "give the server more memory")
    }
  }
}

/// Why a half of a mirror is not used.
public enum HalfRefusal: Error, Equatable, Sendable {
  /// It could not be opened, or the mirror has no half of that number.
  case notThere
  /// Its label could not be read or written.
  case unreadable(BackendError)
  /// Its return could not be written down in the state of the mirror.
  case notRecorded(BackendError)
  /// It cannot be written to.
  case readOnly
  /// In bytes.
  case tooSmall(needed: UInt64, actual: UInt64)
  /// Of another mirror, or somebody else's bytes.
  case foreign
  /// Written to elsewhere since it left.
  case diverged
  /// It is in use already.
  case inUse
  /// Another half that is named has the same label.
  case copy
  /// Its minimum block, in bytes, is larger than that of the mirror, or than 4096.
  case coarse(minimum: UInt32)

  /// What follows "half N", and what the administrator can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notThere: ("is not there", "bring it back")
    case .unreadable(let error):
      ("has a label that cannot be read or written: \(error.text)", "check the medium")
    case .notRecorded(let error):
      (
        "cannot come back, for the state of the mirror cannot be written: \(error.text)",
        "check the file of its state"
      )
    case .readOnly: ("may not be written to", "check its permissions")
    case .tooSmall(let needed, let actual):
      ("has \(actual) bytes and needs \(needed)", "take a larger medium")
    case .foreign:
      (
        "does not belong to this mirror",
        "name the right medium, or zero the last 8 KiB of this one to have it overwritten"
      )
    case .diverged:
      (
        "was written to elsewhere since it left this mirror",
        "save what it has, then zero its last 8 KiB to have it overwritten"
      )
    case .inUse: ("is in use", "nothing is to be done")
    case .copy:
      (
        "is a copy of another one that is named, label and all",
        "name the right medium, or zero the last 8 KiB of this one to have it overwritten"
      )
    case .coarse(let minimum):
      ("has blocks of \(minimum) bytes", "take a medium with blocks like the others'")
    }
  }
}

/// What happened to a mirror; halves are numbered from 1 on, as they were named.
public enum MirrorEvent: Equatable, Sendable {
  /// A half failed and is used no more; the others go on.
  case outOfUse(half: Int, BackendError, remaining: Int)
  /// A half that is named is not used; told when the mirror begins.
  case refused(half: Int, HalfRefusal)
  /// So many bytes of a half are copied from the others.
  case resyncBegins(half: Int, byteCount: UInt64)
  /// The half has everything again, and is read from.
  case resyncEnds(half: Int)
  /// It was being written to when the server ended: so many bytes are made the same.
  case settling(byteCount: UInt64)
  /// All good halves have the same bytes again.
  case settled
  /// A region cannot be read from the only half that has it.
  case unreadable(half: Int, offset: UInt64, BackendError)
  /// What must be remembered cannot be; writes fail meanwhile.
  case cannotRecord(BackendError)
  /// The state was lost or older than the halves; they say who is right.
  case stateReplaced

  /// Somebody has to do something.
  public var isAlarm: Bool {
    switch self {
    case .outOfUse, .refused, .unreadable, .cannotRecord, .stateReplaced: true
    case .resyncBegins, .resyncEnds, .settling, .settled: false
    }
  }

  /// What happened, for the log, and what can be done about it; nil: nothing needs to be.
  public var report: (reason: String, advice: String?) {
    switch self {
    case .outOfUse(let half, let error, let remaining):
      (
        "half \(half) failed (\(error.text)) and is out of use; \(remaining) left",
        "check the medium; it is brought up to date when it works again"
      )
    case .refused(let half, let refusal):
      ("half \(half) \(refusal.report.reason)", refusal.report.advice)
    case .resyncBegins(let half, let byteCount):
      ("half \(half) is brought up to date: \(byteCount >> 20) MiB to copy", nil)
    case .resyncEnds(let half): ("half \(half) is up to date and in use", nil)
    case .settling(let byteCount):
      ("the server ended while it was writing: \(byteCount >> 20) MiB are compared", nil)
    case .settled: ("all halves are the same again", nil)
    case .unreadable(let half, let offset, let error):
      (
        "half \(half) cannot be read at \(offset) (\(error.text)), and no other half has it",
        "replace what is broken, then restore from a backup"
      )
    case .cannotRecord(let error):
      (
        "the state of the mirror cannot be written (\(error.text)); writes fail",
        "check the file of its state"
      )
    case .stateReplaced:
      (
        "the state of the mirror was lost or old; the newest half is copied to the others",
        "keep the file of the state with the server"
      )
    }
  }
}

/// For `status`.
public struct MirrorStatus: Equatable, Sendable {
  /// As `status` shows it.
  public enum HalfState: String, Equatable, Sendable {
    /// `good`: it has everything. `resyncing`: it takes writes, and what it missed is being copied.
    case good, resyncing
    /// It is neither read nor written.
    case outOfUse = "out of use"
  }
  /// One half, whether its medium is there or not.
  public struct Half: Equatable, Sendable {
    /// Its place in the configuration, from 1 on; 0: it is no longer named there.
    public var number: Int
    /// Of its medium; "missing" where there is none.
    public var summary: ByteString
    /// Only a half that is good is read from.
    public var state: HalfState
    /// What it has missed, in whole regions.
    public var staleByteCount: UInt64
  }
  /// In the order of the mirror's own state, present or not.
  public var halves: [Half]
  /// Of the mirror, without the labels of its halves.
  public var byteCount: UInt64
  /// In which good halves may differ, after a crash.
  public var unsettledByteCount: UInt64

  /// Every half has everything, and no crash has left a doubt.
  public var isWhole: Bool {
    unsettledByteCount == 0 && halves.allSatisfy { $0.state == .good }
  }
}

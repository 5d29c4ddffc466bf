// SPDX-License-Identifier: Apache-2.0
// Who may write to which medium: one writer at a time, whatever protocol it speaks.
//
// RNBD's clients say what they open a device for, and each open one counts. NBD's cannot say it, and
// those that write to one export together have always been let in; all of them count as one writer.
// What is written to an overlay's layer is nobody else's, and does not count.

import Synchronization

/// What two names for the same bytes have in common.
public enum MediumIdentity: Hashable, Sendable {
  /// A regular file.
  case file(device: UInt64, inode: UInt64)
  case blockDevice(major: UInt32, minor: UInt32)
  /// What is no file; the number is its own.
  case other(UInt64)
}

public final class WriteAccess: Sendable {
  /// How a writer gets on with others.
  public enum Claim: Sendable {
    /// One of those that share their place.
    case shared
    /// Alone.
    case exclusive
    /// The second one, too, while a virtual machine moves from one client to another.
    case migration
  }

  private struct Writers {
    var sharedCount = 0
    var singleCount = 0

    var count: Int { singleCount + (sharedCount > 0 ? 1 : 0) }
  }
  private let media = Mutex<[MediumIdentity: Writers]>([:])

  public init() {}

  /// Nil when there is a writer that does not bear it.
  public func take(_ medium: MediumIdentity, _ claim: Claim) -> WriteGrant? {
    let isGranted = media.withLock { media in
      var writers = media[medium] ?? Writers()
      switch claim {
      case .shared:
        guard writers.singleCount == 0 else { return false }
        writers.sharedCount += 1
      case .exclusive:
        guard writers.count == 0 else { return false }
        writers.singleCount += 1
      case .migration:
        guard writers.count < 2 else { return false }
        writers.singleCount += 1
      }
      media[medium] = writers
      return true
    }
    return isGranted ? WriteGrant(self, medium, claim) : nil
  }

  fileprivate func giveBack(_ medium: MediumIdentity, _ claim: Claim) {
    media.withLock { media in
      guard var writers = media[medium] else { return }
      switch claim {
      case .shared: writers.sharedCount -= 1
      case .exclusive, .migration: writers.singleCount -= 1
      }
      media[medium] = writers.count == 0 ? nil : writers
    }
  }
}

/// The right to write to a medium, for as long as the object is there.
public final class WriteGrant: Sendable {
  private let access: WriteAccess
  private let medium: MediumIdentity
  private let claim: WriteAccess.Claim

  fileprivate init(_ access: WriteAccess, _ medium: MediumIdentity, _ claim: WriteAccess.Claim) {
    self.access = access
    self.medium = medium
    self.claim = claim
  }

  deinit { access.giveBack(medium, claim) }
}

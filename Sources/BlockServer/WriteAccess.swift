// SPDX-License-Identifier: Apache-2.0
// Who may write to which medium: one writer at a time, whatever protocol it speaks, or two where the
// second one is wanted.
//
// RNBD's clients say what they open a device for, and each open one is a writer of its own. NBD's
// cannot say it, and a client of theirs may have many connections: those that come from one address,
// or belong to one attachment, are one writer. What is written to an overlay's layer is nobody else's,
// and does not count.

import Synchronization

/// What two names for the same bytes have in common.
public enum MediumIdentity: Hashable, Sendable {
  /// A regular file.
  case file(device: UInt64, inode: UInt64)
  /// Known by the numbers of the device, by whatever node it was opened.
  case blockDevice(major: UInt32, minor: UInt32)
  /// What is no file; the number is its own.
  case other(UInt64)
}

/// One that writes, as far as it can be told from others.
public struct Writer: Equatable, Sendable {
  /// Where the client is.
  public var address: ClientAddress
  /// What the client calls its device; nil when it has not said.
  public var attachment: AttachmentToken?

  public init(address: ClientAddress = .unknown, attachment: AttachmentToken? = nil) {
    self.address = address
    self.attachment = attachment
  }

  /// One client with several connections: it may have several ways to the server, and be told by its
  /// attachment; or come back by another attachment after it has died. Those of whom no address is
  /// known cannot be told apart, and are one.
  func isSame(as other: Writer) -> Bool {
    if let attachment, attachment == other.attachment { return true }
    return address == other.address
  }
}

/// The writers of all media; see the head of this file. Any thread may call.
public final class WriteAccess: Sendable {
  /// How a writer gets on with others.
  public enum Claim: Equatable, Sendable {
    /// Alone.
    case exclusive
    /// The second one, too, while a virtual machine moves from one client to another.
    case migration
  }

  fileprivate struct Entry {
    /// Nil: nobody is the same as this one.
    var writer: Writer?
    var number: UInt64
  }
  private struct State {
    var media: [MediumIdentity: [Entry]] = [:]
    var nextNumber: UInt64 = 0
  }
  private let state = Mutex(State())

  /// Nobody writes yet.
  public init() {}

  /// Nil when one of the media has a writer that does not bear it; then none is taken. `writer`: who
  /// else's grants it shares a place with; nil: nobody's.
  public func take(
    _ media: [MediumIdentity], _ claim: Claim, by writer: Writer? = nil
  ) -> WriteGrant? {
    let number: UInt64? = state.withLock { state in
      for medium in media {
        let entries = state.media[medium] ?? []
        let others = Self.writers(entries.filter { !Self.areSame($0.writer, writer) })
        guard others.count <= (claim == .migration ? 1 : 0) else { return nil }
      }
      state.nextNumber += 1
      for medium in media {
        state.media[medium, default: []].append(
          Entry(writer: writer, number: state.nextNumber))
      }
      return state.nextNumber
    }
    return number.map { WriteGrant(self, media, $0) }
  }

  /// As `take` of several media, for one.
  public func take(
    _ medium: MediumIdentity, _ claim: Claim, by writer: Writer? = nil
  ) -> WriteGrant? { take([medium], claim, by: writer) }

  /// How many write to it now.
  public func writerCount(of medium: MediumIdentity) -> Int {
    state.withLock { Self.writers($0.media[medium] ?? []).count }
  }

  private static func areSame(_ one: Writer?, _ other: Writer?) -> Bool {
    guard let one, let other else { return false }
    return one.isSame(as: other)
  }

  /// One entry for each that is another one.
  private static func writers(_ entries: [Entry]) -> [Entry] {
    var found: [Entry] = []
    for entry in entries where !found.contains(where: { areSame($0.writer, entry.writer) }) {
      found.append(entry)
    }
    return found
  }

  fileprivate func giveBack(_ media: [MediumIdentity], _ number: UInt64) {
    state.withLock { state in
      for medium in media {
        guard var entries = state.media[medium] else { continue }
        entries.removeAll { $0.number == number }
        state.media[medium] = entries.isEmpty ? nil : entries
      }
    }
  }
}

/// The right to write to media, for as long as the object is there.
public final class WriteGrant: Sendable {
  private let access: WriteAccess
  private let media: [MediumIdentity]
  private let number: UInt64

  fileprivate init(_ access: WriteAccess, _ media: [MediumIdentity], _ number: UInt64) {
    self.access = access
    self.media = media
    self.number = number
  }

  deinit { access.giveBack(media, number) }
}

// SPDX-License-Identifier: Apache-2.0
// Which reads of a session have holes that are better named than sent.
//
// Asking a file costs from a microsecond to, where a file in memory is one long piece, some
// milliseconds. Two things keep reads of files without holes as fast as ever: what is known to be
// data is not asked about again, and asking has to earn its time. A read brings a little of it, a
// hole that was found what sending it would have cost; when nothing is left nobody asks.
//
// Data that somebody has punched meanwhile is still sent as data, which is right, only longer.
// A hole is never remembered.

import BlockBackends
import LinuxSystem
import NBDProtocol

struct HoleFinder {
  /// Shorter reads are not asked about.
  static let readByteCountMinimum = 32 << 10
  /// Shorter holes are sent as zeroes: two more chunks cost as much.
  static let holeByteCountMinimum: UInt64 = 4 << 10
  /// Pieces of one reply.
  static let pieceCountMaximum = 128
  /// What `pieceCountMaximum` pieces take beside their data.
  static let headByteCountMaximum = pieceCountMaximum * ReplyStyle.headByteCountMaximum

  struct Piece: Equatable {
    var byteCount: Int
    var isHole: Bool
  }

  /// Data.
  private var known: Range<UInt64> = 0..<0
  private var creditNanoseconds: Int64 = startNanoseconds
  private static let startNanoseconds: Int64 = 1_000_000
  private static let creditMaximum: Int64 = 10_000_000
  /// A read of 128 KiB takes 20 µs and more; it brings 256 ns: 1 in 80.
  private static let readShift: Int64 = 9
  /// Not sending and not receiving 64 KiB spares some 8 µs.
  private static let holeShift: Int64 = 3

  /// Whether `pieces` should be asked about a read. Every read is to be told.
  mutating func isWorthAsking(_ range: Range<UInt64>) -> Bool {
    let byteCount = range.upperBound &- range.lowerBound
    if byteCount < UInt64(Self.readByteCountMinimum) { return false }
    if range.lowerBound >= known.lowerBound, range.upperBound <= known.upperBound { return false }
    earn(Int64(truncatingIfNeeded: byteCount) >> Self.readShift)
    return creditNanoseconds > 0
  }

  private mutating func earn(_ nanoseconds: Int64) {
    creditNanoseconds = min(creditNanoseconds &+ nanoseconds, Self.creditMaximum)
  }

  /// What a read is made of, at most `pieceCountMaximum` in order; empty when all of it is data.
  /// Pieces are multiples of `alignment`, as the range is.
  mutating func pieces(
    of range: Range<UInt64>, in backend: any BlockBackend, alignment: UInt64
  ) -> [Piece] {
    let before = MonotonicTime.now.nanoseconds
    let pieces = ask(range, backend, alignment)
    creditNanoseconds &-= Int64(truncatingIfNeeded: MonotonicTime.now.nanoseconds &- before)
    var holeByteCount: Int64 = 0
    for piece in pieces where piece.isHole { holeByteCount &+= Int64(piece.byteCount) }
    earn(holeByteCount >> Self.holeShift)
    return pieces
  }

  private mutating func ask(
    _ range: Range<UInt64>, _ backend: any BlockBackend, _ alignment: UInt64
  ) -> [Piece] {
    // How far the data goes, beyond this read.
    guard let first = try? backend.extents(in: range.lowerBound..<backend.byteCount, maximum: 1),
      let run = first.first
    else { return [] }
    let end = range.lowerBound + run.byteCount
    if !run.readsAsZeroes, end >= range.upperBound {
      remember(range.lowerBound..<end)
      return []
    }
    if run.readsAsZeroes, end >= range.upperBound {
      return [Piece(byteCount: range.count, isHole: true)]
    }
    guard
      let extents = try? backend.extents(in: range, maximum: Self.pieceCountMaximum)
    else { return [] }
    return Self.pieces(extents, in: range, alignment: alignment)
  }

  private mutating func remember(_ data: Range<UInt64>) {
    let touches = data.lowerBound <= known.upperBound && known.lowerBound <= data.upperBound
    known =
      touches
      ? min(data.lowerBound, known.lowerBound)..<max(data.upperBound, known.upperBound) : data
  }

  /// Short holes are data, and so is what is not spoken of; neighbours that are alike are one.
  static func pieces(
    _ extents: [BackendExtent], in range: Range<UInt64>, alignment: UInt64
  ) -> [Piece] {
    var pieces: [Piece] = []
    var left = range.upperBound - range.lowerBound
    func append(_ byteCount: UInt64, isHole: Bool) {
      guard byteCount > 0 else { return }
      left -= byteCount
      if pieces.last?.isHole == isHole {
        pieces[pieces.count - 1].byteCount += Int(byteCount)
      } else {
        pieces.append(Piece(byteCount: Int(byteCount), isHole: isHole))
      }
    }
    for extent in AllocationStatus.align(extents, in: range, to: alignment) {
      append(
        extent.byteCount,
        isHole: extent.flags.contains(.zero) && extent.byteCount >= Self.holeByteCountMinimum)
    }
    append(left, isHole: false)
    let isWorthIt = pieces.count <= pieceCountMaximum && pieces.contains { $0.isHole }
    return isWorthIt ? pieces : []
  }
}

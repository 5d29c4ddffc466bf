// SPDX-License-Identifier: Apache-2.0
// Which halves of a mirror are good. Reads nothing: what was found goes in, a decision comes out.
//
//   1  With a header, a half is good when the header says so and its label is the one that the
//      header says it carries, or was to get next.
//   2  A half with an older label is an old copy: it is overwritten, all of it. One that the header
//      knows to be behind, with the label it left with, is overwritten where it was missed.
//   3  A half with a newer label was used elsewhere: it is neither used nor overwritten.
//   4  Without a header, or with one that is older than every label, the labels decide, and nothing
//      is known of regions: everything is copied from the newest half.
//   5  Without a header and labels the mirror is new: the first half is copied to the others.
//   6  Somebody else's bytes are overwritten only by 5; a medium that was never used is adopted.

struct MirrorAssembly: Equatable {
  /// What was found in one place of the configuration.
  enum Found: Equatable {
    case refused(HalfRefusal)
    case medium(HalfLabel.Found)
  }

  enum Start: Equatable {
    case good
    /// `isMapValid`: what it has missed is known; else it has missed everything.
    case behind(isMapValid: Bool)
    case absent
  }

  struct Half: Equatable {
    /// Its place in the configuration; nil for one that is no longer named there.
    var place: Int?
    var start: Start
  }

  var header: MirrorHeader
  /// As many as the header has.
  var halves: [Half]
  /// The maps begin anew: all that is known is in `halves`.
  var hasNewMaps: Bool
  var events: [MirrorEvent]

  /// `byteCount`: of the mirror, for which the half in the place `smallest` has just enough room.
  static func decide(
    _ header: MirrorHeader?, _ found: [Found], byteCount: UInt64, smallest: Int,
    regionByteCount: UInt64
  ) throws(MirrorError) -> MirrorAssembly {
    guard let header else {
      return try withoutHeader(
        found, byteCount: byteCount, smallest: smallest, regionByteCount: regionByteCount)
    }
    var assembly = MirrorAssembly(
      header: header,
      halves: header.halves.map { _ in Half(place: nil, start: .absent) },
      hasNewMaps: false, events: [])
    var isHeaderOld = false
    for (place, found) in found.enumerated() {
      guard case .medium(.label(let label)) = found, label.mirror == header.mirror,
        let index = header.halves.firstIndex(where: { $0.number == label.half })
      else { continue }
      guard assembly.halves[index].place == nil else {
        throw .half(place + 1, .copy)
      }
      assembly.halves[index].place = place
      let known = header.halves[index]
      if known.isGood, label.generation == known.label || label.generation == header.generation {
        assembly.halves[index].start = .good
      } else if label.generation == known.label {
        assembly.halves[index].start = .behind(isMapValid: true)
      } else if label.generation.count < known.label.count {
        assembly.halves[index].start = .behind(isMapValid: false)
      } else {
        if label.generation.count > header.generation.count { isHeaderOld = true }
        assembly.events.append(.refused(half: place + 1, .diverged))
      }
    }
    if !assembly.halves.contains(where: { $0.start == .good }) {
      guard isHeaderOld else { throw .noGoodHalf }
      return try withoutHeader(
        found, byteCount: header.byteCount, smallest: smallest,
        regionByteCount: header.regionByteCount)
    }
    try assembly.placeRest(found)
    return assembly
  }

  /// Gives the places without a label of ours to halves that have none.
  private mutating func placeRest(_ found: [Found]) throws(MirrorError) {
    for (place, found) in found.enumerated() where !halves.contains(where: { $0.place == place }) {
      var index = halves.indices.contains(place) && halves[place].place == nil ? place : nil
      index = index ?? halves.firstIndex { $0.place == nil }
      if index == nil {
        guard halves.count < MirrorHeader.halfCountMaximum else {
          throw .halfCount(halves.count + 1)
        }
        halves.append(Half(place: nil, start: .absent))
        header.halves.append(
          MirrorHeader.Half(number: .random(in: 1 ... .max), isGood: false, label: .none))
        index = halves.count - 1
      }
      guard let index else { continue }
      halves[index].place = place
      switch found {
      case .refused(let refusal): events.append(.refused(half: place + 1, refusal))
      case .medium(.blank):
        header.halves[index] = MirrorHeader.Half(
          number: .random(in: 1 ... .max), isGood: false, label: .none)
        halves[index].start = .behind(isMapValid: false)
      case .medium(.other), .medium(.label):
        events.append(.refused(half: place + 1, .foreign))
      }
    }
  }

  private static func withoutHeader(
    _ found: [Found], byteCount: UInt64, smallest: Int, regionByteCount: UInt64
  ) throws(MirrorError) -> MirrorAssembly {
    var labels: [(place: Int, label: HalfLabel)] = []
    for (place, found) in found.enumerated() {
      if case .medium(.label(let label)) = found { labels.append((place, label)) }
    }
    guard let newest = labels.max(by: { $0.label.generation.count < $1.label.generation.count })
    else { return try new(found, byteCount: byteCount, regionByteCount: regionByteCount) }
    for (place, label) in labels {
      guard label.mirror == newest.label.mirror,
        label.generation.count < newest.label.generation.count
          || label.generation == newest.label.generation
      else { throw .halvesDiffer }
      if labels.contains(where: { $0.place != place && $0.label.half == label.half }) {
        throw .half(place + 1, .copy)
      }
    }
    // A half that cannot be asked may be newer than all that can.
    for found in found { if case .refused = found { throw .stateLost } }
    guard byteCount >= newest.label.byteCount else {
      throw .half(
        smallest + 1,
        .tooSmall(
          needed: newest.label.byteCount + HalfLabel.areaByteCount,
          actual: byteCount + HalfLabel.areaByteCount))
    }
    var assembly = MirrorAssembly(
      header: MirrorHeader(
        mirror: newest.label.mirror, byteCount: newest.label.byteCount,
        regionByteCount: regionByteCount, generation: newest.label.generation, halves: []),
      halves: [], hasNewMaps: true, events: [.stateReplaced])
    for (place, found) in found.enumerated() {
      var half = MirrorHeader.Half(number: .random(in: 1 ... .max), isGood: false, label: .none)
      var start = Start.behind(isMapValid: false)
      switch found {
      case .medium(.label(let label)):
        half.number = label.half
        half.label = label.generation
        if place == newest.place {
          half.isGood = true
          start = .good
        }
      case .medium(.blank): break
      case .medium(.other), .refused:
        start = .absent
        assembly.events.append(.refused(half: place + 1, .foreign))
      }
      assembly.header.halves.append(half)
      assembly.halves.append(Half(place: place, start: start))
    }
    return assembly
  }

  private static func new(
    _ found: [Found], byteCount: UInt64, regionByteCount: UInt64
  ) throws(MirrorError) -> MirrorAssembly {
    var assembly = MirrorAssembly(
      header: MirrorHeader(
        mirror: .random(), byteCount: byteCount, regionByteCount: regionByteCount,
        generation: .none, halves: []),
      halves: [], hasNewMaps: true, events: [])
    for (place, found) in found.enumerated() {
      var start = Start.behind(isMapValid: false)
      if case .refused(let refusal) = found {
        if place == 0 { throw .firstMissing }
        assembly.events.append(.refused(half: place + 1, refusal))
        start = .absent
      } else if place == 0 {
        start = .good
      }
      assembly.header.halves.append(
        MirrorHeader.Half(number: .random(in: 1 ... .max), isGood: place == 0, label: .none))
      assembly.halves.append(Half(place: place, start: start))
    }
    return assembly
  }
}

// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

@testable import NBDServer

@Suite("The memory of what a disk is at work on")
struct TransferMemoryTests {
  private static let slotCount = 128

  private func addresses(of place: TransferMemory.Place) -> Range<UInt> {
    let start = unsafe UInt(bitPattern: place.buffer.baseAddress)  // SAFETY: only looked at.
    return start..<(start + UInt(place.byteCount))
  }

  @Test("gives each transfer a place of its own, which begins with a page, until it is given back")
  func places() throws {
    var generator = SeededGenerator(printingAs: "places of transfers")
    var memory = try TransferMemory(slotCount: Self.slotCount)
    var held: [(slot: Int, place: TransferMemory.Place)] = []
    var freeSlots = Array(0..<Self.slotCount)
    for step in 0..<5000 {
      if !freeSlots.isEmpty, Int.random(in: 0..<5, using: &generator) > 1 {
        let longest = [4096, 16384, 16385, 131_072, 2 << 20].randomElement(using: &generator) ?? 1
        let byteCount = Int.random(in: 1...longest, using: &generator)
        let slot = freeSlots.removeLast()
        guard let place = memory.take(byteCount, slot: slot) else {
          #expect(byteCount > 16384, "a short one has room in its slot")
          freeSlots.append(slot)
          continue
        }
        let range = addresses(of: place)
        #expect(range.count == byteCount && range.lowerBound % 4096 == 0)
        #expect(
          !held.contains { addresses(of: $0.place).overlaps(range) },
          "seed \(generator.seed), step \(step)")
        held.append((slot, place))
      } else if let index = held.indices.randomElement(using: &generator) {
        let one = held.remove(at: index)
        memory.giveBack(one.place)
        freeSlots.append(one.slot)
      }
    }
  }

  @Test(
    "has room for so many long transfers, again and again",
    arguments: [
      (2 << 20, 8), (1_048_577, 8), (1 << 20, 16), (524_289, 16), (524_288, 32), (131_073, 64),
      (131_072, 128), (65_536, 256), (16_385, 256),
    ])
  func room(byteCount: Int, count: Int) throws {
    var generator = SeededGenerator(printingAs: "the order of what is given back")
    var memory = try TransferMemory(slotCount: Self.slotCount)
    for _ in 0..<3 {
      var held: [TransferMemory.Place] = []
      while let place = memory.take(byteCount, slot: 0) { held.append(place) }
      #expect(held.count == count)
      for place in held.shuffled(using: &generator) { memory.giveBack(place) }
    }
  }

  @Test("asks for huge pages, and gives back what a long queue has taken")
  func pages() throws {
    var memory = try TransferMemory(slotCount: Self.slotCount)
    var held: [TransferMemory.Place] = []
    while let place = memory.take(2 << 20, slot: 0) { held.append(place) }
    // SAFETY: the places are this test's.
    for place in held { unsafe place.buffer.initializeMemory(as: UInt8.self, repeating: 1) }
    #expect(held.reduce(0) { $0 + residentPageCount(of: $1) } == 16 * 256)
    for place in held { memory.giveBack(place) }
    #expect(held.reduce(0) { $0 + residentPageCount(of: $1) } == 8 * 256)
    if FileManager.default.fileExists(atPath: "/sys/kernel/mm/transparent_hugepage") {
      #expect(try flags(ofMappingAt: addresses(of: held[0]).lowerBound).contains("hg"))
    } else {
      print("not looked at: this kernel has no transparent huge pages")
    }
    extendLifetime(memory)
  }

  private func residentPageCount(of place: TransferMemory.Place) -> Int {
    var states = [UInt8](repeating: 0, count: place.byteCount / 4096)
    // SAFETY: a byte for each page of a mapping that is there.
    #expect(unsafe mincore(place.buffer.baseAddress, place.byteCount, &states) == 0)
    return states.count { $0 & 1 == 1 }
  }

  /// Of the mapping in /proc/self/smaps.
  private func flags(ofMappingAt address: UInt) throws -> [Substring] {
    var isWanted = false
    let file = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
    let text = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: " ")
      let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
      if ends.count == 2 { isWanted = ends[0] <= address && address < ends[1] }
      if isWanted, fields[0] == "VmFlags:" { return fields }
    }
    return []
  }
}

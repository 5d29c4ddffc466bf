// SPDX-License-Identifier: Apache-2.0
// Every stack of backends does what an array of bytes would do, whatever the order of operations.

import BlockBackends
import Foundation
import TestSupport
import Testing
import WireFormat

/// One random operation; ranges are short and long, aligned to blocks and not.
enum RandomOperation: CustomStringConvertible {
  case read(Range<Int>)
  case write(Range<Int>, UInt8, isDurable: Bool)
  case zero(Range<Int>, mayPunch: Bool)
  case trim(Range<Int>)
  case flush

  init(
    byteCount: Int, alignment: Int, using generator: inout SeededGenerator
  ) {
    let blocks = byteCount / alignment
    let start = Int.random(in: 0...blocks, using: &generator)
    let longest = [0, 1, 700, 70_000, blocks].randomElement(using: &generator) ?? 0
    let count = Int.random(in: 0...min(blocks - start, longest), using: &generator)
    var range = (start * alignment)..<((start + count) * alignment)
    // Often at the edges of an overlay's blocks, where mistakes live.
    if Int.random(in: 0..<3, using: &generator) == 0 {
      let block = Int.random(in: 0...(byteCount / 65536), using: &generator) * 65536
      range = block..<min(byteCount, block + 65536 * Int.random(in: 0...3, using: &generator))
      if block > byteCount || byteCount % alignment != 0 { range = 0..<0 }
    }
    switch Int.random(in: 0..<10, using: &generator) {
    case 0..<4: self = .read(range)
    case 4..<7:
      self = .write(
        range, UInt8.random(in: 1...255, using: &generator),
        isDurable: Bool.random(using: &generator))
    case 7: self = .zero(range, mayPunch: Bool.random(using: &generator))
    case 8: self = .trim(range)
    default: self = .flush
    }
  }

  var description: String {
    switch self {
    case .read(let range): "read \(range)"
    case .write(let range, let value, let isDurable): "write \(range) \(value) \(isDurable)"
    case .zero(let range, let mayPunch): "zero \(range) \(mayPunch)"
    case .trim(let range): "trim \(range)"
    case .flush: "flush"
    }
  }
}

extension Range<Int> {
  var unsigned: Range<UInt64> { UInt64(lowerBound)..<UInt64(upperBound) }
}

@Suite("Random operations")
struct RandomOperationTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func run(
    _ stack: BackendStack, byteCount: Int, operations: Int
  ) throws {
    var generator = SeededGenerator(printingAs: "random operations on \(stack.testDescription)")
    let backend = try stack.make(directory, byteCount)
    #expect(backend.byteCount == UInt64(byteCount))
    var model = Data(count: byteCount)
    for number in 0..<operations {
      let operation = RandomOperation(
        byteCount: byteCount, alignment: stack.alignment, using: &generator)
      switch operation {
      case .read(let range):
        let found = Data(try backend.bytes(range.count, at: UInt64(range.lowerBound)))
        try #require(
          found == model.subdata(in: range),
          "operation \(number), \(operation), seed \(generator.seed)")
      case .write(let range, let value, let isDurable):
        try backend.write(
          [UInt8](repeating: value, count: range.count), at: UInt64(range.lowerBound),
          isDurable: isDurable)
        model.replaceSubrange(range, with: Data(repeating: value, count: range.count))
      case .zero(let range, let mayPunch):
        try backend.writeZeroes(range.unsigned, mayPunch: mayPunch, isDurable: false)
        model.replaceSubrange(range, with: Data(count: range.count))
      case .trim(let range):
        try backend.trim(range.unsigned, isDurable: false)
        // Undefined is what it reads as now, but not what it reads as later: that must stay.
        let left = Data(try backend.bytes(range.count, at: UInt64(range.lowerBound)))
        model.replaceSubrange(range, with: left)
      case .flush:
        try backend.flush()
      }
    }
    let found = Data(try backend.bytes(byteCount, at: 0))
    #expect(found == model, "seed \(generator.seed)")
  }

  @Test("leave what an array of bytes would hold", arguments: BackendStack.all)
  func matchesModel(stack: BackendStack) throws {
    try run(stack, byteCount: 3 * 65536 + 1234, operations: 1000)
  }

  @Test(
    "go past the page cache unharmed",
    .enabled(if: directIsPossible, "the file system of /tmp has no direct input and output"))
  func direct() throws {
    try run(.direct, byteCount: 64 * 4096, operations: 1000)
  }

  static let directIsPossible: Bool = {
    if mayNotSkip { return true }
    guard let directory = try? TemporaryDirectory() else { return false }
    return (try? BackendStack.direct.make(directory, 4096)) != nil
  }()
}

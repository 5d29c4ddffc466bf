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
  case readWithoutWaiting(Range<Int>)
  case write(Range<Int>, UInt8, isDurable: Bool)
  case zero(Range<Int>, mayPunch: Bool, mustBeFast: Bool)
  case trim(Range<Int>)
  case extents(Range<Int>, maximum: Int)
  case flush

  init(
    byteCount: Int, alignment: Int, using generator: inout SeededGenerator
  ) {
    func below(_ bound: Int) -> Int { Int(truncatingIfNeeded: generator.next() >> 33) % bound }
    let blocks = byteCount / alignment
    let start = below(blocks + 1)
    // Mostly short: a long one costs as much as a hundred of them.
    let longest =
      switch below(64) {
      case 0: blocks
      case 1..<4: max(1, 70_000 / alignment)
      case 4..<8: 0
      case 8..<32: 1
      default: max(1, 700 / alignment)
      }
    let count = below(min(blocks - start, longest) + 1)
    var range = (start * alignment)..<((start + count) * alignment)
    // Often at the edges of an overlay's blocks, where mistakes live.
    if below(4) == 0 {
      let edge = below(byteCount / 65536 + 1) * 65536
      let near = edge + (below(5) - 2) * alignment
      let end = near + (below(8) == 0 ? 65536 : below(5) * alignment)
      range = max(0, min(near, byteCount))..<max(0, min(end, byteCount))
    }
    switch below(20) {
    case 0..<5: self = .read(range)
    case 5, 6: self = .readWithoutWaiting(range)
    case 7..<13: self = .write(range, UInt8(1 + below(255)), isDurable: below(2) == 0)
    case 13, 14: self = .zero(range, mayPunch: below(2) == 0, mustBeFast: below(4) == 0)
    case 15: self = .trim(range)
    case 16, 17: self = .extents(range, maximum: 1 + below(5))
    default: self = .flush
    }
  }

  var description: String {
    switch self {
    case .read(let range): "read \(range)"
    case .readWithoutWaiting(let range): "read \(range) without waiting"
    case .write(let range, let value, let isDurable): "write \(range) \(value) \(isDurable)"
    case .zero(let range, let mayPunch, let mustBeFast):
      "zero \(range) \(mayPunch) \(mustBeFast)"
    case .trim(let range): "trim \(range)"
    case .extents(let range, let maximum): "extents \(range) \(maximum)"
    case .flush: "flush"
    }
  }
}

extension Range<Int> {
  var unsigned: Range<UInt64> { UInt64(lowerBound)..<UInt64(upperBound) }
}

/// An array of bytes beside a backend, to which the same is done.
@safe final class BackendModel {
  struct Difference: Error, CustomStringConvertible { let description: String }

  private let backend: any BlockBackend
  /// What the backend should hold, and memory for what it says.
  private let model: UnsafeMutableRawBufferPointer
  private let buffer: UnsafeMutableRawBufferPointer

  init(_ backend: any BlockBackend, byteCount: Int) {
    self.backend = backend
    unsafe model = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe buffer = .allocate(byteCount: byteCount + 1, alignment: 4096)
    unsafe model.initializeMemory(as: UInt8.self, repeating: 0)  // SAFETY: allocated above.
  }

  deinit {
    unsafe model.deallocate()  // SAFETY: allocated in `init`, and nobody's but ours.
    unsafe buffer.deallocate()
  }

  /// Memory at an odd address, as a payload inside a stream has it.
  private func memory(_ count: Int) -> UnsafeMutableRawBufferPointer {
    // SAFETY: the buffer is one byte longer than any range.
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[1..<(1 + count)])
  }

  private func isSame(_ range: Range<Int>) -> Bool {
    if range.isEmpty { return true }
    // SAFETY: both are as long as the range.
    return unsafe memcmp(
      model.baseAddress! + range.lowerBound, buffer.baseAddress! + 1, range.count) == 0
  }

  private func set(_ range: Range<Int>, to value: UInt8) {
    // SAFETY: inside the model.
    unsafe UnsafeMutableRawBufferPointer(rebasing: model[range])
      .initializeMemory(as: UInt8.self, repeating: value)
  }

  func apply(_ operation: RandomOperation) throws {
    switch operation {
    case .read(let range):
      try unsafe backend.read(into: memory(range.count), at: UInt64(range.lowerBound))
      guard isSame(range) else { throw Difference(description: "other bytes") }
    case .readWithoutWaiting(let range):
      guard
        try unsafe backend.readWithoutWaiting(
          into: memory(range.count), at: UInt64(range.lowerBound))
      else { return }
      guard isSame(range) else { throw Difference(description: "other bytes") }
    case .write(let range, let value, let isDurable):
      set(range, to: value)
      // SAFETY: as long as the range.
      unsafe memory(range.count).initializeMemory(as: UInt8.self, repeating: value)
      try unsafe backend.write(
        UnsafeRawBufferPointer(memory(range.count)), at: UInt64(range.lowerBound),
        isDurable: isDurable)
    case .zero(let range, let mayPunch, let mustBeFast):
      do throws(BackendError) {
        try backend.writeZeroes(
          range.unsigned, mayPunch: mayPunch, isDurable: false, mustBeFast: mustBeFast)
      } catch .notFast where mustBeFast {
        // What it did in part is done whole, as a client would.
        try backend.writeZeroes(range.unsigned, mayPunch: mayPunch, isDurable: false)
      }
      set(range, to: 0)
    case .trim(let range):
      try backend.trim(range.unsigned, isDurable: false)
      // Undefined is what it reads as now, but not what it reads as later: that must stay.
      // SAFETY: inside the model.
      try unsafe backend.read(
        into: UnsafeMutableRawBufferPointer(rebasing: model[range]), at: UInt64(range.lowerBound))
    case .extents(let range, let maximum): try checkExtents(range, maximum)
    case .flush: try backend.flush()
    }
  }

  private func checkExtents(_ range: Range<Int>, _ maximum: Int) throws {
    let extents = try backend.extents(in: range.unsigned, maximum: maximum)
    guard extents.count <= maximum, extents.isEmpty == range.isEmpty else {
      throw Difference(description: "\(extents.count) extents")
    }
    var at = range.lowerBound
    var last: BackendExtent?
    for extent in extents {
      guard extent.byteCount > 0, extent.byteCount <= UInt64(range.upperBound - at) else {
        throw Difference(description: "an extent of \(extent.byteCount) bytes at \(at)")
      }
      if let last, last.isHole == extent.isHole, last.readsAsZeroes == extent.readsAsZeroes {
        throw Difference(description: "two extents that are one, at \(at)")
      }
      let end = at + Int(extent.byteCount)
      if extent.readsAsZeroes {
        // SAFETY: inside the model.
        guard unsafe model[at..<end].allSatisfy({ $0 == 0 }) else {
          throw Difference(description: "no zeroes at \(at)..<\(end)")
        }
      }
      at = end
      last = extent
    }
  }
}

@Suite("Random operations")
struct RandomOperationTests {
  private func run(_ stack: BackendStack, inMemory: Bool, operations: Int) throws {
    let directory = try TemporaryDirectory(inMemory: inMemory)
    var generator = SeededGenerator(printingAs: "random operations on \(stack.testDescription)")
    let wanted = 3 * 65536 + 1234
    let byteCount = max(wanted / stack.unit, 1) * stack.unit
    let backend = try stack.make(directory, byteCount)
    try #require(backend.byteCount == UInt64(byteCount))
    let model = BackendModel(backend, byteCount: byteCount)
    for number in 0..<operations {
      let operation = RandomOperation(
        byteCount: byteCount, alignment: stack.alignment, using: &generator)
      do {
        try model.apply(operation)
      } catch {
        Issue.record("operation \(number), \(operation), seed \(generator.seed): \(error)")
        return
      }
    }
    try model.apply(.read(0..<byteCount))
  }

  /// A million in total, over all stacks.
  @Test("leave what an array of bytes would hold", arguments: BackendStack.all)
  func matchesModel(stack: BackendStack) throws {
    try run(stack, inMemory: true, operations: 1_000_000 / BackendStack.all.count + 1)
  }

  @Test(
    "go past the page cache and to the disk unharmed",
    .enabled(if: directIsPossible, "the file system of /tmp has no direct input and output"),
    arguments: [BackendStack.direct, .smallDirect, BackendStack.all[1]])
  func direct(stack: BackendStack) throws {
    try run(stack, inMemory: false, operations: 500)
  }

  static let directIsPossible: Bool = {
    if mayNotSkip { return true }
    guard let directory = try? TemporaryDirectory() else { return false }
    return (try? BackendStack.direct.make(directory, 4096)) != nil
  }()
}

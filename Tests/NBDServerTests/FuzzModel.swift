// SPDX-License-Identifier: Apache-2.0
// What the fuzzer knows of an export: what it holds, and what each request must be answered with.

import BlockBackends
import BlockServer
import NBDProtocol
import Synchronization
import TestSupport
import WireFormat

/// The bytes of an export as far as they are known: sectors that a lost session may have written
/// to, or that were trimmed, may hold anything.
struct FuzzContents {
  private static let sectorByteCount = 512
  private(set) var bytes: [UInt8]
  private var isUnknown: [Bool]

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    isUnknown = [Bool](repeating: false, count: bytes.count / Self.sectorByteCount + 1)
  }

  mutating func write(_ contents: ArraySlice<UInt8>, at offset: Int) {
    bytes.replaceSubrange(offset..<(offset + contents.count), with: contents)
    // Only whole sectors are known again.
    let first = (offset + Self.sectorByteCount - 1) / Self.sectorByteCount
    let last = (offset + contents.count) / Self.sectorByteCount
    for sector in first..<max(first, last) { isUnknown[sector] = false }
  }

  mutating func forget(_ range: Range<Int>) {
    for sector in Self.sectors(of: range) { isUnknown[sector] = true }
  }

  private static func sectors(of range: Range<Int>) -> Range<Int> {
    let first = range.lowerBound / sectorByteCount
    return range.isEmpty ? first..<first : first..<((range.upperBound - 1) / sectorByteCount + 1)
  }

  /// What a READ of the range may say now: nil where anything is right.
  struct Expectation {
    var bytes: ArraySlice<UInt8>
    var unknown: [Range<Int>]
  }

  func expectation(_ range: Range<Int>) -> Expectation {
    var unknown: [Range<Int>] = []
    for sector in Self.sectors(of: range) where isUnknown[sector] {
      let start = sector * Self.sectorByteCount
      unknown.append((start..<(start + Self.sectorByteCount)).clamped(to: range))
    }
    return Expectation(bytes: bytes[range], unknown: unknown)
  }
}

extension FuzzContents.Expectation {
  /// Where the first wrong byte is, in the export.
  func firstDifference(_ data: [UInt8]) -> Int? {
    guard data.count == bytes.count else { return bytes.startIndex }
    var data = data
    for range in unknown {
      let start = range.lowerBound - bytes.startIndex
      data.replaceSubrange(start..<(start + range.count), with: bytes[range])
    }
    if data[...] == bytes { return nil }
    return bytes.indices.first { data[$0 - bytes.startIndex] != bytes[$0] }
  }
}

/// An export that is fuzzed, and what is known of it.
struct FuzzExport {
  var name: ByteString
  var alignment: UInt64 = 1
  var isReadOnly = false
  /// Each session begins with the same contents.
  var isFresh = false
  let initial: [UInt8]
  var contents: FuzzContents
  var byteCount: UInt64 { UInt64(initial.count) }

  init(
    _ name: ByteString, _ initial: [UInt8], alignment: UInt64 = 1, isReadOnly: Bool = false,
    isFresh: Bool = false
  ) {
    self.name = name
    self.initial = initial
    self.alignment = alignment
    self.isReadOnly = isReadOnly
    self.isFresh = isFresh
    contents = FuzzContents(initial)
  }
}

/// The rules of requests, written a second time. Source: NBD `doc/proto.md`, "Request types",
/// "Command flags" and "Error values".
struct FuzzOracle {
  var style: ReplyStyle
  var hasContext: Bool
  var told: TransmissionFlags
  var byteCount: UInt64
  var alignment: UInt64

  static let payloadByteCountMaximum: UInt64 = 32 << 20

  /// Every error that may answer the request; none: it must succeed. `query`: the payload of a
  /// BLOCK_STATUS that has one.
  func refusals(of request: ExtendedRequest, query: [UInt8]? = nil) -> [ErrorNumber] {
    let command = request.command
    var errors: [ErrorNumber] = []
    var known: CommandFlags = told.contains(.readOnly) || told.contains(.sendFUA) ? .fua : []
    let isRanged: Bool
    switch command {
    case .read:
      isRanged = true
      if style != .simple { known.insert(.df) }
    case .write:
      isRanged = true
      if style == .extended {
        known.insert(.payloadLength)
        if !request.flags.contains(.payloadLength) { errors.append(.einval) }
      }
    case .trim:
      isRanged = true
      if !told.contains(.sendTrim), !told.contains(.readOnly) { errors.append(.einval) }
    case .writeZeroes:
      isRanged = true
      known.formUnion(told.contains(.sendFastZero) ? [.noHole, .fastZero] : .noHole)
    case .cache:
      isRanged = true
      if !told.contains(.sendCache) { errors.append(.einval) }
    case .blockStatus:
      isRanged = true
      known.insert(.reqOne)
      if style == .extended { known.insert(.payloadLength) }
      if !hasContext { errors.append(.einval) }
    case .flush:
      isRanged = false
      if request.offset != 0 || request.length != 0 { errors.append(.einval) }
    default: return [.einval]
    }
    if !request.flags.isSubset(of: known) { errors.append(.einval) }
    let writes = command == .write || command == .trim || command == .writeZeroes
    if writes, told.contains(.readOnly) { errors.append(.eperm) }

    var length = request.length
    if command == .blockStatus {
      if let query {
        guard let decoded = try? BlockStatusQuery(decoding: query.span),
          decoded.contextIDs == [MetaContext.allocationID]
        else { return errors + [.einval] }
        length = decoded.length
      }
      if length == 0 { errors.append(.einval) }
    }
    guard isRanged else { return errors }
    let (end, overflow) = request.offset.addingReportingOverflow(length)
    if overflow || end > byteCount {
      errors.append(command == .write || command == .writeZeroes ? .enospc : .einval)
    }
    if request.offset % alignment != 0 || length % alignment != 0 { errors.append(.einval) }
    if command == .read || command == .write, length > Self.payloadByteCountMaximum {
      errors.append(.einval)
      if style != .simple { errors.append(.eoverflow) }
    }
    return errors
  }
}

/// Memory in blocks of 512 bytes.
final class BlockyBackend: BlockBackend {
  private let memory: MemoryBackend
  let byteCount: UInt64
  let blockSizes = BackendBlockSizes(minimum: 512, preferred: 4096)
  let capabilities: BackendCapabilities = [.write, .trim, .isShared]

  init(byteCount: Int) {
    memory = MemoryBackend(byteCount: byteCount)
    self.byteCount = UInt64(byteCount)
  }

  private func check(_ offset: UInt64, _ count: UInt64) throws(BackendError) {
    guard (offset | count) % 512 == 0 else { throw .range }
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BackendError) {
    try check(offset, UInt64(buffer.count))
    try unsafe memory.read(into: buffer, at: offset)  // SAFETY: the caller's buffer, handed on.
  }
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try check(offset, UInt64(bytes.count))
    // SAFETY: the caller's buffer, handed on.
    try unsafe memory.write(bytes, at: offset, isDurable: isDurable)
  }
  func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try check(range.lowerBound, range.upperBound)
    try memory.writeZeroes(
      range, mayPunch: mayPunch, isDurable: isDurable, mustBeFast: mustBeFast)
  }
  func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try check(range.lowerBound, range.upperBound)
    try memory.trim(range, isDurable: isDurable)
  }
  func flush() throws(BackendError) {}

  /// What is there to the byte: extents do not keep to the blocks, as those of a file system may
  /// not. At most 64 KiB of it.
  func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    let count = Int(min(65536, range.upperBound - range.lowerBound))
    var bytes = [UInt8](repeating: 0, count: count)
    do {
      // SAFETY: the array's own storage.
      try unsafe bytes.withUnsafeMutableBytes {
        try unsafe memory.read(into: $0, at: range.lowerBound)
      }
    } catch {
      throw .truncated
    }
    var extents: [BackendExtent] = []
    var start = 0
    for index in 1...count where index == count || (bytes[index] == 0) != (bytes[start] == 0) {
      guard extents.count < maximum else { break }
      let isZero = bytes[start] == 0
      extents.append(
        BackendExtent(byteCount: UInt64(index - start), isHole: isZero, readsAsZeroes: isZero))
      start = index
    }
    return extents
  }
}

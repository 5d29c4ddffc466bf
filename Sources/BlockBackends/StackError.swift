// SPDX-License-Identifier: Apache-2.0

/// Why backends cannot be put together.
public enum StackError: Error, Equatable, Sendable {
  /// Of `kind`: there must be at least so many below it.
  case tooFew(kind: String, wanted: Int, actual: Int)
  /// Nothing is left of a part when it is cut to whole blocks or chunks.
  case partTooSmall(kind: String, part: Int, byteCount: UInt64, needed: UInt64)
  /// More than a medium can have: 2^63 - 1.
  case tooLarge(kind: String)
  /// Not a power of two in the range, or not a multiple of the blocks below.
  case chunk(UInt64, minimum: UInt64, maximum: UInt64)
  /// No power of two from 1 to 65536.
  case blockSize(UInt64)

  /// What does not fit, and what to write instead.
  public var report: (reason: String, advice: String) {
    switch self {
    case .tooFew(let kind, let wanted, let actual):
      ("a \(kind) of \(actual) media", "name at least \(wanted)")
    case .partTooSmall(let kind, let part, let byteCount, let needed):
      (
        "medium \(part + 1) of the \(kind) has \(byteCount) bytes, and \(needed) are the least",
        "leave it out, or make it larger"
      )
    case .tooLarge(let kind):
      ("the media of the \(kind) are larger than 2^63 bytes together", "name fewer")
    case .chunk(let value, let minimum, let maximum):
      (
        "chunks of \(value) bytes",
        "choose a power of two from \(minimum) to \(maximum)"
      )
    case .blockSize(let value):
      ("blocks of \(value) bytes", "choose a power of two from 1 to 65536")
    }
  }
}

/// What several backends can do together, and in which blocks.
struct CommonProperties {
  var blockSizes = BackendBlockSizes(minimum: 1, preferred: 4096)
  var capabilities: BackendCapabilities = [.write, .trim, .isShared, .fastZeroes]

  init(_ parts: [any BlockBackend]) {
    var isRotational = false
    for part in parts {
      blockSizes.minimum = max(blockSizes.minimum, part.blockSizes.minimum)
      blockSizes.preferred = max(blockSizes.preferred, part.blockSizes.preferred)
      capabilities.formIntersection(part.capabilities)
      if part.capabilities.contains(.rotational) { isRotational = true }
    }
    if isRotational { capabilities.insert(.rotational) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Who works on which chunk. Chunks belong to the session and not to a path: a client that loses a
// path repeats its requests over another, in the same chunks, while what it sent first may still
// be executed here. The repetition is held back until then.

struct ServerChunks: Sendable {
  private struct Chunk {
    /// Being executed; nil when the chunk is the client's.
    var executing: ServerRequest?
    /// Came over another path in the meantime.
    var held: ServerRequest?
  }

  enum Arrival: Equatable { case begin, held, inUse }

  private var chunks: [Chunk]
  private(set) var executingCount = 0

  init(queueDepth: UInt16) { chunks = [Chunk](repeating: Chunk(), count: Int(queueDepth)) }

  /// `isLive` of the path that a request which was held back before has come over.
  mutating func arrive(_ request: ServerRequest, isHolderLive: Bool) -> Arrival {
    let index = Int(request.chunk)
    guard let executing = chunks[index].executing else {
      chunks[index].executing = request
      executingCount += 1
      return .begin
    }
    guard executing.path != request.path, chunks[index].held == nil || !isHolderLive else {
      return .inUse
    }
    chunks[index].held = request
    return .held
  }

  func executing(_ chunk: UInt16) -> ServerRequest? { chunks[Int(chunk)].executing }

  func heldPath(_ chunk: UInt16) -> ServerPathToken? { chunks[Int(chunk)].held?.path }

  /// The request was executed: what it was, and what is to be begun in its place. Nil when
  /// nothing is executed there: a mistake of the driver's.
  mutating func finish(_ chunk: UInt16) -> (ended: ServerRequest, held: ServerRequest?)? {
    let index = Int(chunk)
    guard let ended = chunks[index].executing else { return nil }
    let held = chunks[index].held
    chunks[index].executing = nil
    chunks[index].held = nil
    executingCount -= 1
    return (ended, held)
  }

  mutating func begin(_ request: ServerRequest) {
    chunks[Int(request.chunk)].executing = request
    executingCount += 1
  }
}

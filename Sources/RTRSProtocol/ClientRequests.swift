// SPDX-License-Identifier: Apache-2.0
// Which request of a client is where. A request is a number below a count that the driver chose:
// an index into its own buffers. A chunk is the server's, and is taken when a request is first
// sent.
//
//            accept               send               answered
//     free ─────────► waiting ───────────► sent ───────────────► free
//                        ▲                   │ its path is lost
//                        │ torn down         ▼
//                        └─────────────── stranded
//
// A chunk is held until the answer, over losses: the server may still be at work on it for a path
// that it has not given up, and must find the same request there. One chunk is kept for the
// messages of the control conversation, so that devices can be opened again while every other
// chunk is held.

/// Where the data of a request go.
public enum RequestDirection: Equatable, Sendable {
  /// With the request, or nowhere.
  case toServer
  /// The server writes them into the client's memory.
  case toClient
}

struct ClientRequests: Sendable {
  enum Place: Equatable { case free, waiting, sent, stranded }

  struct Entry {
    var place = Place.free
    var direction = RequestDirection.toServer
    var isControl = false
    var userByteCount: UInt16 = 0
    var dataByteCount: UInt32 = 0
    /// `none` until first sent.
    var chunk: UInt16 = ClientRequests.none
    var path: UInt8 = 0
    var connection: UInt16 = 0
    /// The order of sending, to repeat in the same.
    var order: UInt64 = 0
    /// In the list of those that wait.
    var next: UInt16 = ClientRequests.none
  }

  static let none = UInt16.max

  var entries: [Entry]
  private var first = none
  private var last = none
  /// The request that holds a chunk, or `none`.
  private var holders: [UInt16] = []
  /// Chunks that no request holds: a stack.
  private var freeChunks: [UInt16] = []
  private var freeChunkCount = 0
  private var orderCounter: UInt64 = 0
  private(set) var waitingCount = 0
  private(set) var outstandingCount = 0

  /// `count` requests of devices, and one more, the last, for control messages.
  init(count: UInt16) {
    precondition(count < UInt16.max, "the number of the control request must exist")
    entries = [Entry](repeating: Entry(), count: Int(count) + 1)
    entries[Int(count)].isControl = true
  }

  var controlRequest: UInt16 { UInt16(truncatingIfNeeded: entries.count - 1) }

  /// Once, when the depth is known; at least 2.
  mutating func setDepth(_ depth: UInt16) {
    holders = [UInt16](repeating: Self.none, count: Int(depth))
    freeChunks = []
    freeChunks.reserveCapacity(Int(depth) - 1)
    // The lowest on top; the last is the control message's.
    for chunk in stride(from: Int(depth) - 2, through: 0, by: -1) {
      freeChunks.append(UInt16(truncatingIfNeeded: chunk))
    }
    freeChunkCount = freeChunks.count
    entries[entries.count - 1].chunk = depth - 1
  }

  mutating func accept(
    _ request: UInt16, _ direction: RequestDirection, dataByteCount: UInt32,
    userByteCount: UInt16
  ) {
    let index = Int(request)
    precondition(entries[index].place == .free, "a request is used once at a time")
    entries[index].direction = direction
    entries[index].dataByteCount = dataByteCount
    entries[index].userByteCount = userByteCount
    outstandingCount += 1
    append(request)
  }

  private mutating func append(_ request: UInt16) {
    entries[Int(request)].place = .waiting
    waitingCount += 1
    // A control message goes before everything: devices wait for it.
    if entries[Int(request)].isControl { return prepend(request) }
    entries[Int(request)].next = Self.none
    if last == Self.none { first = request } else { entries[Int(last)].next = request }
    last = request
  }

  private mutating func prepend(_ request: UInt16) {
    entries[Int(request)].next = first
    first = request
    if last == Self.none { last = request }
  }

  /// The request to be sent next; nil when none waits, or none may: I/O is held back, or no chunk
  /// is free.
  func nextToSend(isHeld: Bool) -> UInt16? {
    guard first != Self.none else { return nil }
    if entries[Int(first)].isControl { return first }
    guard !isHeld, entries[Int(first)].chunk != Self.none || freeChunkCount > 0 else { return nil }
    return first
  }

  /// Takes the first of those that wait. True when it was sent before.
  mutating func send(path: UInt8, connection: UInt16) -> Bool {
    let request = first
    let index = Int(request)
    first = entries[index].next
    if first == Self.none { last = Self.none }
    waitingCount -= 1
    if entries[index].chunk == Self.none {
      freeChunkCount -= 1
      entries[index].chunk = freeChunks[freeChunkCount]
    }
    let isRepeated = holders[Int(entries[index].chunk)] == request
    holders[Int(entries[index].chunk)] = request
    orderCounter &+= 1
    if !isRepeated { entries[index].order = orderCounter }
    entries[index].place = .sent
    entries[index].path = path
    entries[index].connection = connection
    return isRepeated
  }

  /// The request that an answer is for; nil when there is none on that path and connection.
  func sent(in chunk: UInt32, path: UInt8, connection: UInt16) -> UInt16? {
    guard chunk < UInt32(holders.count) else { return nil }
    let request = holders[Int(chunk)]
    guard request != Self.none else { return nil }
    let entry = entries[Int(request)]
    guard entry.place == .sent, entry.path == path, entry.connection == connection else {
      return nil
    }
    return request
  }

  /// It was answered, or given up while it waited. What is sent or stranded can not be given up:
  /// the server may still write.
  mutating func finish(_ request: UInt16) {
    let index = Int(request)
    if entries[index].place == .waiting { remove(request) }
    entries[index].place = .free
    outstandingCount -= 1
    let chunk = entries[index].chunk
    guard chunk != Self.none else { return }
    if holders[Int(chunk)] == request { holders[Int(chunk)] = Self.none }
    guard !entries[index].isControl else { return }
    entries[index].chunk = Self.none
    freeChunks[freeChunkCount] = chunk
    freeChunkCount += 1
  }

  private mutating func remove(_ request: UInt16) {
    var before = Self.none
    var at = first
    while at != Self.none, at != request {
      before = at
      at = entries[Int(at)].next
    }
    guard at == request else { return }
    let after = entries[Int(request)].next
    if before == Self.none { first = after } else { entries[Int(before)].next = after }
    if last == request { last = before }
    waitingCount -= 1
  }

  /// What is out on the path waits for its queue pairs to be destroyed.
  mutating func strand(path: UInt8) {
    for index in entries.indices
    where entries[index].place == .sent && entries[index].path == path {
      entries[index].place = .stranded
    }
  }

  /// No queue pair of the path is left: what was out on it waits again, before what has waited
  /// until now, the oldest first. How many those are.
  mutating func release(path: UInt8) -> Int {
    var count = 0
    while true {
      var youngest = Self.none
      var order: UInt64 = 0
      for index in entries.indices
      where entries[index].place == .stranded && entries[index].path == path
        && (youngest == Self.none || entries[index].order > order)
      {
        youngest = UInt16(truncatingIfNeeded: index)
        order = entries[index].order
      }
      guard youngest != Self.none else { return count }
      entries[Int(youngest)].place = .waiting
      waitingCount += 1
      count += 1
      if first != Self.none, entries[Int(first)].isControl {
        // Behind the control message, which is the only one of its kind.
        entries[Int(youngest)].next = entries[Int(first)].next
        entries[Int(first)].next = youngest
        if last == first { last = youngest }
      } else {
        prepend(youngest)
      }
    }
  }
}

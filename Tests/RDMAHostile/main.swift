// SPDX-License-Identifier: Apache-2.0
// A client that breaks every rule of RTRS and RNBD that can be broken from outside, for guests: it
// prints what it has done, and how often the server closed it.
//
// Usage: RDMAHostile ADDRESS PORT ROUNDS SEED

import Glibc
import LinuxSystem
import RDMAVerbs
import RNBDProtocol
import RTRSProtocol
import WireFormat

/// Random numbers that a seed repeats.
struct Dice {
  var state: UInt64
  /// Source: splitmix64 of Vigna.
  mutating func next(below bound: UInt64) -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return (value ^ (value >> 31)) % bound
  }
  mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next(below: 256)) }
}

func say(_ text: String) { _ = writeStandardOutput(ByteString(text + "\n")) }

/// One path with two connections, as far as the server lets it come.
struct HostilePath: ~Copyable {
  let channel: EventChannel
  var connections: [Connection] = []
  var chunkAddress: UInt64 = 0
  var chunkKey: UInt32 = 0
  var geometry: ChunkGeometry?

  /// Goes away in this order.
  final class Connection {
    let identifier: ConnectionIdentifier
    let memory: MemoryRegion
    let completions: CompletionQueue
    let domain: ProtectionDomain

    /// Of an identifier that is bound to a device.
    init(_ identifier: consuming ConnectionIdentifier) throws(VerbsError) {
      let domain = try ProtectionDomain(on: identifier)
      let completions = try CompletionQueue(on: identifier, entryCount: 256)
      _ = try identifier.createQueuePair(
        in: domain, sends: completions, receives: completions,
        QueuePairSizes(sendCount: 64, receiveCount: 64))
      let memory = try MemoryRegion(byteCount: 65_536, in: domain, [.localWrite])
      for index in 0..<32 {
        try identifier.postReceive(
          ReceiveRequest(work: UInt64(index), memory.segment(index * 256, 256)))
      }
      self.identifier = identifier
      self.memory = memory
      self.completions = completions
      self.domain = domain
    }
  }

  init() throws { channel = try EventChannel() }

  deinit { for connection in connections { connection.identifier.disconnect() } }

  /// The next event of one kind; nil when something else comes, or nothing.
  func event(_ wanted: ConnectionEvent.Kind) throws -> [UInt8]? {
    for _ in 0..<500 {
      if let event = try channel.next() {
        guard event.kind == wanted else { return nil }
        return event.withPrivateData { (said: Span<UInt8>) -> [UInt8] in
          ByteString(copying: said).bytes
        }
      }
      pause(milliseconds: 10)
    }
    return nil
  }

  /// Connects with whatever private data; false when the server says no.
  mutating func connect(to address: SocketAddress, _ privateData: [UInt8]) throws -> Bool {
    let identifier = try ConnectionIdentifier(on: channel, context: UInt64(connections.count))
    try identifier.resolveAddress(of: address, milliseconds: 2000)
    guard try event(.addressResolved) != nil else { return false }
    try identifier.resolveRoute(milliseconds: 2000)
    guard try event(.routeResolved) != nil else { return false }
    let connection = try Connection(identifier)
    try connection.identifier.connect(privateData: privateData.span)
    guard let answer = try event(.established) else { return false }
    if connections.isEmpty, let said = try? ConnectionAnswer(decoding: answer.span) {
      geometry = try? ChunkGeometry(said)
    }
    connections.append(connection)
    return true
  }

  /// Sends bytes as a message.
  func send(_ bytes: [UInt8], on index: Int) throws {
    let connection = connections[index]
    try put(bytes, in: connection)
    try connection.identifier.post(
      .send(work: 99, .signalled, connection.memory.segment(32_768, bytes.count)))
  }

  private func put(_ bytes: [UInt8], in connection: Connection) throws {
    // SAFETY: at most 32 KiB, behind the receives.
    unsafe UnsafeMutableRawBufferPointer(
      rebasing: connection.memory.bytes[32_768..<(32_768 + bytes.count)]
    ).copyBytes(from: bytes)
  }

  /// Writes bytes to an address of the server's, with an immediate.
  func write(_ bytes: [UInt8], to address: UInt64, _ immediate: UInt32, on index: Int) throws {
    let connection = connections[index]
    try put(bytes, in: connection)
    try connection.identifier.post(
      .write(
        work: 98, .signalled,
        bytes.isEmpty ? nil : connection.memory.segment(32_768, bytes.count),
        to: RemoteMemory(address: address, key: chunkKey), immediate: immediate))
  }

  /// The answer to the introduction, once it is there: where the chunks are.
  mutating func takeInformation() throws -> Bool {
    var room = [Completion()]
    for _ in 0..<300 {
      let connection = connections[0]
      let count = try unsafe room.withUnsafeMutableBufferPointer {
        // SAFETY: the array's own storage.
        unsafe try connection.completions.poll(into: $0)
      }
      if count == 1, room[0].isReceive, room[0].isSuccess, room[0].byteCount >= 24 {
        // SAFETY: the first receive lies at the start of the memory.
        let bytes = unsafe Array(connection.memory.bytes[0..<24])
        chunkAddress = bytes.span.littleEndian(UInt64.self, at: 8)
        chunkKey = bytes.span.littleEndian(UInt32.self, at: 16)
        return true
      }
      if count == 1, !room[0].isSuccess { return false }
      if count == 0 { pause(milliseconds: 5) }
    }
    return false
  }
}

func attack(_ address: SocketAddress, _ dice: inout Dice) throws -> String {
  var path = try HostilePath()
  let session = RTRSUUID(high: dice.next(below: .max), low: dice.next(below: .max))
  var request = ConnectionRequest(
    connection: 0, connectionCount: 2, attempt: 1, path: session, session: session)
  var bytes = request.encoded
  switch dice.next(below: 8) {
  case 0:  // Random bytes, of any length that fits.
    bytes = (0..<Int(dice.next(below: 57))).map { _ in dice.byte() }
  case 1: bytes[2] ^= 0xff
  case 2: bytes[6] = 9
  case 3:
    bytes[8] = 0xff
    bytes[9] = 0xff
  default: break
  }
  guard try path.connect(to: address, bytes) else { return "rejected" }
  if dice.next(below: 6) == 0 {
    try path.send(PathInformationRequest(name: try SessionName("early")).encoded, on: 0)
    pause(milliseconds: 50)
    return "introduced early"
  }
  request.connection = 1
  guard try path.connect(to: address, request.encoded) else { return "rejected second" }
  var introduction = PathInformationRequest(
    name: try SessionName(ByteString("hostile-\(dice.next(below: 1000))"))
  ).encoded
  switch dice.next(below: 8) {
  case 0: introduction = (0..<272).map { _ in dice.byte() }
  case 1: introduction = Array(introduction.prefix(100))
  case 2: introduction.replaceSubrange(2..<20, with: Array("../../../../../etc".utf8))
  case 3: introduction += introduction
  default: break
  }
  try path.send(introduction, on: 0)
  guard try path.takeInformation(), let geometry = path.geometry else { return "not let in" }
  for _ in 0..<20 {
    let chunk = UInt64(dice.next(below: UInt64(geometry.queueDepth)))
    let base = path.chunkAddress &+ chunk &* UInt64(geometry.chunkByteCount)
    var message = IORequest(
      device: UInt32(dice.next(below: 4)), sector: dice.next(below: .max),
      operation: IOOperation(rawValue: UInt8(dice.next(below: 7))),
      dataByteCount: UInt32(dice.next(below: 1 << 20))
    ).encoded
    let region = RegionDescriptor(
      address: dice.next(below: .max), key: UInt32(dice.next(below: 1 << 32)),
      length: UInt32(dice.next(below: 1 << 18)))
    let tail = RequestMessage.read(
      userByteCount: UInt16(dice.next(below: 3) == 0 ? dice.next(below: 65_536) : 32),
      destination: dice.next(below: 2) == 0 ? region : nil, wantsInvalidation: true)
    if dice.next(below: 3) == 0 { message = (0..<32).map { _ in dice.byte() } }
    let offset = UInt32(dice.next(below: UInt64(geometry.chunkByteCount - 64)))
    let payload = geometry.payload(chunk: UInt16(chunk), offset: offset &+ 32)
    switch dice.next(below: 8) {
    case 0:  // Beyond the chunks: the queue pair fails.
      try path.write(
        [1, 2, 3], to: path.chunkAddress &+ UInt64(geometry.totalByteCount) + (1 << 20), 0, on: 1)
    case 1:
      try path.write([], to: 0, UInt32(dice.next(below: 1 << 32)), on: Int(dice.next(below: 2)))
    case 2: try path.send([UInt8](repeating: 7, count: 64), on: Int(dice.next(below: 2)))
    case 3: try path.write([], to: 0, Immediate.heartbeat.rawValue, on: 0)
    default:
      try path.write(
        message + tail.encoded, to: base &+ UInt64(offset),
        Immediate.request(payload: payload).rawValue, on: Int(dice.next(below: 2)))
    }
    pause(milliseconds: 2)
  }
  return "let in"
}

let words = CommandLine.arguments
guard words.count == 5, let port = UInt16(words[2]), let rounds = Int(words[3]),
  let seed = UInt64(words[4])
else {
  say("usage: RDMAHostile ADDRESS PORT ROUNDS SEED")
  exit(2)
}
let octets = words[1].split(separator: ".").compactMap { UInt8($0) }
guard octets.count == 4, try RDMADevices.find() > 0 else { exit(1) }
let address = SocketAddress(ipv4: octets, port: port)
var dice = Dice(state: seed)
var outcomes: [String: Int] = [:]
for _ in 0..<rounds {
  do { outcomes[try attack(address, &dice), default: 0] += 1 } catch {
    outcomes["cut off", default: 0] += 1
  }
}
for (outcome, count) in outcomes.sorted(by: { $0.key < $1.key }) { say("\(outcome): \(count)") }

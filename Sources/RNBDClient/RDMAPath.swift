// SPDX-License-Identifier: Apache-2.0
// One path as the device has it: its connections, and what they need on the device they came up on.

public import LinuxSystem
import RDMAVerbs
import RTRSProtocol

/// One way to the server.
public struct PathAddresses: Sendable {
  /// Nil: the route decides.
  public var source: SocketAddress?
  public var destination: SocketAddress
  /// The destination is a GID.
  public var isIB: Bool

  public init(source: SocketAddress?, destination: SocketAddress, isIB: Bool = false) {
    self.source = source
    self.destination = destination
    self.isIB = isIB
  }
}

/// What is made once a device is bound, and kept while the path comes back over the same. Fields go
/// away in the order that verbs want: regions and queue before the domain.
struct PathResources: ~Copyable {
  let device: UInt
  let data: MemoryRegion
  let messages: MemoryRegion
  let own: MemoryRegion
  let queue: CompletionQueue
  let domain: ProtectionDomain

  init(
    on connection: borrowing ConnectionIdentifier, device: UInt, layout: TransportLayout,
    data: borrowing RegisteredPages, messages: borrowing RegisteredPages
  ) throws(VerbsError) {
    let domain = try ProtectionDomain(on: connection)
    let dataRegion = try MemoryRegion(of: data, in: domain, .remoteWrite)
    let messageRegion = try MemoryRegion(of: messages, in: domain, .localWrite)
    let ownRegion = try MemoryRegion(
      byteCount: layout.pathPagesByteCount, in: domain, .localWrite)
    let queue = try CompletionQueue(
      on: connection, entryCount: UInt32(clamping: layout.completionCount))
    try queue.arm()
    self.device = device
    self.data = dataRegion
    self.messages = messageRegion
    own = ownRegion
    self.queue = queue
    self.domain = domain
  }
}

/// Something with one owner that may be there or not, at a place that does not move: what cannot be
/// copied cannot be used through an optional in memory.
@safe struct Place<Value: ~Copyable> {
  // SAFETY: taken once and never given back; whether it holds a value is `isFull`.
  @unsafe private let pointer: UnsafeMutablePointer<Value>
  private(set) var isFull = false

  init() { unsafe pointer = UnsafeMutablePointer<Value>.allocate(capacity: 1) }

  mutating func fill(_ value: consuming Value) {
    empty()
    unsafe pointer.initialize(to: value)
    isFull = true
  }
  mutating func empty() {
    if isFull { unsafe pointer.deinitialize(count: 1) }
    isFull = false
  }
  /// It must be full.
  var value: UnsafeMutablePointer<Value> {
    precondition(isFull, "a place that holds something")
    return unsafe pointer
  }
}

/// One connection of a path.
struct PathConnection {
  var identifier = Place<ConnectionIdentifier>()
  /// What the server is told with the connection.
  var request: ConnectionRequest?
  /// Sends since the last that tells when it is done.
  var untoldCount = 0
}

struct RDMAPath {
  let addresses: PathAddresses
  var resources = Place<PathResources>()
  /// Of the connections that are there now.
  var attempt: UInt16 = 0
  /// Completions may be there that nobody has looked at.
  var mayHaveCompletions = false
  var connections: [PathConnection] = []

  init(_ addresses: PathAddresses, connectionCount: Int) {
    self.addresses = addresses
    for _ in 0..<connectionCount { connections.append(PathConnection()) }
  }
}

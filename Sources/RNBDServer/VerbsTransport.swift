// SPDX-License-Identifier: Apache-2.0
// The transport of a running server: listeners, and the queue pairs of all paths. A path has one
// completion queue, whose descriptor is waited for together with those of the others.
//
// The number of a work request says whose it is and what it was:
//
//   63        62             61 ... 40                39 ... 0
//   receive   introduction   sends that are done now  connection

import BlockServer
import CLinux
import LinuxSystem
import RDMAVerbs
import RTRSProtocol
import WireFormat

/// The memory of one device that sessions take their chunks from.
private final class VerbsDevice {
  let domain: ProtectionDomain
  init(_ domain: consuming ProtectionDomain) { self.domain = domain }
}

@safe final class VerbsMemory: ChunkMemory {
  private let region: MemoryRegion
  /// The region must not outlive its domain.
  private let device: VerbsDevice

  fileprivate init(
    byteCount: Int, on device: VerbsDevice, _ access: MemoryRegion.Access
  ) throws(VerbsError) {
    self.device = device
    region = try MemoryRegion(byteCount: byteCount, in: device.domain, access)
  }

  // SAFETY: the region is alive as long as this object, whose users hold it.
  @unsafe var bytes: UnsafeMutableRawBufferPointer { unsafe region.bytes }
  var remoteKey: UInt32 { region.remoteKey }
  func address(_ offset: Int) -> UInt64 { region.address(offset) }
  func segment(_ offset: Int, _ count: Int) -> MemorySegment { region.segment(offset, count) }
}

private final class VerbsConnection {
  let number: Int
  let identifier: ConnectionIdentifier
  var path: VerbsPath?
  /// More sends that may be posted.
  var freeSendCount = 0
  /// One send in so many tells that it and those before it are done.
  var signalInterval = 1
  var unsignalledCount = 0
  /// Answers that found no room.
  var waiting: [(answer: ServerAnswer, memory: VerbsMemory, offset: Int)] = []

  init(_ number: Int, _ identifier: consuming ConnectionIdentifier) {
    self.number = number
    self.identifier = identifier
  }
}

private final class VerbsPath {
  let key: Int
  let device: VerbsDevice
  let completions: CompletionQueue
  /// For the introduction and its answer.
  let control: VerbsMemory
  var connections: [VerbsConnection] = []
  var isReady = false
  var isArmed = false
  /// Its descriptor is readable.
  var isSignalled = false

  static let answerOffset = 4096

  init(
    _ key: Int, _ device: VerbsDevice, _ completions: consuming CompletionQueue
  ) throws(VerbsError) {
    self.key = key
    self.device = device
    self.completions = completions
    control = try VerbsMemory(byteCount: 8192, on: device, .localWrite)
  }
}

private final class Listening {
  let identifier: ConnectionIdentifier
  init(_ identifier: consuming ConnectionIdentifier) { self.identifier = identifier }
}

/// Ends a `wait`: a counter of the kernel's that is readable when it is not 0.
private final class EventWaker: TransportWaker {
  let descriptor: FileDescriptor

  init() throws(SystemError) {
    descriptor = FileDescriptor(owning: try checked(clinux_event_descriptor()))
  }

  func wake() { _ = clinux_event_signal(descriptor.rawValue) }
  func clear() { _ = clinux_event_clear(descriptor.rawValue) }
}

@safe final class VerbsTransport: ServerTransport {
  typealias Memory = VerbsMemory

  private static let receiveBit: UInt64 = 1 << 63
  private static let introductionBit: UInt64 = 1 << 62
  private static let connectionMask: UInt64 = 1 << 40 - 1
  private static let listenerContext = UInt64.max
  private static let introductionByteCount = 512
  private static let batchCount = 32

  private let channel: EventChannel
  private let events: EventWaker
  private var listeners: [Listening] = []
  private var connections: [Int: VerbsConnection] = [:]
  private var paths: [Int: VerbsPath] = [:]
  private var devices: [UInt: VerbsDevice] = [:]
  private var nextConnection = 1

  private var isChannelReady = true
  private var readyPaths: [VerbsPath] = []
  /// Completions that were polled and not looked at yet.
  // SAFETY: allocated by `init`, given back by `deinit`, and used by the engine's thread alone.
  @unsafe private let batch: UnsafeMutableBufferPointer<Completion>
  private var batchStart = 0
  private var batchEnd = 0
  private var batchPath: VerbsPath?
  private var requests: [SendRequest] = []
  /// What `wait` waits for: the channel, the waker, then `waitedPaths`.
  private var descriptors: [CInt] = []
  private var readiness: [UInt8] = []
  private var waitedPaths: [VerbsPath] = []

  init() throws(VerbsError) {
    guard try RDMADevices.find() > 0 else { throw .noDevice }
    channel = try EventChannel()
    do { events = try EventWaker() } catch { throw .failed(.openChannel, error) }
    unsafe batch = .allocate(capacity: Self.batchCount)
    unsafe batch.initialize(repeating: Completion())
    requests.reserveCapacity(3)
    listPaths()
  }

  deinit {
    for path in paths.values { path.connections = [] }
    unsafe batch.deallocate()
  }

  var waker: any TransportWaker { events }

  func listen(on address: SocketAddress, isWildcard: Bool) throws(VerbsError) {
    let identifier = try ConnectionIdentifier(on: channel, context: Self.listenerContext)
    try identifier.reuseAddress()
    if !isWildcard, address.family == CInt(clinux_AF_INET6) { try identifier.takeOnlyIPv6() }
    try identifier.bind(to: address)
    try identifier.listen(backlog: 64)
    listeners.append(Listening(identifier))
  }

  /// Nobody new can connect.
  func stopListening() { listeners = [] }
}

// Connections and paths.
extension VerbsTransport {
  func ends(of connection: Int) -> ConnectionEnds {
    guard let connection = connections[connection] else { return ConnectionEnds() }
    let (local, peer) = connection.identifier.addresses
    return ConnectionEnds(
      client: peer?.hostAndPort.host ?? "", server: local?.hostAndPort.host ?? "",
      device: connection.identifier.deviceName,
      deviceIdentity: connection.identifier.deviceIdentity ?? 0)
  }

  func makeMemory(byteCount: Int, for connection: Int) throws(TransportError) -> VerbsMemory {
    do throws(VerbsError) {
      guard let connection = connections[connection] else { throw .noDevice }
      return try VerbsMemory(
        byteCount: byteCount, on: device(of: connection), [.localWrite, .remoteWrite])
    } catch { throw TransportError(error) }
  }

  private func device(of connection: VerbsConnection) throws(VerbsError) -> VerbsDevice {
    guard let identity = connection.identifier.deviceIdentity else { throw .noDevice }
    if let device = devices[identity] { return device }
    let device = VerbsDevice(try ProtectionDomain(on: connection.identifier))
    devices[identity] = device
    return device
  }

  func accept(
    _ connection: Int, path key: Int, isService: Bool, connectionCount: Int,
    _ sizes: ConnectionSizes, answer: [UInt8]
  ) throws(TransportError) {
    guard let connection = connections[connection] else {
      throw TransportError(reason: "the connection is gone", advice: "try again")
    }
    do throws(VerbsError) {
      let limits = try connection.identifier.deviceLimits()
      let wanted = QueuePairSizes(
        sendCount: min(sizes.sendCount, limits.workRequestCount),
        receiveCount: min(sizes.receiveCount, limits.workRequestCount))
      let path: VerbsPath
      if let known = paths[key] {
        path = known
      } else {
        // Of the sends only few complete, and all of them only when the path ends.
        let entries = connectionCount * Int(wanted.receiveCount + wanted.sendCount / 4 + 16)
        guard entries <= Int(limits.completionCount) else {
          throw .failed(.createCompletionQueue, .noMemory)
        }
        path = try VerbsPath(
          key, try device(of: connection),
          try CompletionQueue(on: connection.identifier, entryCount: UInt32(entries)))
        path.isReady = true
        readyPaths.append(path)
        paths[key] = path
        listPaths()
      }
      let granted = try connection.identifier.createQueuePair(
        in: path.device.domain, sends: path.completions, receives: path.completions, wanted)
      connection.freeSendCount = Int(granted.sendCount)
      connection.signalInterval = max(1, Int(granted.sendCount) / 8)
      connection.path = path
      path.connections.append(connection)
      if isService {
        try connection.identifier.postReceive(
          ReceiveRequest(
            work: UInt64(connection.number) | Self.receiveBit | Self.introductionBit,
            path.control.segment(0, Self.introductionByteCount)))
      }
      try connection.identifier.accept(privateData: answer.span)
    } catch { throw TransportError(error) }
  }

  func reject(_ connection: Int, answer: [UInt8]) {
    guard let refused = connections.removeValue(forKey: connection) else { return }
    try? refused.identifier.reject(privateData: answer.span)
    refused.path?.connections.removeAll { $0 === refused }
  }

  func close(path key: Int) {
    guard let path = paths.removeValue(forKey: key) else { return }
    for connection in path.connections {
      connection.identifier.disconnect()
      connection.path = nil
      connections[connection.number] = nil
    }
    path.connections = []  // Their queue pairs are destroyed here.
    readyPaths.removeAll { $0 === path }
    if batchPath === path {
      batchPath = nil
      batchEnd = batchStart
    }
    listPaths()
  }

  private func listPaths() {
    waitedPaths = Array(paths.values)
    descriptors = [channel.descriptor, events.descriptor.rawValue]
    for path in waitedPaths { descriptors.append(path.completions.descriptor) }
    readiness = [UInt8](repeating: 0, count: descriptors.count)
  }
}

// Transfers.
extension VerbsTransport {
  func postReceives(_ connection: Int, count: Int) throws(TransportError) {
    guard let connection = connections[connection] else { return }
    let request = ReceiveRequest(work: UInt64(connection.number) | Self.receiveBit)
    do throws(VerbsError) {
      for _ in 0..<count { try connection.identifier.postReceive(request) }
    } catch { throw TransportError(error) }
  }

  func sendInformation(_ connection: Int, _ bytes: [UInt8]) throws(TransportError) {
    guard let connection = connections[connection], let path = connection.path else { return }
    let control = path.control
    precondition(unsafe bytes.count <= control.bytes.count - VerbsPath.answerOffset)
    // SAFETY: checked in the line above; nothing else uses this part.
    unsafe UnsafeMutableRawBufferPointer(
      rebasing: control.bytes[VerbsPath.answerOffset...]
    ).copyBytes(from: bytes)
    let (work, flags) = reserve(1, on: connection)
    requests.removeAll(keepingCapacity: true)
    requests.append(
      .send(work: work, flags, control.segment(VerbsPath.answerOffset, bytes.count)))
    try post(on: connection)
  }

  func sendImmediate(_ connection: Int, _ immediate: UInt32) throws(TransportError) {
    guard let connection = connections[connection], connection.freeSendCount > 0 else { return }
    let (work, flags) = reserve(1, on: connection)
    requests.removeAll(keepingCapacity: true)
    requests.append(.write(work: work, flags, immediate: immediate))
    try post(on: connection)
  }

  func send(
    _ answer: ServerAnswer, on connection: Int, from memory: VerbsMemory, offset: Int
  ) throws(TransportError) {
    guard let connection = connections[connection] else { return }
    guard connection.waiting.isEmpty, connection.freeSendCount >= 3 else {
      return connection.waiting.append((answer, memory, offset))
    }
    try post(answer, on: connection, from: memory, offset: offset)
  }

  private func post(
    _ answer: ServerAnswer, on connection: VerbsConnection, from memory: VerbsMemory, offset: Int
  ) throws(TransportError) {
    let count = 1 + (answer.destination == nil ? 0 : 1) + (answer.invalidatedKey == nil ? 0 : 1)
    let (work, flags) = reserve(count, on: connection)
    // One that fails completes whatever its flags are, and then says whose it is.
    let own = UInt64(connection.number)
    requests.removeAll(keepingCapacity: true)
    if let destination = answer.destination {
      requests.append(
        .write(
          work: own, [], memory.segment(offset, Int(destination.length)),
          to: RemoteMemory(address: destination.address, key: destination.key)))
    }
    if let key = answer.invalidatedKey { requests.append(.sendInvalidating(work: own, key: key)) }
    requests.append(.write(work: work, flags, immediate: answer.immediate))
    try post(on: connection)
  }

  /// Room for so many sends, of which the last is made with this: from time to time it tells that all
  /// before it are done.
  private func reserve(
    _ count: Int, on connection: VerbsConnection
  ) -> (work: UInt64, flags: SendRequest.Flags) {
    connection.freeSendCount -= count
    connection.unsignalledCount += count
    let own = UInt64(connection.number)
    guard connection.unsignalledCount >= connection.signalInterval else { return (own, []) }
    defer { connection.unsignalledCount = 0 }
    return (own | UInt64(connection.unsignalledCount) << 40, .signalled)
  }

  private func post(on connection: VerbsConnection) throws(TransportError) {
    let posted = requests
    do { try connection.identifier.post(posted.span) } catch { throw TransportError(error) }
  }
}

// Events.
extension VerbsTransport {
  func next(isLast: Bool) -> TransportEvent? {
    while true {
      while batchStart < batchEnd {
        // SAFETY: below the end of what was polled.
        let completion = unsafe batch[batchStart]
        batchStart += 1
        if let event = event(of: completion) { return event }
      }
      if let event = nextOfChannel() { return event }
      guard pollNext(mayArm: isLast) else { return nil }
    }
  }

  /// False when no path has anything. Arming takes two system calls: it comes after the answers.
  private func pollNext(mayArm: Bool) -> Bool {
    while let path = readyPaths.last {
      var count = 0
      do { count = unsafe try path.completions.poll(into: batch) } catch {
        // Lost completions: every connection of the path is of no more use.
        try? path.connections.first?.identifier.failQueuePair()
      }
      if count > 0 {
        (batchStart, batchEnd, batchPath) = (0, count, path)
        // The others have their turn.
        if readyPaths.count > 1 { readyPaths.insert(readyPaths.removeLast(), at: 0) }
        return true
      }
      guard !path.isArmed else {
        path.isReady = false
        readyPaths.removeLast()
        continue
      }
      guard mayArm else { return false }
      // What came before it was armed makes nothing readable: look once more.
      if path.isSignalled { path.completions.disarm() }
      path.isSignalled = false
      try? path.completions.arm()
      path.isArmed = true
    }
    return false
  }

  private func event(of completion: Completion) -> TransportEvent? {
    let work = completion.work
    let number = Int(work & Self.connectionMask)
    guard completion.isSuccess else {
      // What was out when it ended; why it ended is told otherwise.
      return completion.isFlushed
        ? nil : .workFailed(connection: number, status: completion.status)
    }
    guard work & Self.receiveBit != 0 else {
      sent(Int(work >> 40 & 0x3f_ffff), number)
      return nil
    }
    guard !completion.isMessage, let immediate = completion.immediate else {
      guard work & Self.introductionBit != 0, let path = connections[number]?.path else {
        return .message(connection: number, bytes: [])
      }
      let count = min(Int(completion.byteCount), Self.introductionByteCount)
      // SAFETY: the receive has completed, and its room has so many bytes.
      return .message(
        connection: number,
        bytes: unsafe Array(UnsafeRawBufferPointer(rebasing: path.control.bytes[..<count])))
    }
    return .received(connection: number, immediate: immediate)
  }

  /// So many sends more may be posted.
  private func sent(_ count: Int, _ number: Int) {
    guard let connection = connections[number] else { return }
    connection.freeSendCount += count
    var posted = 0
    while posted < connection.waiting.count, connection.freeSendCount >= 3 {
      let (answer, memory, offset) = connection.waiting[posted]
      posted += 1
      // A queue pair that takes nothing has failed, and says so by a completion.
      try? post(answer, on: connection, from: memory, offset: offset)
    }
    connection.waiting.removeFirst(posted)
  }

  private func nextOfChannel() -> TransportEvent? {
    while isChannelReady {
      do throws(VerbsError) {
        guard var event = try channel.next() else {
          isChannelReady = false
          return nil
        }
        let number = Int(truncatingIfNeeded: event.context)
        switch event.kind {
        case .connectRequest:
          let privateData = event.withPrivateData { (said: Span<UInt8>) -> [UInt8] in
            ByteString(copying: said).bytes
          }
          let number = nextConnection
          guard let identifier = event.takeConnection(context: UInt64(number)) else { continue }
          nextConnection += 1
          connections[number] = VerbsConnection(number, identifier)
          return .request(connection: number, privateData: privateData)
        case .established: return .established(connection: number)
        case .disconnected, .deviceRemoved, .addressChanged, .failed, .rejected:
          return .disconnected(connection: number)
        case .addressResolved, .routeResolved, .timeWaitEnded, .other: continue
        }
      } catch {
        isChannelReady = false
      }
    }
    return nil
  }

  func wait(milliseconds: Int32) {
    guard readyPaths.isEmpty else { return }
    let count = unsafe descriptors.withUnsafeBufferPointer { numbers in
      unsafe readiness.withUnsafeMutableBufferPointer { ready in
        // SAFETY: both arrays have as many elements.
        unsafe clinux_poll_readable(
          numbers.baseAddress!, ready.baseAddress!, numbers.count, milliseconds)
      }
    }
    guard count > 0 else { return }
    if readiness[0] != 0 { isChannelReady = true }
    if readiness[1] != 0 { events.clear() }
    for (index, path) in waitedPaths.enumerated() where readiness[index + 2] != 0 {
      path.isSignalled = true
      path.isArmed = false
      path.isReady = true
      readyPaths.append(path)
    }
  }
}

extension TransportError {
  init(_ error: VerbsError) {
    let report = error.report
    self.init(reason: report.reason, advice: report.advice)
  }
}

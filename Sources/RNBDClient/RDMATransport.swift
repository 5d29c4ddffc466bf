// SPDX-License-Identifier: Apache-2.0
// Paths over RDMA connections. Memory is registered when a path first comes up on a device; data move
// between it and the server without a copy of ours.
//
//   connect ─► address resolved ─► route resolved ─► queue pair, connect ─► established
//
// Everything that waits has a descriptor: the channel's, and that of each path's completion queue.
// Whoever sees one readable says so (`channelIsReadable`, `queueIsReadable`), then asks `nextEvent`.

import LinuxSystem
public import RDMAVerbs
public import RTRSProtocol
public import WireFormat

@safe public struct RDMATransport: PathTransport, ~Copyable {
  static var resolveMilliseconds: Int32 { 5000 }
  /// One send of so many tells when it is done, and with it those before.
  static var tellingInterval: Int { 16 }
  private static var completionRoom: Int { 64 }

  private let layout: TransportLayout
  private let dataPages: RegisteredPages
  private let messagePages: RegisteredPages
  private let channel: EventChannel
  public var pathCount: Int { paths.count }
  private var paths: [RDMAPath]
  // SAFETY: these live as long as the process, at one place.
  @unsafe private let completions: UnsafeMutableBufferPointer<Completion>
  @unsafe private let saidBytes: UnsafeMutableBufferPointer<UInt8>
  private var completionIndex = 0
  private var completionCount = 0
  private var polledPath = 0
  private var mayHaveEvents = true
  /// Where the bytes of the last event lie.
  @unsafe private var toldBytes: UnsafeBufferPointer<UInt8>
  /// The receive of the last event, posted again when it was looked at.
  private var takenReceive: (path: Int, number: WorkNumber)?

  /// Throws when this machine has no RDMA device, or too little memory.
  public init(
    _ addresses: [PathAddresses], sizes: TransportSizes
  ) throws(VerbsError) {
    precondition(sizes.connectionCount > 0 && !addresses.isEmpty, "paths have connections")
    guard try RDMADevices.find() > 0 else { throw .noDevice }
    try RDMADevices.openAll()
    let layout = TransportLayout(sizes: sizes)
    let channel = try EventChannel()
    let dataPages = try RegisteredPages(byteCount: layout.dataPagesByteCount)
    let messagePages = try RegisteredPages(byteCount: layout.messagePagesByteCount)
    self.layout = layout
    self.channel = channel
    self.dataPages = dataPages
    self.messagePages = messagePages
    paths = []
    for one in addresses {
      paths.append(RDMAPath(one, connectionCount: Int(sizes.connectionCount)))
    }
    unsafe completions = UnsafeMutableBufferPointer<Completion>.allocate(
      capacity: Self.completionRoom)
    unsafe completions.initialize(repeating: Completion())
    unsafe saidBytes = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 256)
    unsafe saidBytes.initialize(repeating: 0)
    unsafe toldBytes = UnsafeBufferPointer<UInt8>(start: nil, count: 0)
  }

  // MARK: - What waits

  public var channelDescriptor: CInt { channel.descriptor }
  public mutating func channelIsReadable() { mayHaveEvents = true }

  /// Nil before the path was first bound to a device; another one when it is bound to another.
  public func queueDescriptor(of path: Int) -> CInt? {
    guard paths[path].resources.isFull else { return nil }
    return unsafe resources(path).pointee.queue.descriptor
  }
  public mutating func queueIsReadable(of path: Int) {
    guard paths[path].resources.isFull else { return }
    unsafe resources(path).pointee.queue.disarm()
    // One that cannot be armed shows as a path that is silent.
    try? unsafe resources(path).pointee.queue.arm()
    paths[path].mayHaveCompletions = true
  }

  /// The device and port that a path goes through; nil while it has no connection.
  public func place(of path: Int) -> (device: ByteString, port: UInt8)? {
    guard paths[path].connections[0].identifier.isFull else { return nil }
    return unsafe (
      identifier(path, 0).pointee.deviceName,
      identifier(path, 0).pointee.portNumber
    )
  }
  /// The addresses of a path that has a connection.
  public func addresses(of path: Int) -> (local: SocketAddress?, peer: SocketAddress?) {
    guard paths[path].connections[0].identifier.isFull else { return (nil, nil) }
    return unsafe identifier(path, 0).pointee.addresses
  }

  /// Of a path that has them.
  private func resources(_ path: Int) -> UnsafeMutablePointer<PathResources> {
    unsafe paths[path].resources.value
  }
  /// Of a connection that is there.
  private func identifier(
    _ path: Int, _ connection: Int
  ) -> UnsafeMutablePointer<ConnectionIdentifier> {
    unsafe paths[path].connections[connection].identifier.value
  }

  // MARK: - Memory

  public borrowing func data(of request: UInt16) -> UnsafeMutableRawBufferPointer {
    let start = layout.dataOffset(request)
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: dataPages.bytes[start..<(start + layout.dataRoom(request))])
  }
  public borrowing func messages(of request: UInt16) -> UnsafeMutableRawBufferPointer {
    let start = layout.messageOffset(request)
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: messagePages.bytes[start..<(start + layout.messageRoom(request))])
  }
  public borrowing func destination(of request: UInt16, on path: Int) -> RegionDescriptor {
    guard paths[path].resources.isFull else {
      return RegionDescriptor(address: 0, key: 0, length: 0)
    }
    let offset = layout.dataOffset(request)
    return unsafe RegionDescriptor(
      address: resources(path).pointee.data.address(offset),
      key: resources(path).pointee.data.remoteKey, length: 0)
  }
  public borrowing func eventBytes() -> UnsafeBufferPointer<UInt8> { unsafe toldBytes }

  // MARK: - Connections

  private static func context(_ path: Int, _ attempt: UInt16, _ connection: UInt16) -> UInt64 {
    UInt64(truncatingIfNeeded: path) << 32 | UInt64(attempt) << 16 | UInt64(connection)
  }

  public mutating func connect(_ path: Int, _ request: ConnectionRequest) -> PathLoss? {
    let number = Int(request.connection)
    if number == 0 { paths[path].attempt &+= 1 }
    do throws(VerbsError) {
      let identifier = try ConnectionIdentifier(
        on: channel,
        context: Self.context(path, paths[path].attempt, request.connection),
        space: paths[path].addresses.isIB ? .ib : .tcp)
      // A source that a dead connection still holds is not lost for that; it may not be known.
      try? identifier.reuseAddress()
      try identifier.resolveAddress(
        of: paths[path].addresses.destination,
        from: paths[path].addresses.source, milliseconds: Self.resolveMilliseconds)
      paths[path].connections[number].identifier.fill(identifier)
      paths[path].connections[number].request = request
      paths[path].connections[number].untoldCount = 0
    } catch { return loss(of: error) }
    return nil
  }

  private func loss(of error: VerbsError) -> PathLoss {
    switch error {
    case .noDevice, .notBound: .unreachable(errno: 19)  // ENODEV
    case .failed(_, let error): .unreachable(errno: error.errno)
    }
  }

  private mutating func addressResolved(_ path: Int, _ number: Int) throws(VerbsError) {
    let device = unsafe identifier(path, number).pointee.deviceIdentity ?? 0
    let isBound: Bool
    if paths[path].resources.isFull {
      isBound = unsafe resources(path).pointee.device == device
    } else {
      isBound = false
    }
    if !isBound {
      paths[path].resources.empty()
      let made = try unsafe PathResources(
        on: identifier(path, number).pointee, device: device, layout: layout,
        data: dataPages, messages: messagePages)
      paths[path].resources.fill(made)
      paths[path].mayHaveCompletions = true
    }
    try unsafe identifier(path, number).pointee.resolveRoute(
      milliseconds: Self.resolveMilliseconds)
  }

  private mutating func routeResolved(_ path: Int, _ number: Int) throws(VerbsError) {
    let connection = UInt16(truncatingIfNeeded: number)
    guard paths[path].resources.isFull,
      let request = paths[path].connections[number].request
    else { throw .notBound(.createQueuePair) }
    _ = try unsafe identifier(path, number).pointee.createQueuePair(
      in: resources(path).pointee.domain, sends: resources(path).pointee.queue,
      receives: resources(path).pointee.queue,
      QueuePairSizes(
        sendCount: UInt32(layout.sendCount(connection)),
        receiveCount: UInt32(layout.receiveCount(connection) + 1)))
    var output = unsafe OutputSpan(buffer: saidBytes, initializedCount: 0)
    request.encode(into: &output)
    let count = unsafe output.finalize(for: saidBytes)
    try unsafe identifier(path, number).pointee.connect(
      privateData: saidBytes.span.extracting(first: count))
  }

  public mutating func tearDown(_ path: Int) {
    if takenReceive?.path == path { takenReceive = nil }
    for number in 0..<Int(layout.sizes.connectionCount) {
      guard paths[path].connections[number].identifier.isFull else { continue }
      unsafe identifier(path, number).pointee.disconnect()
    }
    for number in 0..<Int(layout.sizes.connectionCount) {
      paths[path].connections[number].identifier.empty()
    }
  }

  // MARK: - Events

  public mutating func nextEvent() -> TransportEvent? {
    if let taken = takenReceive {
      takenReceive = nil
      if let loss = postReceive(taken.path, taken.number) {
        return .lost(path: taken.path, loss)
      }
    }
    unsafe toldBytes = UnsafeBufferPointer(start: nil, count: 0)
    while true {
      if completionIndex < completionCount {
        let completion = unsafe completions[completionIndex]
        completionIndex += 1
        if let event = event(of: completion, on: polledPath) { return event }
        continue
      }
      if poll() { continue }
      guard mayHaveEvents else { return nil }
      do throws(VerbsError) {
        guard let event = try channel.next() else {
          mayHaveEvents = false
          return nil
        }
        if let told = self.event(of: event) { return told }
      } catch {
        mayHaveEvents = false
        return nil
      }
    }
  }

  /// False when no path has completions.
  private mutating func poll() -> Bool {
    for path in 0..<pathCount where paths[path].mayHaveCompletions {
      completionIndex = 0
      completionCount = 0
      guard paths[path].resources.isFull else {
        paths[path].mayHaveCompletions = false
        continue
      }
      completionCount =
        (try? unsafe resources(path).pointee.queue.poll(into: completions)) ?? 0
      polledPath = path
      if completionCount < Self.completionRoom {
        paths[path].mayHaveCompletions = false
      }
      if completionCount > 0 { return true }
    }
    return false
  }

  private mutating func event(of completion: Completion, on path: Int) -> TransportEvent? {
    guard let number = WorkNumber(rawValue: completion.work),
      number.attempt == paths[path].attempt,
      paths[path].connections[Int(number.connection)].identifier.isFull
    else { return nil }
    guard completion.isSuccess else {
      // What was flushed has a cause that was or will be told.
      return completion.isFlushed
        ? nil : .lost(path: path, .workRequestFailed(status: completion.status))
    }
    switch number.kind {
    case .send: return nil
    case .information:
      unsafe toldBytes = bytes(path, 0, Int(completion.byteCount))
      return .informed(path: path)
    case .receive:
      let count = completion.isMessage ? Int(completion.byteCount) : 0
      unsafe toldBytes = bytes(
        path, layout.receiveOffset(number.connection, number.index),
        min(count, TransportLayout.receiveStride))
      takenReceive = (path, number)
      return .received(
        path: path, connection: number.connection, immediate: completion.immediate)
    }
  }

  /// Of the path's own pages.
  private func bytes(_ path: Int, _ offset: Int, _ count: Int) -> UnsafeBufferPointer<UInt8> {
    // SAFETY: inside the region by the layout; nothing is received there until it is posted anew.
    let piece = unsafe resources(path).pointee.own.bytes[offset..<(offset + count)]
    return unsafe UnsafeRawBufferPointer(
      UnsafeMutableRawBufferPointer(rebasing: piece)
    ).bindMemory(to: UInt8.self)
  }

  private mutating func event(of event: borrowing ConnectionEvent) -> TransportEvent? {
    let path = Int(truncatingIfNeeded: event.context >> 32)
    let attempt = UInt16(truncatingIfNeeded: event.context >> 16)
    let connection = UInt16(truncatingIfNeeded: event.context)
    guard path < pathCount, attempt == paths[path].attempt,
      connection < layout.sizes.connectionCount,
      paths[path].connections[Int(connection)].identifier.isFull
    else { return nil }
    keepPrivateData(of: event)
    do throws(VerbsError) {
      switch event.kind {
      case .addressResolved: try addressResolved(path, Int(connection))
      case .routeResolved: try routeResolved(path, Int(connection))
      case .established: return .established(path: path, connection: connection)
      case .rejected(let reason): return .rejected(path: path, reason: reason)
      case .failed(_, let error):
        return .lost(path: path, .unreachable(errno: error.errno))
      case .disconnected, .deviceRemoved, .addressChanged:
        return .lost(path: path, .disconnected)
      case .connectRequest, .timeWaitEnded, .other: break
      }
    } catch { return .lost(path: path, loss(of: error)) }
    return nil
  }

  private mutating func keepPrivateData(of event: borrowing ConnectionEvent) {
    let room = unsafe saidBytes
    let count = event.withPrivateData { bytes in
      let count = min(bytes.count, room.count)
      // SAFETY: memory of ours, no more of it than there is.
      for index in 0..<count { unsafe room[index] = bytes[index] }
      return count
    }
    unsafe toldBytes = UnsafeBufferPointer(rebasing: saidBytes[..<count])
  }

  // MARK: - Posting

  private mutating func postReceive(_ path: Int, _ number: WorkNumber) -> PathLoss? {
    let offset = layout.receiveOffset(number.connection, number.index)
    guard paths[path].connections[Int(number.connection)].identifier.isFull else {
      return nil
    }
    do throws(VerbsError) {
      try unsafe identifier(path, Int(number.connection)).pointee.postReceive(
        ReceiveRequest(
          work: number.rawValue,
          resources(path).pointee.own.segment(offset, TransportLayout.receiveStride)))
    } catch { return loss(of: error) }
    return nil
  }

  public mutating func postReceives(_ path: Int) -> PathLoss? {
    for connection in 0..<layout.sizes.connectionCount {
      for index in 0..<layout.receiveCount(connection) {
        let number = WorkNumber(
          .receive, attempt: paths[path].attempt, connection: connection, index: index)
        if let loss = postReceive(path, number) { return loss }
      }
    }
    return nil
  }

  public mutating func sendInformation(_ path: Int, name: SessionName) -> PathLoss? {
    let attempt = paths[path].attempt
    let start = layout.informationMessageOffset
    let message = PathInformationRequest(name: name)
    let room = unsafe UnsafeMutableRawBufferPointer(
      rebasing: resources(path).pointee.own.bytes[start..<(start + message.encodedByteCount)]
    ).bindMemory(to: UInt8.self)
    var output = unsafe OutputSpan(buffer: room, initializedCount: 0)
    message.encode(into: &output)
    let count = unsafe output.finalize(for: room)
    do throws(VerbsError) {
      try unsafe identifier(path, 0).pointee.postReceive(
        ReceiveRequest(
          work: WorkNumber(.information, attempt: attempt, connection: 0).rawValue,
          resources(path).pointee.own.segment(0, layout.informationByteCount)))
      try unsafe identifier(path, 0).pointee.post(
        .send(
          work: WorkNumber(.send, attempt: attempt, connection: 0).rawValue, .signalled,
          resources(path).pointee.own.segment(start, count)))
    } catch { return loss(of: error) }
    return nil
  }

  public mutating func sendHeartbeat(_ path: Int, isAcknowledgement: Bool) -> PathLoss? {
    let immediate: Immediate = isAcknowledgement ? .heartbeatAcknowledgement : .heartbeat
    return post(path, 0) { work, flags, _ in
      .write(work: work, flags, immediate: immediate.rawValue)
    }
  }

  public mutating func post(_ posting: Posting, messageByteCount: Int) -> PathLoss? {
    let request = posting.request
    let layout = layout
    return post(posting.path, posting.connection) { work, flags, resources in
      let messages = resources.messages.segment(
        layout.messageOffset(request), messageByteCount)
      let remote = RemoteMemory(address: posting.address, key: posting.key)
      guard posting.direction == .toServer, posting.dataByteCount > 0 else {
        return .write(work: work, flags, messages, to: remote, immediate: posting.immediate)
      }
      let data = resources.data.segment(
        layout.dataOffset(request), Int(posting.dataByteCount))
      return .write(work: work, flags, data, messages, to: remote, immediate: posting.immediate)
    }
  }

  private mutating func post(
    _ path: Int, _ connection: UInt16,
    _ make: (UInt64, SendRequest.Flags, borrowing PathResources) -> SendRequest
  ) -> PathLoss? {
    let number = Int(connection)
    guard paths[path].connections[number].identifier.isFull,
      paths[path].resources.isFull
    else { return .unreachable(errno: SystemError.connectionReset.errno) }
    paths[path].connections[number].untoldCount += 1
    let isTold = paths[path].connections[number].untoldCount >= Self.tellingInterval
    if isTold { paths[path].connections[number].untoldCount = 0 }
    let work = WorkNumber(
      .send, attempt: paths[path].attempt, connection: connection)
    let request = unsafe make(
      work.rawValue, isTold ? .signalled : [], resources(path).pointee)
    do throws(VerbsError) {
      try unsafe identifier(path, number).pointee.post(request)
    } catch { return loss(of: error) }
    return nil
  }
}

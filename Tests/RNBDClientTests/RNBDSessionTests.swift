// SPDX-License-Identifier: Apache-2.0
import RNBDProtocol
import RTRSProtocol
import Testing
import WireFormat

@testable import RNBDClient

/// A session over a scripted transport, driven a turn at a time.
struct Bench: ~Copyable {
  var session: RNBDSession<ScriptedTransport>
  let server: ScriptedServer
  var now: UInt64 = 1
  var events: [SessionEvent] = []

  init(
    pathCount: Int = 1, policy: PathPolicy = .roundRobin, server: ScriptedServer? = nil,
    devices: [String] = ["disk"]
  ) throws {
    let sizes = TransportSizes(requestCount: 4, dataByteCount: 4096, connectionCount: 2)
    let server = server ?? ScriptedServer(pathCount: pathCount)
    self.server = server
    server.deviceCount = devices.count
    var uuids: [RTRSUUID] = []
    for number in 0..<pathCount { uuids.append(RTRSUUID(high: 1, low: UInt64(number))) }
    let client = ClientSession(
      uuid: RTRSUUID(high: 0, low: 1), name: try SessionName("test"), paths: uuids,
      connectionCount: 2, requestCount: 4, policy: policy, at: 0)
    session = RNBDSession(
      client,
      devices: try devices.map { OpenRequest(try DeviceName(ByteString($0)), .readWrite) },
      transport: ScriptedTransport(server, sizes: sizes)
    ) { 0 }
  }

  mutating func turn() {
    while let event = session.next(at: now) { events.append(event) }
  }
  /// Goes on until nothing happens any more within `nanoseconds`.
  mutating func pass(_ nanoseconds: UInt64) {
    let end = now + nanoseconds
    turn()
    while session.wakeNanoseconds <= end {
      now = max(now, session.wakeNanoseconds)
      turn()
    }
    now = end
    turn()
  }
  mutating func write(_ request: UInt16, sector: UInt64, _ byte: UInt8, count: Int = 4096) {
    let room = unsafe session.transport.data(of: request)
    for index in 0..<count { unsafe room[index] = byte }
    session.accept(
      request,
      BlockOperation(device: 0, .write, firstSector: sector, byteCount: UInt32(count)))
  }
  func data(of request: UInt16, count: Int) -> [UInt8] {
    let room = unsafe session.transport.data(of: request)
    return (0..<count).map { unsafe room[$0] }
  }
  var isOpen: Bool { session.isOpen(0) }
  var completed: [UInt16] {
    var requests: [UInt16] = []
    for case .completed(let request, .success) in events { requests.append(request) }
    return requests
  }
}

@Suite("a session of block devices")
struct RNBDSessionTests {
  @Test("opens its device, and moves data both ways")
  func readsAndWrites() throws {
    var bench = try Bench()
    bench.turn()
    #expect(bench.isOpen == true)
    #expect(bench.session.connectedPathCount == 1)
    #expect(bench.events.contains(.pathIsUp(0)))
    bench.write(0, sector: 8, 0x5a)
    bench.session.accept(
      1, BlockOperation(device: 0, .read, firstSector: 16, byteCount: 1024))
    bench.session.accept(2, BlockOperation(device: 0, .flush, firstSector: 0, byteCount: 0))
    bench.session.accept(
      3, BlockOperation(device: 0, .discard, firstSector: 0, byteCount: 1 << 30))
    bench.turn()
    #expect(bench.completed == [0, 1, 2, 3])
    #expect(bench.server.disk[4096..<8192].allSatisfy { $0 == 0x5a })
    #expect(bench.data(of: 1, count: 1024) == Array(bench.server.disk[8192..<9216]))
    #expect(bench.session.outstandingCount == 0)
  }

  /// Source: what Linux's client sends: a flush is a read without data and without a sector.
  @Test("says an operation as Linux's client does")
  func messages() throws {
    var bench = try Bench()
    bench.turn()
    bench.server.sent = []
    bench.session.accept(
      0, BlockOperation(device: 0, .read, flags: .sync, firstSector: 3, byteCount: 512))
    bench.session.accept(
      1, BlockOperation(device: 0, .flush, flags: [.sync, .fua], firstSector: 0, byteCount: 0))
    bench.write(2, sector: 1, 1, count: 512)
    bench.turn()
    let sent = bench.server.sent
    #expect(sent.map(\.messages.count) == [32 + 24, 32 + 8, 32 + 4])
    #expect(sent[0].messages[16] == 0 && sent[0].messages[17] == 1)
    #expect(
      sent[1].messages[8..<20].elementsEqual(Array(repeating: 0xff, count: 8) + [2, 3, 0, 0]))
    #expect(sent[1].messages[32..<40].elementsEqual([3, 0, 32, 0, 0, 0, 0, 0]))
    #expect(sent[2].messages[32..<36].elementsEqual([2, 0, 32, 0]))
    // The message of RTRS lies behind the data and the user's message.
    #expect(sent.map { $0.immediate & 0x1ff_ffff } == [512 + 32, 32, 512 + 32])
    #expect(sent.map(\.connection) == [1, 1, 1])
  }

  @Test(
    "spreads requests over its paths, as the policy says",
    arguments: [
      PathPolicy.roundRobin, .minInFlight,
    ])
  func spreads(policy: PathPolicy) throws {
    var bench = try Bench(pathCount: 2, policy: policy)
    bench.turn()
    #expect(bench.session.connectedPathCount == 2)
    bench.server.isSilent = true
    bench.server.sent = []
    for request in 0..<UInt16(4) { bench.write(request, sector: UInt64(request), 1, count: 512) }
    bench.turn()
    #expect(bench.server.sent.filter { $0.path == 0 }.count == 2)
    #expect(bench.server.sent.filter { $0.path == 1 }.count == 2)
  }

  @Test("repeats on another path what was out on a lost one, with the same content")
  func failsOver() throws {
    var bench = try Bench(pathCount: 2)
    bench.turn()
    bench.server.isSilent = true
    bench.server.sent = []
    for request in 0..<UInt16(4) {
      bench.write(request, sector: UInt64(request) * 8, UInt8(request + 1))
    }
    bench.turn()
    let before = bench.server.sent
    bench.server.breakPath(0)
    bench.turn()
    let repeated = bench.server.sent.dropFirst(4)
    #expect(repeated.count == 2 && repeated.allSatisfy { $0.path == 1 && $0.isRepeated })
    for one in repeated {
      let first = before.first { $0.request == one.request }
      #expect(first?.data == one.data && first?.messages == one.messages)
    }
    bench.server.answerAll()
    bench.turn()
    #expect(bench.completed.sorted() == [0, 1, 2, 3])
    for request in 0..<4 {
      #expect(
        bench.server.disk[(request * 4096)..<((request + 1) * 4096)].allSatisfy {
          $0 == UInt8(request + 1)
        })
    }
    // The device was never closed: nobody opens it again.
    #expect(bench.server.openCount == 1)
  }

  @Test("holds requests while no path lives, and opens the device again before they go on")
  func survivesTotalLoss() throws {
    var bench = try Bench()
    bench.turn()
    bench.server.isSilent = true
    bench.write(0, sector: 0, 1)
    bench.turn()
    bench.server.breakPath(0)
    bench.turn()
    bench.write(1, sector: 8, 2)
    bench.turn()
    #expect(bench.completed.isEmpty && bench.session.outstandingCount == 2)
    bench.server.isSilent = false
    bench.pass(1_000_000_000)
    #expect(bench.completed.sorted() == [0, 1])
    #expect(bench.server.openCount == 2)
    #expect(bench.server.disk[0] == 1 && bench.server.disk[4096] == 2)
    #expect(bench.events.contains(.device(.reopened(device: 0))))
  }

  @Test("carries several devices: all are opened, and again after a loss; one is closed by itself")
  func severalDevices() throws {
    var bench = try Bench(devices: ["a", "b", "c"])
    bench.turn()
    #expect(bench.server.openCount == 3)
    for device in 0..<3 {
      bench.session.accept(
        UInt16(device),
        BlockOperation(device: device, .read, firstSector: UInt64(device), byteCount: 512))
    }
    bench.turn()
    #expect(bench.completed == [0, 1, 2])
    #expect(bench.server.sent.suffix(3).map { $0.messages[4] } == [1, 2, 3])
    // What is lost is held for all of them, until each is open again.
    bench.server.breakPath(0)
    bench.turn()
    for device in 0..<3 {
      bench.session.accept(
        UInt16(device),
        BlockOperation(device: device, .read, firstSector: UInt64(device), byteCount: 512))
    }
    bench.turn()
    #expect(bench.completed == [0, 1, 2])
    bench.pass(1_000_000_000)
    #expect(bench.completed == [0, 1, 2, 0, 1, 2])
    #expect(bench.server.openCount == 6)
    for device in 0..<3 {
      #expect(bench.events.contains(.device(.reopened(device: device))))
    }

    bench.session.close(device: 1)
    bench.turn()
    #expect(bench.server.closed == [5])
    #expect(bench.events.last == .device(.closed(device: 1)))
    let areOpen = [bench.session.isOpen(0), bench.session.isOpen(1), bench.session.isOpen(2)]
    #expect(areOpen == [true, false, true])
    bench.session.accept(
      3, BlockOperation(device: 2, .read, firstSector: 0, byteCount: 512))
    bench.turn()
    #expect(bench.completed.last == 3)
    // It is not asked for again.
    bench.server.breakPath(0)
    bench.pass(1_000_000_000)
    #expect(bench.server.openCount == 8)
  }

  @Test("opens a device that the server has closed, and repeats the request")
  func reopens() throws {
    var bench = try Bench()
    bench.turn()
    bench.server.ioErrors = [.notConnected]
    bench.write(0, sector: 0, 9)
    bench.turn()
    #expect(bench.completed == [0] && bench.server.openCount == 2)
    #expect(bench.server.disk[0] == 9)
  }

  @Test("asks again for a device that is refused")
  func retries() throws {
    let server = ScriptedServer(pathCount: 1)
    server.openErrors = [.notPermitted, .notPermitted]
    var bench = try Bench(server: server)
    bench.turn()
    #expect(bench.isOpen == false)
    bench.pass(1_500_000_000)
    #expect(bench.isOpen == false && server.openCount == 2)
    bench.pass(1_000_000_000)
    #expect(bench.isOpen == true)
    #expect(bench.events.filter { $0 == .device(.refused(device: 0, .notPermitted)) }.count == 2)
  }

  @Test("says when another device stands behind the name, and sends it nothing")
  func refusesAnotherDevice() throws {
    var bench = try Bench()
    bench.turn()
    bench.server.sectorCount = 64
    bench.server.breakPath(0)
    bench.turn()
    bench.write(0, sector: 0, 1)
    bench.pass(1_000_000_000)
    let told = bench.events.contains { event in
      if case .device(.changed) = event { true } else { false }
    }
    #expect(told)
    #expect(bench.completed.isEmpty)
    #expect(bench.server.disk[0] != 1 || bench.server.disk[1] != 1)
    let isHeld = bench.session.has(0)
    let isGivenUp = bench.session.abandon(0)
    #expect(isHeld && isGivenUp)
    #expect(bench.session.outstandingCount == 0)
  }

  @Test("passes an error of the server's on", arguments: [PeerErrno.io, .noSpace, .notSupported])
  func errors(error: PeerErrno) throws {
    var bench = try Bench()
    bench.turn()
    bench.server.ioErrors = [error]
    bench.write(0, sector: 0, 1)
    bench.turn()
    #expect(bench.events.last == .completed(request: 0, error: error))
  }

  @Test("lives through the failure of whichever call fails", arguments: 1...2)
  func everyCallMayFail(pathCount: Int) throws {
    func run(failing call: Int) throws -> (callCount: Int, completed: [UInt16], disk: UInt8) {
      let server = ScriptedServer(pathCount: pathCount)
      server.failingCall = call
      var bench = try Bench(pathCount: pathCount, server: server)
      bench.turn()
      for request in 0..<UInt16(4) {
        bench.write(request, sector: UInt64(request) * 8, UInt8(request + 1))
      }
      bench.pass(3_000_000_000)
      return (server.callCount, bench.completed.sorted(), server.disk[3 * 4096])
    }
    let callCount = try run(failing: 0).callCount
    #expect(callCount > 8)
    for call in 1...callCount {
      let outcome = try run(failing: call)
      #expect(outcome.completed == [0, 1, 2, 3], "call \(call) of \(callCount)")
      #expect(outcome.disk == 4)
    }
  }

  @Test("tears a path down that it is told to close, and brings none back")
  func closes() throws {
    var bench = try Bench(pathCount: 2)
    bench.turn()
    bench.session.close()
    bench.turn()
    #expect(bench.server.tearDownCount == 2)
    bench.pass(60_000_000_000)
    #expect(bench.session.connectedPathCount == 0 && bench.server.connectionCounts == [0, 0])
  }
}

@Suite("the registered memory of a session")
struct TransportLayoutTests {
  static let sizes: [TransportSizes] = [
    TransportSizes(requestCount: 1, dataByteCount: 4096, connectionCount: 1),
    TransportSizes(requestCount: 64, dataByteCount: 128 << 10, connectionCount: 2),
    TransportSizes(requestCount: 128, dataByteCount: 1 << 20, connectionCount: 17),
  ]

  @Test("has a place of its own for everything", arguments: sizes)
  func places(sizes: TransportSizes) {
    let layout = TransportLayout(sizes: sizes)
    var end = 0
    for request in 0...sizes.requestCount {
      #expect(layout.dataOffset(request) == end)
      end += layout.dataRoom(request)
    }
    #expect(layout.dataPagesByteCount == end)
    end = 0
    for request in 0...sizes.requestCount {
      #expect(layout.messageOffset(request) == end)
      end += layout.messageRoom(request)
    }
    #expect(layout.messagePagesByteCount == end)
    #expect(layout.informationMessageOffset >= layout.informationByteCount)
    end = layout.informationMessageOffset + PathInformationRequest.byteCount
    for connection in 0..<sizes.connectionCount {
      for index in 0..<layout.receiveCount(connection) {
        #expect(layout.receiveOffset(connection, index) >= end)
        end = layout.receiveOffset(connection, index) + TransportLayout.receiveStride
      }
      #expect(layout.receiveCount(connection) > 0)
      #expect(layout.sendCount(connection) > RDMATransport.tellingInterval)
    }
    #expect(layout.pathPagesByteCount >= end)
  }

  @Test("names what was posted, and forgets nothing of it")
  func workNumbers() {
    for number in [
      WorkNumber(.send, attempt: 0, connection: 0),
      WorkNumber(.receive, attempt: .max, connection: 4095, index: 0xff_ffff),
      WorkNumber(.information, attempt: 7, connection: 1, index: 3),
    ] {
      #expect(WorkNumber(rawValue: number.rawValue) == number)
    }
    #expect(WorkNumber(rawValue: 3 << 56) == nil)
  }
}

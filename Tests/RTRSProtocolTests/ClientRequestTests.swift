// SPDX-License-Identifier: Apache-2.0
// What is posted for a request, and what a server may answer.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

@Suite("A client's request")
struct ClientRequestTests {
  @Test("goes to the start of its chunk, or behind the room for what it reads")
  func places() throws {
    let client = PlayedClient()
    client.bringUp()
    client.accept(0, .toServer)
    client.accept(1, .toClient)
    let postings = client.postings()
    #expect(postings.map(\.address) == [client.address(0, 0), client.address(0, 1) + 4096])
    #expect(postings.map(\.key) == [100, 100])
    // Both messages of RTRS lie at 4096 + 32. Depth 4 takes 2 bits of 28.
    #expect(postings.map(\.immediate) == [0x0000_1020, 1 << 26 | 0x1020])
    #expect(postings.map(\.connection) == [1, 1])
  }

  @Test("takes the connections in turn, and control goes over the first")
  func connections() {
    let client = PlayedClient(connections: 3)
    client.bringUp()
    for request in UInt16(0)..<3 { client.accept(request) }
    client.session.accept(
      client.session.controlRequest, .toServer, dataByteCount: 0, userByteCount: 8)
    #expect(client.postings().map(\.connection) == [0, 1, 2, 1])
    let single = PlayedClient(connections: 1)
    single.bringUp()
    single.accept(0)
    #expect(single.postings().map(\.connection) == [0])
  }

  @Test("over an only connection waits when 128 are out")
  func sharedConnection() {
    let client = PlayedClient(connections: 1, requests: 300)
    client.geometry = try! ChunkGeometry(
      queueDepth: 512, dataByteCountMaximum: 126_976, headerByteCountMaximum: 4096)
    client.bringUp()
    for request in UInt16(0)..<300 { client.accept(request) }
    let postings = client.postings()
    #expect(postings.count == 128)
    #expect(Set(postings.map { client.chunk(of: $0) }).count == 128)
    _ = client.answer(postings[5])
    #expect(client.postings().count == 1)
  }

  @Test("waits when the chunks are all in use, and takes the one that comes free")
  func chunksInUse() {
    let client = PlayedClient()
    client.bringUp()
    for request in UInt16(0)..<8 { client.accept(request) }
    let postings = client.postings()
    #expect(postings.map { client.chunk(of: $0) } == [0, 1, 2])
    #expect(client.session.waitingCount == 5)
    #expect(
      client.answer(postings[1], error: .notConnected)
        == .completed(request: 1, error: .notConnected))
    let next = client.postings()
    #expect(next.map(\.request) == [3])
    #expect(client.chunk(of: next[0]) == 1)
    #expect(!next[0].isRepeated)
  }

  @Test("uses the key that came with the answer before, on that path")
  func refreshedKeys() {
    let client = PlayedClient(paths: 2)
    client.flags = .refreshesKeys
    client.bringUp()
    client.accept(0)
    let first = client.postings()[0]
    #expect(first.key == UInt32(100 + first.path))
    #expect(client.answer(first, key: 0xabcd) == .completed(request: 0, error: .success))
    var keys: Set<UInt32> = []
    for request in UInt16(0)..<2 {
      client.accept(request)
      let posting = client.postings()[0]
      // The chunk is the same; the other path has its key as it was.
      #expect(client.chunk(of: posting) == 0)
      #expect(posting.key == (posting.path == first.path ? 0xabcd : UInt32(100 + posting.path)))
      keys.insert(posting.key)
      _ = client.answer(posting, key: posting.key)
    }
    #expect(keys.count == 2)
  }

  @Test("ends its path when the answer is none")
  func violations() {
    func loss(
      refreshes: Bool = false, connection: UInt16 = 1, immediate: Immediate?,
      bytes: [UInt8] = []
    ) -> PathLoss? {
      let client = PlayedClient(connections: 3)
      if refreshes { client.flags = .refreshesKeys }
      client.bringUp()
      client.accept(0)
      _ = client.postings()
      let receipt = client.session.received(
        0, connection: connection, immediate: immediate?.rawValue, bytes: bytes.span,
        at: client.now)
      _ = client.play(0)
      #expect((receipt == .pathLost) == !client.losses.isEmpty)
      return client.losses.first
    }
    func response(_ chunk: UInt32) -> Immediate {
      .response(ChunkResponse(chunk: chunk, error: .success, isInvalidated: false))
    }
    #expect(loss(immediate: response(0)) == nil)
    #expect(loss(immediate: response(1)) == .unexpectedAnswer(chunk: 1))
    #expect(loss(immediate: response(4)) == .unexpectedAnswer(chunk: 4))
    #expect(loss(immediate: response(0x7ffff)) == .unexpectedAnswer(chunk: 0x7ffff))
    #expect(loss(connection: 2, immediate: response(0)) == .unexpectedAnswer(chunk: 0))
    #expect(loss(refreshes: true, immediate: response(0)) == .keyMissing(chunk: 0))
    #expect(
      loss(
        refreshes: true, immediate: response(0), bytes: KeyMessage(chunk: 1, key: 5).encoded)
        == .keyMissing(chunk: 0))
    #expect(
      loss(refreshes: true, immediate: response(0), bytes: [4, 0, 0])
        == .malformed(.byteCount(expected: 8, actual: 3)))
    #expect(loss(immediate: nil, bytes: [1, 2]) == .unexpectedMessage(byteCount: 2))
    // An empty SEND has invalidated a key; types that nobody knows are none of ours.
    #expect(loss(immediate: nil) == nil)
    #expect(loss(immediate: .unknown(0x3000_0000)) == nil)
    #expect(loss(immediate: .request(payload: 0)) == nil)
  }

  @Test("is answered once")
  func answeredTwice() {
    let client = PlayedClient()
    client.bringUp()
    client.accept(0)
    let posting = client.postings()[0]
    #expect(client.answer(posting) == .completed(request: 0, error: .success))
    #expect(client.answer(posting) == .pathLost)
    _ = client.play(0)
    #expect(client.losses == [.unexpectedAnswer(chunk: 0)])
  }

  @Test("is never lost and never answered twice, whatever happens to the paths")
  func randomEvents() {
    var generator = SeededGenerator(printingAs: "ClientSession events")
    for _ in 0..<40 {
      let client = PlayedClient(paths: 3, connections: 3, requests: 12)
      client.bringUp()
      var out: [UInt16: Posting] = [:]
      var accepted: Set<UInt16> = []
      func check() {
        #expect(client.session.outstandingCount == accepted.count)
        let chunks = out.values.map { client.chunk(of: $0) }
        #expect(Set(chunks).count == chunks.count)
        #expect(chunks.allSatisfy { $0 < 3 })
      }
      for _ in 0..<400 {
        let path = Int.random(in: 0..<3, using: &generator)
        switch Int.random(in: 0..<12, using: &generator) {
        case 0: client.session.lost(path, .disconnected)
        case 1: client.now += UInt64.random(in: 0...4_000_000_000, using: &generator)
        case 2...4:
          let wasConnected = client.session.isConnected(path)
          _ = client.play(path)
          if !wasConnected || !client.session.isConnected(path) {
            for (request, posting) in out where posting.path == path { out[request] = nil }
          }
          if client.session.isHeld, client.session.connectedPathCount > 0 {
            client.session.resume()
          }
        case 5...7:
          let request = UInt16.random(in: 0..<12, using: &generator)
          if accepted.insert(request).inserted { client.accept(request) }
        case 8...9:
          guard let posting = out.values.randomElement(using: &generator) else { break }
          let isConnected = client.session.isConnected(posting.path)
          let receipt = client.answer(posting)
          #expect(
            receipt
              == (isConnected
                ? .completed(request: posting.request, error: .success) : .nothing))
          if isConnected {
            out[posting.request] = nil
            accepted.remove(posting.request)
          }
        default:
          for posting in client.postings() {
            #expect(accepted.contains(posting.request))
            #expect(out[posting.request] == nil)
            #expect(client.session.isConnected(posting.path))
            out[posting.request] = posting
          }
        }
        check()
      }
      // Everything is answered in the end.
      for _ in 0..<20 {
        client.now += 500_000_000
        for path in 0..<3 {
          let wasConnected = client.session.isConnected(path)
          _ = client.play(path)
          if !wasConnected || !client.session.isConnected(path) {
            for (request, posting) in out where posting.path == path { out[request] = nil }
          }
          _ = client.receive(path, .heartbeatAcknowledgement)
        }
        client.session.resume()
        for posting in client.postings() { out[posting.request] = posting }
        for posting in out.values {
          #expect(
            client.answer(posting) == .completed(request: posting.request, error: .success))
          accepted.remove(posting.request)
        }
        out = [:]
      }
      #expect(accepted.isEmpty)
      #expect(client.session.outstandingCount == 0)
    }
  }
}

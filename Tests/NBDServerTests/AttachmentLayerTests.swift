// SPDX-License-Identifier: Apache-2.0
// The layer of an overlay export belongs to the attachment: all of its connections see it, and it
// waits for a client that has lost them.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol
import NBDServer
import TestSupport
import Testing
import WireFormat

@Suite("The layer of an attachment")
struct AttachmentLayerTests {
  let directory: TemporaryDirectory
  let base = MemoryBackend(contents: [UInt8](repeating: 1, count: 1 << 20))

  init() throws { directory = try TemporaryDirectory() }

  private func server(_ change: (inout Attachments.Limits) -> Void = { _ in }) throws
    -> ServerUnderTest
  {
    var limits = Attachments.Limits()
    change(&limits)
    return try ServerUnderTest(
      [
        Export(
          name: "disk", access: .overlay, base: base, overlayDirectory: .init(directory.path))
      ], attachments: Attachments(limits: limits))
  }

  private func write(_ byte: UInt8, _ client: TestClient) throws {
    let request = Request(command: .write, cookie: 1, offset: 100, length: 1)
    #expect(try client.ask(request, [byte]) == .none)
  }

  private func read(_ client: TestClient) throws -> UInt8 {
    #expect(try client.ask(Request(command: .read, cookie: 2, offset: 100, length: 1)) == .none)
    return client.lastData[0]
  }

  private func disconnect(_ client: TestClient) throws {
    try client.send(Request(command: .disconnect, cookie: 0).encoded)
    _ = try client.receiveToEnd()
  }

  @Test("is shared by its connections, and by nobody else, and they may be several")
  func sharing() throws {
    let server = try server()
    let first = try server.enter(as: identity(1))
    let second = try server.enter(as: identity(1, slot: 1))
    let other = try server.enter(as: identity(1, token: 2))
    let nameless = try server.enter()
    try write(7, first)
    #expect(try read(second) == 7)
    #expect(try read(other) == 1)
    #expect(try read(nameless) == 1)
    #expect(first.flags.contains(.canMultiConn) && !nameless.flags.contains(.canMultiConn))
    #expect(base.bytes.allSatisfy { $0 == 1 })
  }

  @Test("waits for a client whose connections were lost")
  func comingBack() throws {
    let server = try server()
    do {
      let lost = try server.enter(as: identity(1))
      try write(7, lost)
    }
    try server.waitForEnd()
    #expect(server.attachments.absentCount == 1)
    server.attachments.expire()
    let back = try server.enter(as: identity(2, .resume))
    #expect(try read(back) == 7)
    #expect(server.attachments.absentCount == 0)
  }

  @Test("is shared with the connection that takes over")
  func takeover() throws {
    let server = try server()
    let old = try server.enter(as: identity(1))
    try write(7, old)
    let new = try server.enter(as: identity(2, .resume))
    #expect(try read(new) == 7)
  }

  @Test("ends when the client says goodbye on its last connection")
  func goodbye() throws {
    let server = try server()
    let first = try server.enter(as: identity(1))
    let second = try server.enter(as: identity(1, slot: 1))
    try write(7, first)
    try disconnect(first)
    #expect(try read(second) == 7)
    try disconnect(second)
    try server.waitForEnd()
    #expect(server.attachments.count == 0)
    let refusal = try server.refusal(as: identity(2, .resume))
    #expect(refusal.type == .errUnknown)
    #expect(refusal.text.hasPrefix("the overlay of this attachment is gone"))
    #expect(server.attachments.count == 0, "who was refused leaves nothing behind")
    // A new beginning is welcome.
    #expect(try read(server.enter(as: identity(3))) == 1)
  }

  @Test("ends when the last of its connections is lost after the goodbye of the others")
  func goodbyeBeforeLoss() throws {
    let server = try server()
    do {
      let hanging = try server.enter(as: identity(1))
      let living = try server.enter(as: identity(1, slot: 1))
      try write(7, hanging)
      try disconnect(living)
      while server.registry.connectionCount > 1 { pause(milliseconds: 1) }
      #expect(server.attachments.count == 1)
    }
    try server.waitForEnd()
    #expect(server.attachments.count == 0)
  }

  @Test("outlives the goodbye of one connection when another one goes on")
  func goodbyeOfOne() throws {
    let server = try server()
    do {
      let first = try server.enter(as: identity(1))
      let second = try server.enter(as: identity(1, slot: 1))
      try disconnect(first)
      while server.registry.connectionCount > 1 { pause(milliseconds: 1) }
      try write(7, second)
    }
    try server.waitForEnd()
    #expect(try read(server.enter(as: identity(2, .resume))) == 7)
  }

  @Test("ends when the client has stayed away for too long")
  func absence() throws {
    let server = try server { $0.absentSeconds = 600 }
    do { try write(7, server.enter(as: identity(1))) }
    try server.waitForEnd()
    server.attachments.expire(at: MonotonicTime.now.advanced(byMilliseconds: 599_000))
    #expect(server.attachments.count == 1)
    server.attachments.expire(at: MonotonicTime.now.advanced(byMilliseconds: 600_000))
    #expect(server.attachments.count == 0)
    #expect(try server.refusal(as: identity(2, .resume)).type == .errUnknown)
  }

  @Test("makes room for others when too many clients have stayed away: the longest away first")
  func tooManyAbsent() throws {
    let server = try server { $0.absentCount = 2 }
    let staying = try server.enter(as: identity(1, token: 9))
    for token: UInt64 in 1...4 {
      do { try write(UInt8(token), server.enter(as: identity(1, token: token))) }
      try wait("the end") { server.registry.connectionCount == 1 }
    }
    #expect(server.attachments.count == 3)
    #expect(try server.refusal(as: identity(2, .resume, token: 2)).type == .errUnknown)
    for token: UInt64 in 3...4 {
      #expect(try read(server.enter(as: identity(2, .resume, token: token))) == UInt8(token))
    }
    #expect(try read(staying) == 1)
  }

  @Test("is not needed to come back to an export that has none")
  func withoutLayers() throws {
    let server = try ServerUnderTest(base)
    let client = try server.enter(as: identity(1, .resume))
    #expect(try read(client) == 1)
  }
}

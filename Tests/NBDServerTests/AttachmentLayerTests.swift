// SPDX-License-Identifier: Apache-2.0
// The layer of an overlay export belongs to the attachment: all of its connections see it, and it
// waits for a client that has lost them.

import BlockBackends
import BlockServer
import Foundation
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
    let status = server.registry.status(
      of: server.table, attachments: server.attachments, listeners: [])
    #expect(status.exports.map(\.absentAttachments) == [1])
    #expect(status.text.contains("1 since the start; 1 absent; 0 reads"))
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

  /// A server whose layers outlive it; each call is a new server over the same image.
  private func keepingServer(
    _ name: ByteString = "disk", modifiedSeconds: UInt64 = 1
  ) throws -> (ServerUnderTest, Export) {
    let export = Export(
      name: name, access: .overlay, base: base, layersDirectory: .init(directory.path),
      modifiedSeconds: modifiedSeconds)
    return (try ServerUnderTest([export]), export)
  }

  private var files: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: directory.path) }
  }

  @Test("outlives the server where there is a directory for it, and ends with the goodbye")
  func restart() throws {
    do {
      let (server, _) = try keepingServer()
      do { try write(7, server.enter(as: identity(1))) }
      try server.waitForEnd()
    }
    let (server, export) = try keepingServer()
    #expect(server.attachments.adopt(export).isEmpty)
    #expect(server.attachments.absentCount == 1)
    let back = try server.enter(as: identity(2, .resume))
    #expect(try read(back) == 7)
    let sibling = try server.enter(as: identity(2, slot: 1))
    #expect(try read(sibling) == 7)
    #expect(try files.count == 1)
    try disconnect(sibling)
    try disconnect(back)
    try server.waitForEnd()
    #expect(try files == [])
    #expect(try server.refusal(as: identity(3, .resume)).type == .errUnknown)
  }

  @Test("is removed when nobody comes for it after the server's start, and no other file is")
  func adoption() throws {
    do {
      let (server, _) = try keepingServer()
      do { try write(7, server.enter(as: identity(1))) }
      do { try write(8, server.enter(as: identity(1, token: 2))) }
      try server.waitForEnd()
      let (other, _) = try keepingServer("other")
      do { try write(9, other.enter("other", as: identity(1))) }
      try other.waitForEnd()
    }
    let names = try files.sorted()
    #expect(names.count == 3)
    // A stranger by the name of a layer, and files that have nothing to do with layers.
    let mine = try #require(names.first { $0.hasPrefix("00000000000000000000000000000002-") })
    try Data("hello".utf8).write(to: URL(fileURLWithPath: directory.path(mine)))
    try directory.file("notes.layer")
    try directory.file("image")

    let (server, export) = try keepingServer()
    #expect(server.attachments.adopt(export) == [ByteString(directory.path(mine))])
    #expect(server.attachments.absentCount == 1)
    server.attachments.expire(at: MonotonicTime.now.advanced(byMilliseconds: 601_000))
    #expect(server.attachments.count == 0)
    #expect(try files.count == 4)
    #expect(try files.contains(mine))
    let (other, _) = try keepingServer("other")
    #expect(try read(other.enter("other", as: identity(2, .resume))) == 9)
  }

  @Test("is not given up at the start because there are many, and later the oldest goes first")
  func manyKept() throws {
    do {
      let (server, _) = try keepingServer()
      for token: UInt64 in 1...4 {
        do { try write(UInt8(token), server.enter(as: identity(1, token: token))) }
        try server.waitForEnd()
      }
    }
    // The layer of 3 is the one that was written to first.
    for name in try files {
      let seconds = name.hasPrefix("00000000000000000000000000000003-") ? 1000.0 : 2000.0
      try FileManager.default.setAttributes(
        [.modificationDate: Date(timeIntervalSince1970: seconds)],
        ofItemAtPath: directory.path(name))
    }
    var limits = Attachments.Limits()
    limits.absentCount = 3
    let attachments = Attachments(limits: limits)
    let (_, export) = try keepingServer()
    let server = try ServerUnderTest([export], attachments: attachments)
    #expect(attachments.adopt(export).isEmpty)
    #expect(attachments.absentCount == 4)
    do { #expect(try read(server.enter(as: identity(2, .resume, token: 1))) == 1) }
    try server.waitForEnd()
    #expect(attachments.absentCount == 3)
    #expect(try server.refusal(as: identity(3, .resume, token: 3)).type == .errUnknown)
    #expect(try files.count == 3)
  }

  @Test("is refused with a sentence when it is damaged or the image is not what it was")
  func unusable() throws {
    do {
      let (server, _) = try keepingServer()
      do { try write(7, server.enter(as: identity(1))) }
      try server.waitForEnd()
    }
    let file = directory.path(try #require(try files.first))
    let (changed, _) = try keepingServer(modifiedSeconds: 2)
    for claim in [identity(2, .resume), identity(3)] {
      let refusal = try changed.refusal(as: claim)
      #expect(refusal.type == .errUnknown)
      #expect(refusal.text.contains("cannot be used any more"))
      #expect(!refusal.text.contains(directory.path))
    }
    try changed.waitForEnd()
    let line = try #require(changed.failures.last)
    #expect(line == "the layer \(file) does not belong here: the image has been written to since")

    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: file))
    try handle.truncate(atOffset: 70_000)
    try handle.close()
    let (server, _) = try keepingServer()
    #expect(try server.refusal(as: identity(2, .resume)).type == .errUnknown)
    try server.waitForEnd()
    #expect(server.failures.last?.contains("is damaged: its length") == true)
    #expect(try files.count == 1, "what was not understood is not removed")
  }

  @Test("is not needed to come back to an export that has none")
  func withoutLayers() throws {
    let server = try ServerUnderTest(base)
    let client = try server.enter(as: identity(1, .resume))
    #expect(try read(client) == 1)
  }
}

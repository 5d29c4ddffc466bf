// SPDX-License-Identifier: Apache-2.0
import NBDProtocol
import TestSupport
import Testing
import WireFormat

@testable import BootExecution

@Suite("A server that refuses every request")
struct RefusedRequestsTests {
  /// Requests as the kernel sends them, a write's payload behind it.
  static let requests: [Request] = [
    Request(command: .read, cookie: 1, offset: 4096, length: 65536),
    Request(flags: .fua, command: .write, cookie: 2, offset: 0, length: 5000),
    Request(command: .flush, cookie: .max),
    Request(command: .write, cookie: 3, offset: 0, length: 0),
    Request(command: .trim, cookie: 4, offset: 0, length: 1 << 30),
    Request(command: .write, cookie: 5, offset: 512, length: 1),
  ]

  static func stream(_ requests: [Request]) -> [UInt8] {
    var bytes: [UInt8] = []
    for request in requests {
      bytes += request.encoded
      if request.command == .write {
        bytes += [UInt8](repeating: 0x25, count: Int(request.length))
      }
    }
    return bytes
  }

  /// The cookies refused, and whether the stream was ended.
  static func feed(_ bytes: [UInt8], piece: Int) -> (cookies: [UInt64], ended: Bool) {
    var refused = RefusedRequests()
    var cookies: [UInt64] = []
    for start in stride(from: 0, to: bytes.count, by: piece) {
      let part = Array(bytes[start..<min(start + piece, bytes.count)])
      var position = 0
      events: while true {
        switch refused.next(part.span, at: &position) {
        case .needsMore: break events
        case .ended: return (cookies, true)
        case .refused(let cookie): cookies.append(cookie)
        }
      }
    }
    return (cookies, false)
  }

  @Test(
    "refuses each once, in whatever pieces they come", arguments: [1, 2, 27, 28, 29, 4096, 1 << 20])
  func pieces(piece: Int) {
    let (cookies, ended) = Self.feed(Self.stream(Self.requests), piece: piece)
    #expect(cookies == [1, 2, .max, 3, 4, 5])
    #expect(!ended)
  }

  @Test("ends with a farewell, and with what is no request")
  func ends() {
    let farewell = Self.stream([Request(command: .disconnect, cookie: 0)])
    #expect(Self.feed(farewell, piece: 28).ended)
    var wrong = Self.stream([Self.requests[0]])
    wrong[3] ^= 1
    #expect(Self.feed(wrong, piece: 7).ended)
  }

  @Test("answers with a simple reply and EIO")
  func reply() throws {
    var bytes = InlineArray<16, UInt8>(repeating: 0xff)
    RefusedRequests.reply(to: 0x0102_0304_0506_0708, into: &bytes)
    let reply = try SimpleReply(decoding: bytes.span)
    #expect(reply == SimpleReply(error: .eio, cookie: 0x0102_0304_0506_0708))
  }
}

@Suite("The units that have systemd tell when it goes down")
struct ShutdownUnitTests {
  @Test("hold a FIFO each, conflict with the end, and stay when a rescue system is isolated")
  func units() throws {
    for (name, conflict) in [
      ("shutdown", "Conflicts=shutdown.target"),
      ("restart", "Conflicts=reboot.target kexec.target"),
      ("system", ""),
    ] {
      let unit = try #require(
        ShutdownSigns.units.first {
          $0.path == ByteString("/run/systemd/system/rootlink-\(name).socket")
        })
      let lines = String(decoding: unit.text.bytes, as: UTF8.self).split(separator: "\n")
      for line in [
        "DefaultDependencies=no", "IgnoreOnIsolate=yes", Substring(conflict),
        "ListenFIFO=/run/rootlink/\(name)", "SocketMode=0600", "Service=rootlink-told.service",
      ] where !line.isEmpty { #expect(lines.contains(line), "\(line)") }
    }
  }
}

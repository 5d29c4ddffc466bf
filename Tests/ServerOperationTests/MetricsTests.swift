// SPDX-License-Identifier: Apache-2.0
import BlockServer
import CLinux
import Foundation
import LinuxSystem
import Testing
import WireFormat

@testable import ServerOperation

@Suite("Metrics")
struct MetricsTests {
  static func status() throws -> ServerStatus {
    let json = """
      {"listening":["tcp:[::]:10809"],"connections":3,"connectionsRefused":2,
       "connectionsAccepted":9,"connectionsIdled":1,"bufferBytes":4096,"seconds":77,
       "version":"1.2","transportSessions":[],
       "reload":{"succeeded":false,"done":4,"refused":5,"reason":"x"},
       "exports":[{"name":"a \\"b\\" \\\\ c\\n","path":"/p","description":"","access":"rw",
         "size":1048576,"sessionsSinceStart":7,"absentAttachments":1,"writers":1,
         "counters":{"reads":10,"readBytes":20,"writes":30,"writtenBytes":40,"zeroes":50,"trims":60,
           "flushes":70,"errors":80},
         "sessions":[],
         "media":[{"path":"/dev/sda","role":"half of a mirror","state":"good"}],
         "work":[{"what":"resync of /dev/sdb","doneBytes":5,"totalBytes":10}]}]}
      """
    return try JSONDecoder().decode(ServerStatus.self, from: Data(json.utf8))
  }

  /// Source of the forms: Prometheus, "Text-based exposition format".
  static let lines = [
    "# TYPE rootlinkd_connections gauge", "rootlinkd_connections 3",
    "rootlinkd_connections_accepted_total 9", "rootlinkd_connections_refused_total 2",
    "rootlinkd_connections_idled_total 1", "rootlinkd_buffer_bytes 4096",
    "rootlinkd_uptime_seconds 77", "rootlinkd_info{version=\"1.2\"} 1",
    "rootlinkd_reloads_total{result=\"done\"} 4", "rootlinkd_reloads_total{result=\"refused\"} 5",
    "rootlinkd_export_size_bytes{export=\"a \\\"b\\\" \\\\ c\\n\"} 1048576",
    "rootlinkd_export_sessions_total{export=\"a \\\"b\\\" \\\\ c\\n\"} 7",
    "rootlinkd_export_writers{export=\"a \\\"b\\\" \\\\ c\\n\"} 1",
    "rootlinkd_export_requests_total{export=\"a \\\"b\\\" \\\\ c\\n\",operation=\"trim\"} 60",
    "rootlinkd_export_read_bytes_total{export=\"a \\\"b\\\" \\\\ c\\n\"} 20",
    "rootlinkd_export_errors_total{export=\"a \\\"b\\\" \\\\ c\\n\"} 80",
    "rootlinkd_export_medium{export=\"a \\\"b\\\" \\\\ c\\n\",path=\"/dev/sda\","
      + "role=\"half of a mirror\",state=\"good\"} 1",
    "rootlinkd_export_work_done_bytes{export=\"a \\\"b\\\" \\\\ c\\n\",work=\"resync of /dev/sdb\"} 5",
    "process_cpu_seconds_total 1.5", "process_open_fds 9",
  ]

  @Test("are what the server's status says", arguments: lines)
  func line(line: String) throws {
    var usage = ProcessUsage()
    usage.cpuSeconds = 1.5
    usage.descriptorCount = 9
    let text = MetricsText(try Self.status(), usage).text
    #expect(text.split(separator: "\n").contains(Substring(line)), "\(text)")
  }

  @Test("are text in the format, each family once and with its kind")
  func format() throws {
    let text = MetricsText(try Self.status(), .own).text
    #expect(text.hasSuffix("\n"))
    var families: [String] = []
    for line in text.split(separator: "\n") {
      if line.hasPrefix("# TYPE ") {
        families.append(String(line.split(separator: " ")[2]))
      } else if !line.hasPrefix("#") {
        #expect(line.wholeMatch(of: /[a-z_]+(\{.*\})? [0-9.e+-]+/) != nil, "\(line)")
        #expect(line.hasPrefix(families.last ?? "?"), "\(line)")
      }
    }
    #expect(Set(families).count == families.count)
  }

  @Test("of this process can be told")
  func usage() {
    let usage = ProcessUsage.own
    #expect(usage.cpuSeconds > 0 && usage.residentBytes > 1 << 20 && usage.descriptorCount > 2)
  }
}

@Suite("A request for metrics")
struct HTTPRequestTests {
  /// Source: RFC 9112.
  static let heads: [(text: String, progress: HTTPRequestHead.Progress)] = [
    ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", .request(method: "GET", target: "/metrics")),
    ("GET /metrics HTTP/1.0\r\n\r\n", .request(method: "GET", target: "/metrics")),
    ("GET /metrics HTTP/1.1\n\n", .request(method: "GET", target: "/metrics")),
    ("\r\nGET / HTTP/1.1\r\n\r\n", .request(method: "GET", target: "/")),
    ("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", .request(method: "POST", target: "/a")),
    ("GET /metrics HTTP/1.1\r\n", .wantsMore), ("", .wantsMore), ("GET", .wantsMore),
    ("GET /metrics HTTP/2.0\r\n\r\n", .refused(.versionNotSupported)),
    ("GET /metrics\r\n\r\n", .refused(.badRequest)),
    ("GET  / HTTP/1.1\r\n\r\n", .refused(.badRequest)),
    ("get / HTTP/1.1\r\n\r\n", .refused(.badRequest)),
    ("GET a HTTP/1.1\r\n\r\n", .refused(.badRequest)),
    ("NBDMAGIC\n\n", .refused(.badRequest)),
    ("GET /" + String(repeating: "a", count: 9000), .refused(.headTooLong)),
    (
      "GET / HTTP/1.1\r\nA: " + String(repeating: "a", count: 9000) + "\r\n\r\n",
      .refused(.headTooLong)
    ),
  ]

  @Test("is read whole and in every split", arguments: heads.indices)
  func head(index: Int) {
    let (text, progress) = Self.heads[index]
    let bytes = Array(text.utf8)
    var whole = HTTPRequestHead()
    #expect(whole.receive(bytes) == progress)
    var single = HTTPRequestHead()
    var last = HTTPRequestHead.Progress.wantsMore
    for byte in bytes where last == .wantsMore { last = single.receive([byte]) }
    #expect(last == progress)
  }

  static let answers: [(method: ByteString, target: ByteString, status: String, hasBody: Bool)] = [
    ("GET", "/metrics", "200 OK", true), ("GET", "/metrics?x=1", "200 OK", true),
    ("HEAD", "/metrics", "200 OK", false), ("GET", "/", "200 OK", true),
    ("GET", "/secret", "404 Not Found", true), ("POST", "/metrics", "405 Method Not Allowed", true),
  ]

  @Test("gets an answer with its length, after which nothing comes", arguments: answers)
  func answer(method: ByteString, target: ByteString, status: String, hasBody: Bool) throws {
    let answer = HTTPAnswer(method: method, target: target) { "m 1\n" }
    let text = String(decoding: answer.encoded, as: UTF8.self)
    #expect(text.hasPrefix("HTTP/1.1 \(status)\r\n"))
    #expect(text.contains("Connection: close\r\n"))
    // A line end of two bytes is one Character.
    let end = try #require(text.range(of: "\r\n\r\n"))
    let body = text[end.upperBound...]
    #expect(body.isEmpty != hasBody)
    if hasBody { #expect(text.contains("Content-Length: \(body.utf8.count)\r\n")) }
    if method != "POST", target.hasPrefix("/metrics"), hasBody { #expect(body == "m 1\n") }
  }
}

@Suite("Who answers for metrics", .serialized)
struct MetricsAnswererTests {
  /// Both ends of a connection; ours, and one that the answerer takes over.
  private func connect(to answerer: MetricsAnswerer) throws -> StreamSocket {
    var numbers: [CInt] = [0, 0]
    let result = unsafe numbers.withUnsafeMutableBufferPointer { numbers in
      // SAFETY: room for two.
      unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, numbers.baseAddress!)
    }
    try #require(result == 0)
    for number in numbers { _ = clinux_set_blocking(number, 0) }
    answerer.serve(FileDescriptor(owning: numbers[1]))
    return StreamSocket(owning: FileDescriptor(owning: numbers[0]))
  }

  private func answer(_ socket: borrowing StreamSocket) throws -> String {
    var bytes: [UInt8] = []
    while true {
      let count = bytes.count
      try socket.receive(into: &bytes, maximum: 4096, until: .milliseconds(10_000))
      if bytes.count == count { return String(decoding: bytes, as: UTF8.self) }
    }
  }

  @Test("answers once and ends the connection")
  func answers() throws {
    let answerer = MetricsAnswerer { "up 1\n" }
    let ours = try connect(to: answerer)
    try ours.send(Array("GET /metrics HTTP/1.1\r\n\r\n".utf8), until: .milliseconds(1000))
    #expect(try answer(ours).hasSuffix("\r\n\r\nup 1\n"))
  }

  @Test("gives up on one that is slow, and turns away what is too much")
  func limits() throws {
    let answerer = MetricsAnswerer(deadlineMilliseconds: 300) { "up 1\n" }
    var slow: [CInt] = []
    for _ in 0..<MetricsAnswerer.connectionCountMaximum {
      slow.append(try connect(to: answerer).releaseDescriptor())
    }
    let ours = try connect(to: answerer)
    #expect(try answer(ours).hasPrefix("HTTP/1.1 503"))
    // Those that said nothing are dropped.
    for number in slow {
      let socket = StreamSocket(owning: FileDescriptor(owning: number))
      #expect(try answer(socket).isEmpty)
    }
    while answerer.connectionCount > 0 { pause(milliseconds: 5) }
    let again = try connect(to: answerer)
    try again.send(Array("GET /metrics HTTP/1.1\r\n\r\n".utf8), until: .milliseconds(1000))
    #expect(try answer(again).hasPrefix("HTTP/1.1 200"))
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a configuration file says, and what is said about one that is wrong.

import BlockServer
import Testing
import WireFormat

@testable import ConfigurationFile

@Suite("A configuration file")
struct ConfigurationFileTests {
  static func parse(_ text: String) throws -> ServerConfiguration {
    try parseConfiguration(ByteString(text)).configuration
  }

  /// Every key with a value of its own, and what it becomes.
  static let keys:
    [(text: String, key: String, change: @Sendable (inout ServerConfiguration) -> Void)] = [
      (
        "listen = [\"tcp:[::1]:1\", \"unix:/a\"]", "listen",
        {
          $0.listen = [.tcp(host: "::1", port: 1), .unix(path: "/a")]
        }
      ),
      ("control = \"/c\"", "control", { $0.controlPath = "/c" }),
      ("overlay_directory = \"/o\"", "overlay_directory", { $0.overlayDirectory = "/o" }),
      (
        "[limits]\nconnections = 7", "limits.connections",
        {
          $0.limits.connectionCountMaximum = 7
        }
      ),
      (
        "[limits]\nconnections_per_client = 3", "limits.connections_per_client",
        {
          $0.limits.clientConnectionCountMaximum = 3
        }
      ),
      (
        "[limits]\nhandshake_seconds = 4", "limits.handshake_seconds",
        {
          $0.limits.handshakeMilliseconds = 4000
        }
      ),
      ("[limits]\nidle_seconds = 60", "limits.idle_seconds", { $0.limits.idleSeconds = 60 }),
      ("[limits]\nidle_seconds = 0", "limits.idle_seconds", { $0.limits.idleSeconds = nil }),
      ("[limits]\nsilence_seconds = 9", "limits.silence_seconds", { $0.silenceSeconds = 9 }),
      ("[limits]\ndrain_seconds = 9", "limits.drain_seconds", { $0.drainSeconds = 9 }),
      ("[limits]\nabsent_seconds = 9", "limits.absent_seconds", { $0.absentSeconds = 9 }),
      ("[limits]\nabsent_attachments = 9", "limits.absent_attachments", { $0.absentCount = 9 }),
      (
        "[limits]\nrequest_size = \"1 MiB\"", "limits.request_size",
        {
          $0.limits.requestByteCountMaximum = 1 << 20
        }
      ),
      (
        "[limits]\nmemory = \"1GiB\"", "limits.memory",
        {
          $0.limits.memoryByteCountMaximum = 1 << 30
        }
      ),
      (
        "[nbd]\ndev_search_path = \"/b/%CLIENT%\"", "nbd.dev_search_path",
        {
          $0.nbdSearch.path = try? SearchPath("/b/%CLIENT%")
        }
      ),
      ("[nbd]\nmode = \"migration\"", "nbd.mode", { $0.nbdSearch.access = .migration }),
      ("[nbd]\nallow = [\"unix\"]", "nbd.allow", { $0.nbdSearch.allow.networks = [.unix] }),
      (
        "[rdma]\ndev_search_path = \"/b\"", "rdma.dev_search_path",
        {
          $0.rdma.search.path = try? SearchPath("/b")
        }
      ),
      ("[rdma]\nmode = \"ro\"", "rdma.mode", { $0.rdma.search.access = .readOnly }),
      (
        "[rdma]\nallow = [\"10.0.0.0/8\"]", "rdma.allow",
        {
          $0.rdma.search.allow.networks = [.network(octets: [10, 0, 0, 0], prefixLength: 8)]
        }
      ),
      ("[rdma]\nqueue_depth = 64", "rdma.queue_depth", { $0.rdma.queueDepth = 64 }),
      ("[rdma]\nio_size = 65536", "rdma.io_size", { $0.rdma.dataByteCountMaximum = 65_536 }),
      ("[rdma]\nsessions = 5", "rdma.sessions", { $0.rdma.sessionCountMaximum = 5 }),
      ("[rdma]\nmemory = \"2 GiB\"", "rdma.memory", { $0.rdma.memoryByteCountMaximum = 2 << 30 }),
      ("[rdma]\nsilence_seconds = 6", "rdma.silence_seconds", { $0.rdma.silenceSeconds = 6 }),
      (
        "[metrics]\nlisten = \"tcp:127.0.0.1:9810\"", "metrics.listen",
        {
          $0.metricsAddress = .tcp(host: "127.0.0.1", port: 9810)
        }
      ),
      ("[log]\nformat = \"json\"", "log.format", { $0.log.format = .json }),
      ("[log]\nlevel = \"warning\"", "log.level", { $0.log.level = .warning }),
    ]

  @Test("has keys that each say one thing", arguments: keys.indices)
  func key(index: Int) throws {
    let row = Self.keys[index]
    var expected = ServerConfiguration()
    row.change(&expected)
    #expect(try Self.parse(row.text) == expected)
    #expect(ConfigurationKeys.all.contains(row.key))
  }

  /// Keys of an export beside its path.
  static let exportKeys:
    [(text: String, key: String, change: @Sendable (inout ExportDefinition) -> Void)] = [
      ("mode = \"ro\"", "mode", { $0.access = .readOnly }),
      ("mode = \"migration\"", "mode", { $0.access = .migration }),
      (
        "mode = \"overlay\"\nlayers = \"/l\"", "layers",
        {
          ($0.access, $0.layersDirectory) = (.overlay, "/l")
        }
      ),
      (
        "allow = [\"2001:db8::/32\", \"192.0.2.1\"]", "allow",
        {
          $0.allow.networks = [
            try? ClientNetwork("2001:db8::/32"), try? ClientNetwork("192.0.2.1"),
          ]
          .compactMap { $0 }
        }
      ),
      ("allow = []", "allow", { $0.allow.networks = [] }),
      ("sync = true", "sync", { $0.isSync = true }),
      ("async = true", "async", { $0.isAsync = true }),
      ("direct = true", "direct", { $0.isDirect = true }),
      ("io_mode = \"blockio\"", "io_mode", { $0.ioMode = .blockIO }),
      ("size = \"4 GiB\"", "size", { $0.byteCount = 4 << 30 }),
      ("blocksize = 4096", "blocksize", { $0.blockByteCount = 4096 }),
      ("description = \"Debian 12\"", "description", { $0.description = "Debian 12" }),
    ]

  @Test("has exports with options", arguments: exportKeys.indices)
  func exportKey(index: Int) throws {
    let row = Self.exportKeys[index]
    var expected = ExportDefinition(name: "a", path: "/a")
    row.change(&expected)
    #expect(try Self.parse("[export.a]\npath = \"/a\"\n" + row.text).exports == [expected])
    #expect(ConfigurationKeys.all.contains("export.NAME." + row.key))
  }

  static let backends: [(text: String, backend: BackendDefinition)] = [
    ("backend = { type = \"device\", path = \"/dev/sdb\" }", .device(path: "/dev/sdb")),
    ("backend = { type = \"memory\", size = \"64 MiB\" }", .memory(byteCount: 64 << 20)),
    (
      "backend = { type = \"linear\", members = [\"/a\", \"/b\"] }",
      .linear([.file(path: "/a"), .file(path: "/b")])
    ),
    (
      "backend = { type = \"stripe\", chunk = \"64 KiB\", members = [\"/a\", \"/b\"] }",
      .stripe([.file(path: "/a"), .file(path: "/b")], chunkByteCount: 65_536)
    ),
    (
      "[export.a.backend]\ntype = \"mirror\"\nstate = \"/m\"\nmembers = [\"/a\", "
        + "{ type = \"linear\", members = [\"/b\"] }]",
      .mirror(
        [.file(path: "/a"), .linear([.file(path: "/b")])], MirrorSettings(state: "/m"))
    ),
    (
      "[export.a.backend]\ntype = \"mirror\"\nstate = \"/m\"\nmembers = [\"/a\", \"/b\"]\n"
        + "resync_rate = \"10 MiB\"\nretry_seconds = 5",
      .mirror(
        [.file(path: "/a"), .file(path: "/b")],
        MirrorSettings(state: "/m", resyncBytesPerSecond: 10 << 20, retrySeconds: 5))
    ),
    (
      "[export.a.backend]\ntype = \"overlay\"\nlayer = \"/l\"\n"
        + "base = { type = \"file\", path = \"/a\" }",
      .overlay(base: .file(path: "/a"), layer: "/l")
    ),
  ]

  @Test("has exports that are made of others", arguments: backends.indices)
  func backend(index: Int) throws {
    let row = Self.backends[index]
    let header = row.text.hasPrefix("[") ? "" : "[export.a]\n"
    #expect(try Self.parse(header + row.text).exports.map(\.backend) == [row.backend])
  }

  @Test("takes a backend that is one path for a path")
  func plainBackend() throws {
    let export = try #require(try Self.parse("[export.a]\nbackend = \"/a\"").exports.first)
    #expect(export.backend == nil && export.path == "/a")
  }

  @Test("keeps exports in the order of the file")
  func order() throws {
    let text = "[export.z]\npath = \"/z\"\n[export.a]\npath = \"/a\"\n[export.m]\npath = \"/m\""
    #expect(try Self.parse(text).exports.map(\.name) == ["z", "a", "m"])
  }

  /// What is wrong, where, and a word of what is said.
  static let refusals: [(text: String, place: Place?, reason: String, advice: String)] = [
    ("listen = [\"tcp:[::]:1\"\n", Place(line: 1, column: 24), "", "correct the line"),
    ("speed = 9", Place(line: 1, column: 1), "unknown key 'speed'", "known here: listen"),
    (
      "[limits]\n\n  conections = 9", Place(line: 3, column: 3),
      "unknown key 'conections' in [limits]", "did you mean 'connections'?"
    ),
    (
      "[export.a]\npath = \"/a\"\nmod = \"ro\"", Place(line: 3, column: 1),
      "unknown key 'mod' in [export.a]", "did you mean 'mode'?"
    ),
    (
      "a = 1\nzz = 2\n\nb = 3", Place(line: 1, column: 1), "unknown key 'a'", ""
    ),
    ("[export.a]\nmode = \"ro\"", Place(line: 1, column: 9), "[export.a] has no path", "add path"),
    (
      "[export.a]\npath = \"/a\"\nmode = \"r\"", Place(line: 3, column: 8), "mode is \"r\"",
      "did you mean \"ro\"?"
    ),
    (
      "[export.a]\npath = \"/a\"\nsize = -1", Place(line: 3, column: 8),
      "'size' in [export.a] is not a number of bytes", ""
    ),
    (
      "[export.a]\npath = \"/a\"\nsize = \"4 GB\"", Place(line: 3, column: 8), "KiB, MiB", ""
    ),
    (
      "[export.a]\npath = \"/a\"\nsync = \"yes\"", Place(line: 3, column: 8),
      "'sync' in [export.a] is not true or false", ""
    ),
    ("[export.a]\npath = 7", Place(line: 2, column: 8), "'path' in [export.a] is not a text", ""),
    ("export = 7", Place(line: 1, column: 10), "'export' is not a table", ""),
    ("[export]\na = 7", Place(line: 2, column: 5), "'export.a' is not a table", ""),
    ("listen = \"tcp:[::]:1\"", Place(line: 1, column: 10), "'listen' is not a list", ""),
    ("listen = [\n  \"[::]:1\"]", Place(line: 2, column: 3), "begins with no known kind", ""),
    ("[limits]\nconnections = 0", Place(line: 2, column: 15), "a number from 1 to 100000", ""),
    ("[limits]\nrequest_size = 1000", Place(line: 2, column: 16), "from 65536 to", ""),
    ("[limits]\nmemory = 4096", Place(line: 1, column: 2), "one connection", "raise it"),
    ("[metrics]\n", Place(line: 1, column: 2), "[metrics] has no listen", "9810"),
    ("[metrics]\nlisten = \"rdma:a\"", Place(line: 2, column: 10), "over RDMA", ""),
    ("[log]\nformat = \"jsn\"", Place(line: 2, column: 10), "format is \"jsn\"", "\"json\""),
    ("[nbd]\nmode = \"overlay\"", Place(line: 2, column: 8), "mode is \"overlay\"", ""),
    ("[nbd]\ndev_search_path = \"a\"", Place(line: 2, column: 19), "does not begin with '/'", ""),
    (
      "[export.a]\npath = \"/a\"\nallow = [\"10.0.0.1/8\"]", Place(line: 3, column: 10),
      "bits set behind its prefix", "10.0.0.0/8"
    ),
    (
      "default_export = \"b\"\n[export.a]\npath = \"/a\"", Place(line: 1, column: 18),
      "none of the exports", ""
    ),
    (
      "[export.a]\npath = \"/a\"\n[export.b]\npath = \"/b\"\nlayers = \"/l\"",
      Place(line: 3, column: 9), "is no overlay", ""
    ),
    (
      "[export.a]\npath = \"/a\"\nsync = true\nasync = true", Place(line: 1, column: 9),
      "both sync and async", ""
    ),
    (
      "[export.a]\npath = \"/a\"\nbackend = \"/b\"", Place(line: 3, column: 11),
      "has a path and a backend", ""
    ),
    (
      "[export.a]\nbackend = { members = [\"/a\"] }", Place(line: 2, column: 1), "has no type", ""
    ),
    (
      "[export.a]\nbackend = { type = \"linear\", members = [\"/a\"], chunk = 4096 }",
      Place(line: 2, column: 48), "unknown key 'chunk' in [export.a.backend]", "known here: type"
    ),
    (
      "[export.a]\nbackend = { type = \"mirror\", members = [\"/a\"], state = \"/s\" }",
      Place(line: 2, column: 40), "not a list of 2 to", ""
    ),
    (
      "[export.a]\nbackend = { type = \"stripe\", members = [\"/a\", \"/b\"], chunk = 5000 }",
      Place(line: 2, column: 62), "no power of two", ""
    ),
    (
      "[export.a]\nbackend = { type = \"linear\", members = [\"/a\", { type = \"raid\" }] }",
      Place(line: 2, column: 56), "type is \"raid\"", ""
    ),
    ("[export.a]\nbackend = 7", Place(line: 2, column: 11), "neither a path nor a table", ""),
    (
      "[export.a]\nbackend = \"/a\"\nio_mode = \"fileio\"\ndirect = true",
      Place(line: 1, column: 9), "direct and has io mode fileio", ""
    ),
  ]

  @Test("that is wrong is refused with the place, the reason and a way out", arguments: refusals)
  func refuses(text: String, place: Place?, reason: String, advice: String) throws {
    let error = try #require(throws: ConfigurationError.self) { try Self.parse(text) }
    #expect(error.place == place, "\(error)")
    #expect(error.reason.contains(reason), "\(error)")
    #expect(error.advice.contains(advice), "\(error)")
  }

  @Test("is UTF-8 and nothing else")
  func encoding() {
    #expect(throws: ConfigurationError.self) {
      try parseConfiguration(ByteString([0x61, 0x20, 0x3d, 0x20, 0x22, 0xff, 0x22]))
    }
  }

  @Test("ends stacks that are too deep")
  func depth() {
    var text = "\"/a\""
    for _ in 0..<BackendDefinition.depthMaximum {
      text = "{ type = \"linear\", members = [\(text)] }"
    }
    let error = #expect(throws: ConfigurationError.self) {
      try Self.parse("[export.a]\nbackend = " + text)
    }
    #expect(error?.reason.contains("inside 8 others") == true)
  }

  static let byteCounts: [(text: String, count: Int?)] = [
    ("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("64 KiB", 65_536), (" 1 MiB ", 1 << 20),
    ("7 B", 7), ("1 TiB", 1 << 40), ("9223372036854775807", .max), ("9223372036854775808", nil),
    ("8388608 TiB", nil), ("64 kB", nil), ("", nil), ("KiB", nil), ("1.5 GiB", nil), ("-1", nil),
  ]

  @Test("has sizes in bytes, or in powers of 1024", arguments: byteCounts)
  func byteCount(text: String, count: Int?) {
    #expect(ByteCount.parse(text) == count)
  }
}

// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import BlockServer
import Testing
import WireFormat

@Suite("A --listen address")
struct ListenAddressTests {
  static let addresses: [(ByteString, ListenAddress)] = [
    ("tcp:127.0.0.1:10809", .tcp(host: "127.0.0.1", port: 10809)),
    ("tcp:[::]:0", .tcp(host: "::", port: 0)),
    ("tcp:[fe80::1%eth0]:65535", .tcp(host: "fe80::1%eth0", port: 65535)),
    ("tcp:board-server:1", .tcp(host: "board-server", port: 1)),
    ("unix:/run/x.sock", .unix(path: "/run/x.sock")),
    ("rdma:10.0.0.1:1234", .rdma(host: "10.0.0.1", port: 1234)),
  ]
  @Test("names a kind, a place and a port", arguments: addresses)
  func parses(text: ByteString, address: ListenAddress) throws {
    #expect(try ListenAddress(text) == address)
  }

  static let refusals: [(ByteString, ListenAddress.ParseError)] = [
    ("", .scheme("")),
    ("10809", .scheme("10809")),
    ("udp:1.2.3.4:5", .scheme("udp:1.2.3.4:5")),
    ("tcp:1.2.3.4", .port("tcp:1.2.3.4")),
    ("tcp:1.2.3.4:", .port("tcp:1.2.3.4:")),
    ("tcp:1.2.3.4:65536", .port("tcp:1.2.3.4:65536")),
    ("tcp:1.2.3.4:-1", .port("tcp:1.2.3.4:-1")),
    ("tcp::10809", .host("tcp::10809")),
    ("tcp:[]:10809", .host("tcp:[]:10809")),
    ("tcp:fe80::1:10809", .host("tcp:fe80::1:10809")),
    ("unix:", .pathLength(0)),
    (ByteString([UInt8]("unix:/".utf8) + [UInt8](repeating: 0x61, count: 107)), .pathLength(108)),
  ]
  @Test("that is none says what is missing", arguments: refusals)
  func refuses(text: ByteString, error: ListenAddress.ParseError) {
    #expect(throws: error) { try ListenAddress(text) }
  }
}

@Suite("An --export argument")
struct ExportArgumentTests {
  static func definition(
    _ name: ByteString, _ path: ByteString, _ change: (inout ExportDefinition) -> Void = { _ in }
  ) -> ExportDefinition {
    var definition = ExportDefinition(name: name, path: path)
    change(&definition)
    return definition
  }

  static let arguments: [(ByteString, ExportDefinition)] = [
    ("root=/srv/a.img", definition("root", "/srv/a.img")),
    ("=/srv/a", definition("", "/srv/a")),
    ("a=b=c", definition("a", "b=c")),
    ("a=/b,ro", definition("a", "/b") { $0.access = .readOnly }),
    ("a=/b,rw,sync", definition("a", "/b") { $0.isSync = true }),
    ("a=/b,overlay,direct", definition("a", "/b") { ($0.access, $0.isDirect) = (.overlay, true) }),
    (
      "a=/b,overlay,layers=/c",
      definition("a", "/b") { ($0.access, $0.layersDirectory) = (.overlay, "/c") }
    ),
    (
      "a=/b,migration,async", definition("a", "/b") { ($0.access, $0.isAsync) = (.migration, true) }
    ),
    ("a=/b,io=fileio", definition("a", "/b") { $0.ioMode = .fileIO }),
    ("a=/b,blocksize=4096", definition("a", "/b") { $0.blockByteCount = 4096 }),
    (
      "a=/b,allow=10.0.0.0/8,allow=unix",
      definition("a", "/b") {
        $0.allow.networks = [.network(octets: [10, 0, 0, 0], prefixLength: 8), .unix]
      }
    ),
    ("a=/b,size=1", definition("a", "/b") { $0.byteCount = 1 }),
    ("a=/b,size=9223372036854775807", definition("a", "/b") { $0.byteCount = 1 << 63 - 1 }),
  ]
  @Test("is a name, a path and options", arguments: arguments)
  func parses(text: ByteString, definition: ExportDefinition) throws {
    #expect(try ExportDefinition(argument: text) == definition)
  }

  static let refusals: [(ByteString, ExportDefinition.ParseError)] = [
    ("root", .noEqualsSign("root")),
    ("root=", .noPath("root=")),
    ("root=,ro", .noPath("root=,ro")),
    ("a=/b,readonly", .unknownOption("readonly")),
    ("a=/b,", .unknownOption("")),
    ("a=/b,ro,rw", .twoAccessModes("a=/b,ro,rw")),
    ("a=/b,size=", .size("")),
    ("a=/b,blocksize=x", .blockSize("x")),
    ("a=/b,io=raw", .ioMode("raw")),
    ("a=/b,allow=x", .network(.address("x"))),
    ("a=/b,size=0", .size("0")),
    ("a=/b,size=1G", .size("1G")),
    ("a=/b,size=9223372036854775808", .size("9223372036854775808")),
  ]
  @Test("that is none says which word is wrong", arguments: refusals)
  func refuses(text: ByteString, error: ExportDefinition.ParseError) {
    #expect(throws: error) { try ExportDefinition(argument: text) }
  }
}

@Suite("A configuration")
struct ServerConfigurationTests {
  @Test("has an export, no two of one name, and names that fit in the protocol")
  func validation() throws {
    var configuration = ServerConfiguration()
    #expect(throws: ServerConfiguration.ValidationError.noExports) {
      try configuration.validate()
    }
    configuration.exports = [ExportDefinition(name: "a", path: "/a")]
    try configuration.validate()
    configuration.exports.append(ExportDefinition(name: "a", path: "/b"))
    #expect(throws: ServerConfiguration.ValidationError.duplicateExport("a")) {
      try configuration.validate()
    }
    let long = ByteString([UInt8](repeating: 0x61, count: 4097))
    for name in [long, "a\0"] {
      configuration.exports = [ExportDefinition(name: name, path: "/a")]
      #expect(throws: ServerConfiguration.ValidationError.exportName(name)) {
        try configuration.validate()
      }
    }
    configuration.exports = [
      ExportDefinition(name: ByteString(Array(long.bytes.dropLast())), path: "/a")
    ]
    try configuration.validate()

    configuration.exports[0].layersDirectory = "/layers"
    let name = configuration.exports[0].name
    #expect(throws: ServerConfiguration.ValidationError.layersWithoutOverlay(name)) {
      try configuration.validate()
    }
    configuration.exports[0].access = .overlay
    try configuration.validate()
    for directory in ["", "a\0"] as [ByteString] {
      configuration.exports[0].layersDirectory = directory
      #expect(throws: ServerConfiguration.ValidationError.layersDirectory(name)) {
        try configuration.validate()
      }
    }
  }

  @Test("keeps the layers of more clients than there may be connections, if not told otherwise")
  func absentClients() {
    var configuration = ServerConfiguration()
    #expect(configuration.attachmentLimits.absentCount == 2048)
    configuration.limits.connectionCountMaximum = 5000
    #expect(configuration.attachmentLimits.absentCount == 10_000)
    configuration.absentCount = 7
    configuration.absentSeconds = 8
    #expect(configuration.attachmentLimits.absentCount == 7)
    #expect(configuration.attachmentLimits.absentSeconds == 8)
  }

  @Test("gives the default export: the one without a name, else the only one")
  func defaultExport() {
    let backend = MemoryBackend(byteCount: 512)
    let first = Export(name: "first", base: backend)
    let second = Export(name: "second", base: backend)
    let nameless = Export(name: "", base: backend)
    #expect(ExportTable([first]).export(named: "") === first)
    #expect(ExportTable([first, second]).export(named: "") == nil)
    #expect(ExportTable([first, nameless]).export(named: "") === nameless)
    #expect(ExportTable([first, second]).export(named: "second") === second)
    #expect(ExportTable([first]).export(named: "First") == nil)
  }
}

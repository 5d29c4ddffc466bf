// SPDX-License-Identifier: Apache-2.0
// Immediates, the geometry of chunks, and where a server says they are.

import RTRSProtocol
import TestSupport
import Testing
import WireFormat

@Suite("An immediate")
struct ImmediateTests {
  /// Source: frames of two kernels, and `rtrs_to_io_rsp_imm` in Linux `rtrs-pri.h`.
  static let vectors: [(UInt32, Immediate)] = [
    (0x0008_1020, .request(payload: 0x0008_1020)),
    (0x0fff_ffff, .request(payload: 0x0fff_ffff)),
    (0x2000_0001, .response(ChunkResponse(chunk: 1, error: .success, isInvalidated: true))),
    (0x1000_0000, .response(ChunkResponse(chunk: 0, error: .success, isInvalidated: false))),
    (0x1010_0003, .response(ChunkResponse(chunk: 3, error: .notFound, isInvalidated: false))),
    (
      0x1fff_ffff,
      .response(
        ChunkResponse(
          chunk: 0x7ffff, error: PeerErrno(rawValue: 511), isInvalidated: false))
    ),
    (0x8000_0000, .heartbeat), (0x9000_0000, .heartbeatAcknowledgement),
    (0x3000_0001, .unknown(0x3000_0001)), (0xffff_ffff, .unknown(0xffff_ffff)),
  ]

  @Test("is the number that two kernels exchange", arguments: vectors)
  func matches(rawValue: UInt32, value: Immediate) {
    #expect(Immediate(rawValue: rawValue) == value)
    #expect(value.rawValue == rawValue)
  }

  @Test("tells an error that does not fit as an I/O error")
  func errorTooLarge() {
    for errno in [UInt16(512), 513, 1024, .max] {
      let response = ChunkResponse(
        chunk: 7, error: PeerErrno(rawValue: errno), isInvalidated: false)
      #expect(
        Immediate(rawValue: Immediate.response(response).rawValue)
          == .response(ChunkResponse(chunk: 7, error: .io, isInvalidated: false)))
    }
  }
}

@Suite("The chunks of a server")
struct ChunkTests {
  static func geometry(_ depth: UInt16, _ data: UInt32, _ header: UInt32) throws -> ChunkGeometry {
    try ChunkGeometry(
      queueDepth: depth, dataByteCountMaximum: data, headerByteCountMaximum: header)
  }

  @Test("have places that an immediate can name")
  func places() throws {
    let kernel = try Self.geometry(512, 126_976, 4096)
    #expect(kernel.payload(chunk: 1, offset: 0x1020) == 0x0008_1020)
    #expect(try #require(kernel.place(of: 0x0008_1020)) == (1, 0x1020))
    #expect(kernel.payload(chunk: 511, offset: 131_071) == 511 << 19 | 131_071)
    #expect(kernel.place(of: 511 << 19 | 131_071) != nil)
    #expect(kernel.place(of: 511 << 19 | 131_072) == nil)
    let odd = try Self.geometry(100, 131_072, 4096)
    #expect(odd.payload(chunk: 99, offset: 135_167) == 99 << 21 | 135_167)
    #expect(odd.place(of: 99 << 21 | 135_167) != nil)
    #expect(odd.place(of: 99 << 21 | 135_168) == nil)
    #expect(odd.place(of: 100 << 21) == nil)
    let single = try Self.geometry(1, 4096, 4096)
    #expect(try #require(single.place(of: 8191)) == (0, 8191))
    #expect(single.place(of: 8192) == nil)
    #expect(single.place(of: 0x0fff_ffff) == nil)
    let deepest = try Self.geometry(65535, 2048, 2048)
    #expect(try #require(deepest.place(of: 65534 << 12 | 4095)) == (65534, 4095))
    #expect(deepest.place(of: 65535 << 12) == nil)
  }

  @Test("fit the 28 bits of a payload, or are refused")
  func limits() {
    let rows: [(UInt16, UInt32, UInt32, isValid: Bool)] = [
      (512, 524_288 - 4096, 4096, true), (512, 524_288 - 4095, 4096, false),
      (513, 524_288 - 4096, 4096, false), (1, (1 << 28) - 4096, 4096, true),
      (1, (1 << 28) - 4095, 4096, false), (0, 4096, 4096, false), (1, 0, 4096, false),
      (1, 4096, 23, false), (1, 4096, 24, true), (1, .max, .max, false), (1, .max, 24, false),
      (65535, 4096 - 24, 24, true), (65535, 4096, 24, false),
    ]
    for (depth, data, header, isValid) in rows {
      #expect(
        ((try? Self.geometry(depth, data, header)) != nil) == isValid,
        "\(depth) \(data) \(header)")
    }
  }

  static func answer(_ regions: [(UInt64, UInt32, UInt32)]) -> [UInt8] {
    PathInformationAnswer(
      regions: regions.map { RegionDescriptor(address: $0.0, key: $0.1, length: $0.2) }
    ).encoded
  }

  @Test("lie in one region or in one each, in order")
  func regions() throws {
    let geometry = try Self.geometry(4, 4096, 4096)
    var table = ChunkTable(queueDepth: 4)
    try table.load(Self.answer([(0x1000, 7, 4 * 8192)]).span, geometry: geometry)
    for chunk in UInt16(0)..<4 {
      #expect(table.address(of: chunk) == 0x1000 + UInt64(chunk) * 8192)
      #expect(table.key(of: chunk) == 7)
    }
    try table.load(
      Self.answer((0..<4).map { (UInt64($0) << 40, UInt32($0), 8192) }).span, geometry: geometry)
    for chunk in UInt16(0)..<4 {
      #expect(table.address(of: chunk) == UInt64(chunk) << 40)
      #expect(table.key(of: chunk) == UInt32(chunk))
    }
    // The regions need not be of one length, and more may have been received than they take.
    let longer = Self.answer([(0, 1, 3 * 8192), (1 << 40, 2, 8192)]) + [1, 2, 3]
    try table.load(longer.span, geometry: geometry)
    #expect(table.key(of: 2) == 1)
    #expect(table.address(of: 3) == 1 << 40)
    table.setKey(99, of: 3)
    #expect(table.key(of: 3) == 99)
  }

  @Test("are refused unless the regions make them up exactly")
  func wrongRegions() throws {
    let geometry = try Self.geometry(4, 4096, 4096)
    let rows: [(String, [(UInt64, UInt32, UInt32)])] = [
      ("none", []), ("too few", [(0, 0, 3 * 8192)]), ("too many", [(0, 0, 5 * 8192)]),
      ("three for four", [(0, 0, 8192), (0, 0, 8192), (0, 0, 2 * 8192)]),
      ("a length of nothing", [(0, 0, 4 * 8192), (0, 0, 0)]),
      ("half a chunk", [(0, 0, 4 * 8192 - 4096)]),
      ("a length that wraps", [(0, 0, 0xffff_e000), (0, 0, 8192)]),
      ("too few in two", [(0, 0, 8192), (0, 0, 8192)]),
    ]
    for (name, regions) in rows {
      var table = ChunkTable(queueDepth: 4)
      #expect(throws: WireError.self, "\(name)") {
        try table.load(Self.answer(regions).span, geometry: geometry)
      }
    }
    var small = ChunkTable(queueDepth: 3)
    #expect(throws: WireError.self) {
      try small.load(Self.answer([(0, 0, 4 * 8192)]).span, geometry: geometry)
    }
    let whole = Self.answer([(0, 0, 2 * 8192), (0, 0, 2 * 8192)])
    #expect(whole.count <= PathInformationAnswer.byteCountMaximum(queueDepth: 4))
    var table = ChunkTable(queueDepth: 4)
    for count in 0..<whole.count {
      #expect(throws: WireError.self) {
        try table.load(Array(whole.prefix(count)).span, geometry: geometry)
      }
    }
    var wrongType = whole
    wrongType[0] = 2
    #expect(throws: WireError.value(field: "message type", actual: 2)) {
      try table.load(wrongType.span, geometry: geometry)
    }
    wrongType = whole
    wrongType[2] = 0xff
    wrongType[3] = 0xff
    #expect(throws: WireError.value(field: "region count", actual: 65535)) {
      try table.load(wrongType.span, geometry: geometry)
    }
  }
}

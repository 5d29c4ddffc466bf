// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import BlockServer
import Testing

@Suite("A request")
struct RequestRulesTests {
  static func rules(minimum: UInt32 = 1, isReadOnly: Bool = false) -> RequestRules {
    RequestRules(
      ExportGeometry(
        byteCount: 1 << 20, blockSizes: BackendBlockSizes(minimum: minimum, preferred: 4096),
        isReadOnly: isReadOnly, capabilities: [.write]),
      payloadByteCountMaximum: 65536)
  }

  static let inRange: [(offset: UInt64, length: UInt64)] = [
    (0, 0), (0, 1), (0, 65536), ((1 << 20) - 1, 1), (1 << 20, 0), ((1 << 20) - 65536, 65536),
  ]
  @Test("inside the export passes", arguments: inRange)
  func passes(offset: UInt64, length: UInt64) throws {
    for kind in RequestKind.allCases {
      let range = try Self.rules().check(kind, offset: offset, length: length)
      #expect(range == offset..<(offset + length))
    }
  }

  static let outOfRange: [(offset: UInt64, length: UInt64)] = [
    (1 << 20, 1), ((1 << 20) - 1, 2), ((1 << 20) + 1, 0), (.max, 1), (.max, 0),
    (.max - 511, 512), (1 << 63, 65536),
  ]
  @Test("past the end is refused, also where offset and length wrap", arguments: outOfRange)
  func refused(offset: UInt64, length: UInt64) {
    for kind in RequestKind.allCases {
      #expect(throws: RequestRefusal.outOfRange) {
        try Self.rules().check(kind, offset: offset, length: length)
      }
    }
  }

  @Test("longer than the payload limit is refused where it has a payload")
  func payload() throws {
    for kind in [RequestKind.read, .write] {
      #expect(throws: RequestRefusal.tooLong) {
        try Self.rules().check(kind, offset: 0, length: 65537)
      }
    }
    for kind in [RequestKind.writeZeroes, .trim, .about] {
      #expect(try Self.rules().check(kind, offset: 0, length: 1 << 20) == 0..<(1 << 20))
    }
  }

  @Test("that writes is refused on a read-only export before anything else")
  func readOnly() throws {
    let rules = Self.rules(isReadOnly: true)
    for kind in [RequestKind.write, .writeZeroes, .trim] {
      #expect(throws: RequestRefusal.readOnly) {
        try rules.check(kind, offset: .max, length: .max)
      }
    }
    for kind in [RequestKind.read, .about] {
      #expect(try rules.check(kind, offset: 1, length: 1) == 1..<2)
    }
  }

  static let misaligned: [(offset: UInt64, length: UInt64)] = [(1, 512), (0, 511), (256, 256)]
  @Test("is a multiple of the minimum block or refused", arguments: misaligned)
  func alignment(offset: UInt64, length: UInt64) throws {
    let rules = Self.rules(minimum: 512)
    #expect(throws: RequestRefusal.misaligned) {
      try rules.check(.read, offset: offset, length: length)
    }
    #expect(try rules.check(.read, offset: 512, length: 1024) == 512..<1536)
  }
}

// SPDX-License-Identifier: Apache-2.0
// The layouts against bytes made by compiling Linux 6.12's `include/uapi/linux/ublk_cmd.h` on
// x86_64: every field at its offset.

import TestSupport
import Testing
import UblkDriver
import WireFormat

@Suite("The structures of ublk")
struct LayoutTests {
  @Test("a control command is 32 bytes with each field in its place")
  func controlCommand() {
    var command = ControlCommand(device: 0x0102_0304, value: 0x1122_3344_5566_7788)
    command.bufferByteCount = 64
    command.bufferAddress = 0x7fff_0000_1000
    #expect(
      command.encoded
        == bytes(
          "04030201 ffff 4000 0010 0000 ff7f 0000 8877665544332211 0000 0000 00000000"))
  }

  @Test("device information survives both ways, and -1 is nobody")
  func information() throws {
    let wire = bytes(
      "0100 8000 0200 0000 00000800 07000000 ffffffff 00000000 9800000000000000"
        + "0000000000000000 00000000 00000000 00000000000000000000000000000000")
    let value = try DeviceInformation(decoding: wire.span)
    #expect(value.queueCount == 1)
    #expect(value.queueDepth == 128)
    #expect(value.state == .quiesced)
    #expect(value.requestByteCountMaximum == 512 << 10)
    #expect(value.device == 7)
    #expect(value.serverProcess == nil)
    #expect(value.features == [.userRecovery, .userRecoveryReissue, .userCopy])
    #expect(value.encoded == wire)
    for count in 0..<wire.count {
      #expect(throws: WireError.byteCount(expected: 64, actual: count)) {
        try DeviceInformation(decoding: Array(wire[..<count]).span)
      }
    }
  }

  @Test("parameters survive both ways")
  func parameters() throws {
    var export = UblkExport(byteCount: 64 << 20)
    export.takesFlush = true
    export.takesFUA = true
    export.takesTrim = true
    export.takesWriteZeroes = true
    let value = try DeviceParameters(export, requestByteCountMaximum: 512 << 10)
    let wire = bytes(
      "70000000 03000000 0c000000 090c0c0c 00040000 00000000 0000020000000000 0000000000000000"
        + "00000000 00020000 00002000 00000200 0100 0000"
        + String(repeating: "00", count: 52))
    #expect(value.encoded == wire)
    #expect(try DeviceParameters(decoding: wire.span) == value)
    for count in 0..<wire.count {
      #expect(throws: WireError.self) {
        try DeviceParameters(decoding: Array(wire[..<count]).span)
      }
    }
  }

  @Test("a request's descriptor is decoded, unknown operations too")
  func descriptor() throws {
    let write = bytes("01200000 08000000 0001000000000000 0000000000000000")
    let value = try RequestDescriptor(decoding: write.span)
    #expect(value.operation == .write)
    #expect(value.flags.contains(.fua))
    #expect(!value.flags.contains(.noUnmap))
    #expect(value.sectorCount == 8)
    #expect(value.firstSector == 256)
    let zone = bytes("0b000000 08000000 0001000000000000 0000000000000000")
    #expect(try RequestDescriptor(decoding: zone.span).operation == nil)
    #expect(throws: WireError.byteCount(expected: 24, actual: 23)) {
      try RequestDescriptor(decoding: Array(write[1...]).span)
    }
  }

  @Test("a queue command packs queue, tag and result; data have their place")
  func queueCommand() {
    #expect(QueueCommand(tag: 5, result: -5).words.0 == 0xffff_fffb_0005_0000)
    #expect(QueueCommand(queue: 3, tag: 127, result: 4096).words.0 == 0x0000_1000_007f_0003)
    #expect(QueueCommand.dataPosition(tag: 0, offset: 0) == 0x8000_0000)
    #expect(QueueCommand.dataPosition(tag: 2, offset: 512) == 0x8400_0200)
    #expect(QueueCommand.dataPosition(queue: 1, tag: 0, offset: 0) == 0x200_8000_0000)
  }

  @Test("every operation's number names the size of the command")
  func operations() {
    for operation in ControlOperation.allCases {
      #expect(operation.rawValue >> 16 & 0x3fff == UInt32(ControlCommand.byteCount))
      #expect(operation.rawValue >> 8 & 0xff == 0x75)  // 'u'
    }
  }
}

@Suite("The parameters of a ublk device")
struct ParameterTests {
  static func make(_ change: (inout UblkExport) -> Void) throws -> DeviceParameters {
    var export = UblkExport(byteCount: 1 << 20)
    change(&export)
    return try DeviceParameters(export, requestByteCountMaximum: 512 << 10)
  }

  @Test("follow the server's flags")
  func flags() throws {
    #expect(try Self.make { _ in }.attributes == [])
    #expect(try Self.make { $0.takesFlush = true }.attributes == .volatileCache)
    // The kernel honours FUA only together with flushing.
    #expect(try Self.make { $0.takesFUA = true }.attributes == [])
    #expect(try Self.make { $0.isReadOnly = true }.attributes == .readOnly)
    #expect(try Self.make { $0.isRotational = true }.attributes == .rotational)
    let plain = try Self.make { _ in }
    #expect(plain.discardSectorCountMaximum == 0)
    #expect(plain.writeZeroesSectorCountMaximum == 0)
    #expect(try Self.make { $0.takesTrim = true }.discardSectorCountMaximum == 2 << 20)
    #expect(try Self.make { $0.takesWriteZeroes = true }.writeZeroesSectorCountMaximum == 128 << 10)
  }

  @Test(
    "follow the server's sizes",
    arguments: [
      (minimum: 1, preferred: 4096, payload: 1 << 25, logical: 9, physical: 12, sectors: 1024),
      (512, 512, 65_536, 9, 9, 128), (4096, 4096, 70_000, 12, 12, 136),
      (1024, 1 << 20, 1 << 25, 10, 12, 1024), (4096, 512, 4096, 12, 12, 8),
      (1, 4096, 0xffff_ffff, 9, 12, 1024),
    ])
  func sizes(
    minimum: Int, preferred: Int, payload: Int, logical: Int, physical: Int, sectors: Int
  ) throws {
    let made = try Self.make {
      $0.minimumBlockByteCount = UInt32(minimum)
      $0.preferredBlockByteCount = UInt32(preferred)
      $0.maximumPayloadByteCount = UInt32(payload)
    }
    #expect(made.logicalBlockShift == logical)
    #expect(made.physicalBlockShift == physical)
    #expect(made.requestSectorCountMaximum == sectors)
    #expect(made.optimalShift >= made.physicalBlockShift)
  }

  @Test("lose what fills no block, and refuse what no disk can show")
  func refusals() throws {
    #expect(try Self.make { $0.byteCount = 1025 }.sectorCount == 2)
    #expect(
      try Self.make {
        $0.byteCount = 8191
        $0.minimumBlockByteCount = 4096
      }.sectorCount == 8)
    for (change, error): (@Sendable (inout UblkExport) -> Void, UblkGeometryError) in [
      ({ $0.byteCount = 511 }, .belowOneBlock(byteCount: 511, blockByteCount: 512)),
      ({ $0.byteCount = 0 }, .belowOneBlock(byteCount: 0, blockByteCount: 512)),
      ({ $0.byteCount = 1 << 63 }, .tooLarge(byteCount: 1 << 63)),
      ({ $0.minimumBlockByteCount = 8192 }, .block(byteCount: 8192, maximum: 4096)),
      ({ $0.minimumBlockByteCount = 768 }, .block(byteCount: 768, maximum: 4096)),
      ({ $0.maximumPayloadByteCount = 4095 }, .payloadBelowPage(byteCount: 4095)),
    ] {
      #expect(throws: error) { try Self.make(change) }
      #expect(!error.report.advice.isEmpty)
    }
  }
}

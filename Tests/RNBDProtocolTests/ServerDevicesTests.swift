// SPDX-License-Identifier: Apache-2.0
import RNBDProtocol
import TestSupport
import Testing
import WireFormat

@Suite("The devices of a session at the server")
struct ServerDevicesTests {
  static func open(_ name: ByteString, _ mode: AccessMode = .readWrite) -> OpenRequest {
    OpenRequest(try! DeviceName(name), mode)
  }

  /// Device 0 can be written, device 1 was opened to read.
  static func devices() throws -> ServerDevices {
    var devices = ServerDevices(deviceCountMaximum: 2)
    #expect(try devices.open(open("a"), backend: 10) == 0)
    #expect(try devices.open(open("b", .readOnly), backend: 11) == 1)
    return devices
  }

  @Test("have small numbers, are found by name, and come to an end")
  func numbers() throws {
    var devices = try Self.devices()
    #expect(devices.find(try DeviceName("b")) == 1)
    #expect(devices.find(try DeviceName("c")) == nil)
    #expect(throws: PeerErrno.tooManyOpen) { try devices.open(Self.open("c"), backend: 12) }
    #expect(devices.accessMode(of: 1) == .readOnly && devices.backend(of: 1) == 11)
    let closed = [devices.close(0), devices.close(0), devices.close(2), devices.close(.max)]
    #expect(closed == [10, nil, nil, nil])
    #expect(devices.backend(of: 0) == nil && devices.backend(of: .max) == nil)
    let number = try devices.open(Self.open("c"), backend: 12)
    #expect(number == 0)
    let rest = [devices.closeNext(), devices.closeNext(), devices.closeNext()]
    #expect(rest == [12, 11, nil])
  }

  /// Source: the operations that two kernels exchange, and `process_rdma` in Linux `rnbd-srv.c`.
  static let accepted: [(IORequest, IOCarrier, BlockRequest)] = [
    (
      IORequest(device: 0, sector: 8, operation: .read, flags: .sync, dataByteCount: 4096),
      .toClient(roomByteCount: 4096),
      BlockRequest(backend: 10, operation: .read, offset: 4096, byteCount: 4096, isFUA: false)
    ),
    (
      IORequest(device: 1, sector: 8, operation: .read, dataByteCount: 512),
      .toClient(roomByteCount: 512),
      BlockRequest(backend: 11, operation: .read, offset: 4096, byteCount: 512, isFUA: false)
    ),
    (
      IORequest(device: 0, sector: 1, operation: .write, flags: .fua, dataByteCount: 512),
      .toServer(dataByteCount: 512),
      BlockRequest(backend: 10, operation: .write, offset: 512, byteCount: 512, isFUA: true)
    ),
    (
      IORequest(
        device: 0, sector: IORequest.noSector, operation: .flush, flags: [.sync, .fua],
        dataByteCount: 0), .toClient(roomByteCount: 0),
      BlockRequest(backend: 10, operation: .flush, offset: 0, byteCount: 0, isFUA: false)
    ),
    (
      IORequest(device: 1, sector: 0, operation: .flush, dataByteCount: 0),
      .toServer(dataByteCount: 0),
      BlockRequest(backend: 11, operation: .flush, offset: 0, byteCount: 0, isFUA: false)
    ),
    (
      IORequest(device: 0, sector: 2, operation: .discard, dataByteCount: 0xffff_fe00),
      .toServer(dataByteCount: 0),
      BlockRequest(
        backend: 10, operation: .discard, offset: 1024, byteCount: 0xffff_fe00, isFUA: false)
    ),
    (
      IORequest(
        device: 0, sector: .max >> 9, operation: .writeZeroes, flags: .fua, dataByteCount: 512),
      .toServer(dataByteCount: 0),
      BlockRequest(
        backend: 10, operation: .writeZeroes, offset: .max & ~511, byteCount: 512, isFUA: true)
    ),
  ]

  @Test("take what Linux's client sends", arguments: accepted)
  func accepts(io: IORequest, carrier: IOCarrier, request: BlockRequest) throws {
    #expect(try Self.devices().check(io, carrier) == request)
  }

  static let refused: [(IORequest, IOCarrier, IORefusal, PeerErrno)] = [
    (
      IORequest(device: 2, sector: 0, operation: .read, dataByteCount: 512),
      .toClient(roomByteCount: 512), .unknownDevice(2), .notConnected
    ),
    (
      IORequest(device: .max, sector: 0, operation: .flush, dataByteCount: 0),
      .toClient(roomByteCount: 0), .unknownDevice(.max), .notConnected
    ),
    (
      IORequest(device: 1, sector: 0, operation: .write, dataByteCount: 512),
      .toServer(dataByteCount: 512), .readOnly, .readOnly
    ),
    (
      IORequest(device: 1, sector: 0, operation: .discard, dataByteCount: 512),
      .toServer(dataByteCount: 0), .readOnly, .readOnly
    ),
    (
      IORequest(device: 1, sector: 0, operation: .writeZeroes, dataByteCount: 512),
      .toServer(dataByteCount: 0), .readOnly, .readOnly
    ),
    (
      IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 512),
      .toClient(roomByteCount: 511), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 512),
      .toClient(roomByteCount: 1024), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 512),
      .toServer(dataByteCount: 512), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .read, dataByteCount: 0),
      .toClient(roomByteCount: 0), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .write, dataByteCount: 512),
      .toServer(dataByteCount: 1024), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .write, dataByteCount: 512),
      .toClient(roomByteCount: 512), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .discard, dataByteCount: 512),
      .toServer(dataByteCount: 512), .sizeMismatch, .invalid
    ),
    (
      IORequest(device: 0, sector: 0, operation: .secureErase, dataByteCount: 512),
      .toServer(dataByteCount: 0), .unknownOperation(.secureErase), .notSupported
    ),
    (
      IORequest(
        device: 0, sector: 0, operation: IOOperation(rawValue: 255), dataByteCount: 512),
      .toServer(dataByteCount: 0), .unknownOperation(IOOperation(rawValue: 255)), .notSupported
    ),
    (
      IORequest(device: 0, sector: (.max >> 9) + 1, operation: .read, dataByteCount: 512),
      .toClient(roomByteCount: 512), .beyondEnd, .io
    ),
  ]

  @Test("refuse the rest, with an errno", arguments: refused)
  func refuses(
    io: IORequest, carrier: IOCarrier, refusal: IORefusal, error: PeerErrno
  ) throws {
    let devices = try Self.devices()
    #expect(throws: refusal) { try devices.check(io, carrier) }
    #expect(refusal.error == error)
  }
}

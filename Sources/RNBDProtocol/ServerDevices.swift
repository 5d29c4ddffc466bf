// SPDX-License-Identifier: Apache-2.0
// The devices that one session has open at a server, and what may be done with them. Sizes and
// alignment are not looked at: they are the same for every protocol.

public import WireFormat

/// Why an I/O is not executed.
public enum IORefusal: Error, Equatable, Sendable {
  /// No device of that number is open: the client has to open it anew.
  case unknownDevice(UInt32)
  /// The session opened it to read. (Linux's server executes it.)
  case readOnly
  /// One that this server does not know, or does not have.
  case unknownOperation(IOOperation)
  /// The sizes in the messages, of the data and of what may be written back are not the same.
  case sizeMismatch
  /// A sector that no 64-bit offset reaches.
  case beyondEnd

  /// What the client is told. Source: `process_rdma` in Linux 6.12 `rnbd-srv.c`; its client makes
  /// EIO of every number that the block layer has not.
  public var error: PeerErrno {
    switch self {
    case .unknownDevice: .notConnected
    case .readOnly: .readOnly
    case .unknownOperation: .notSupported
    case .sizeMismatch: .invalid
    case .beyondEnd: .io
    }
  }
}

/// What can be done with a device, whatever protocol asks for it.
public enum BlockOperation: Equatable, Sendable {
  case read, write, flush, discard, writeZeroes
}

/// What to do with a device.
public struct BlockRequest: Equatable, Sendable {
  /// The driver's own number for what is behind the device.
  public var backend: Int
  /// `offset` and `byteCount` mean nothing in a flush.
  public var operation: BlockOperation
  /// In bytes; 0 for a flush, like the next.
  public var offset: UInt64
  /// In bytes.
  public var byteCount: UInt32
  /// Only of what changes blocks: it is durable before it is answered.
  public var isFUA: Bool

  public init(
    backend: Int, operation: BlockOperation, offset: UInt64, byteCount: UInt32, isFUA: Bool
  ) {
    self.backend = backend
    self.operation = operation
    self.offset = offset
    self.byteCount = byteCount
    self.isFUA = isFUA
  }
}

/// How the request of an I/O came. RTRS says it.
public enum IOCarrier: Equatable, Sendable {
  /// A write, with this many bytes of data.
  case toServer(dataByteCount: UInt32)
  /// A read, into this many bytes of the client.
  case toClient(roomByteCount: UInt32)
}

/// The open devices of one session, by the numbers that the client uses; see the head of this file.
public struct ServerDevices: Sendable {
  private struct Device {
    let name: DeviceName
    let accessMode: AccessMode
    let backend: Int
  }

  private var devices: [Device?]

  /// What is more is refused with ENFILE.
  public init(deviceCountMaximum: Int) {
    devices = [Device?](repeating: nil, count: deviceCountMaximum)
  }

  /// A second open of a name gives the device that is open, whatever the mode: so a client opens
  /// its devices again that does not know whether the server has forgotten them.
  public func find(_ name: DeviceName) -> UInt32? {
    for index in devices.indices where devices[index]?.name == name {
      return UInt32(truncatingIfNeeded: index)
    }
    return nil
  }

  /// Always a new device, whose number it gives; ask `find` first. `backend`: see `BlockRequest`.
  public mutating func open(
    _ request: OpenRequest, backend: Int
  ) throws(PeerErrno) -> UInt32 {
    for index in devices.indices where devices[index] == nil {
      devices[index] = Device(
        name: request.name, accessMode: request.accessMode, backend: backend)
      return UInt32(truncatingIfNeeded: index)
    }
    throw .tooManyOpen
  }

  /// What was behind the device; nil when there is none of that number, which is no error.
  public mutating func close(_ number: UInt32) -> Int? {
    guard number < UInt32(devices.count), let device = devices[Int(number)] else { return nil }
    devices[Int(number)] = nil
    return device.backend
  }

  /// Nil when there is no open device of that number.
  public func backend(of number: UInt32) -> Int? {
    number < UInt32(devices.count) ? devices[Int(number)]?.backend : nil
  }
  /// Nil when there is no open device of that number.
  public func accessMode(of number: UInt32) -> AccessMode? {
    number < UInt32(devices.count) ? devices[Int(number)]?.accessMode : nil
  }

  /// The backend of one open device after the other, each of which is closed; nil at the end.
  public mutating func closeNext() -> Int? {
    for index in devices.indices where devices[index] != nil {
      return close(UInt32(truncatingIfNeeded: index))
    }
    return nil
  }

  /// What an I/O means, when its device is open, may do it, and all sizes agree. Whether the range
  /// lies in the device is the caller's to check.
  public func check(_ io: IORequest, _ carrier: IOCarrier) throws(IORefusal) -> BlockRequest {
    guard io.device < UInt32(devices.count), let device = devices[Int(io.device)] else {
      throw .unknownDevice(io.device)
    }
    let operation: BlockOperation
    switch io.operation {
    case .read: operation = .read
    case .write: operation = .write
    case .flush: operation = .flush
    case .discard: operation = .discard
    case .writeZeroes: operation = .writeZeroes
    default: throw .unknownOperation(io.operation)
    }
    switch (operation, carrier) {
    case (.read, .toClient(let count)), (.write, .toServer(let count)):
      guard count == io.dataByteCount, count > 0 else { throw .sizeMismatch }
    case (.read, _), (.write, _): throw .sizeMismatch
    case (_, .toClient(let count)), (_, .toServer(let count)):
      guard count == 0 else { throw .sizeMismatch }
    }
    let changes = operation != .read && operation != .flush
    if changes, device.accessMode == .readOnly { throw .readOnly }
    if operation == .flush {
      return BlockRequest(
        backend: device.backend, operation: .flush, offset: 0, byteCount: 0, isFUA: false)
    }
    let (offset, overflow) = io.sector.multipliedReportingOverflow(by: RNBD.sectorByteCount)
    guard !overflow else { throw .beyondEnd }
    return BlockRequest(
      backend: device.backend, operation: operation, offset: offset, byteCount: io.dataByteCount,
      isFUA: changes && io.flags.contains(.fua))
  }
}

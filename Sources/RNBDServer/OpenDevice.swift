// SPDX-License-Identifier: Apache-2.0
// A device that a session has open: the medium, the right to write to it, and what the client is
// told of it.

import BlockBackends
import BlockServer
import LinuxSystem
import RNBDProtocol
import WireFormat

/// Everything is given back when the last reference has gone, and no request has it any more.
final class OpenDevice: @unchecked Sendable {
  // Unchecked: `workerTurns` belongs to whoever runs the engine.
  let export: Export
  let backend: any BlockBackend
  let rules: RequestRules
  let mode: RNBDProtocol.AccessMode
  /// As the client called it.
  let name: ByteString
  let statistics = SessionStatistics()
  /// In the registry; 0 when it is full.
  let number: UInt64
  /// The engine's thread's: so many requests are executed by workers, for the medium was slow.
  var workerTurns = 0
  private let registry: BlockServer.SessionRegistry
  private let attachments: Attachments
  private let attached: AttachmentConnection?
  private let grant: WriteGrant?

  fileprivate init(
    _ export: Export, backend: any BlockBackend, request: OpenRequest,
    attached: AttachmentConnection?,
    grant: WriteGrant?, context: OpenContext
  ) throws(DeviceRefusal) {
    self.export = export
    self.backend = backend
    mode = request.accessMode
    name = request.name.text
    self.attached = attached
    self.grant = grant
    registry = context.registry
    attachments = context.attachments
    var geometry = export.geometry(isAttached: true)
    if mode == .readOnly { geometry.isReadOnly = true }
    rules = RequestRules(
      geometry, payloadByteCountMaximum: UInt64(context.dataByteCountMaximum))
    let stop = context.stop
    guard
      let number = registry.add(
        client: context.client, protocolName: "rnbd", statistics: statistics,
        access: mode.name, device: name, session: context.session, stop: { _ in stop() })
    else {
      if let attached { context.attachments.leave(attached, saysGoodbye: true) }
      throw .unusable(SystemError(errno: 23))  // ENFILE
    }
    self.number = number
    registry.entered(number, export: export.name)
  }

  deinit {
    registry.remove(number)
    if let attached { attachments.leave(attached, saysGoodbye: false) }
  }

  func flush() throws(BackendError) {
    if mode != .readOnly, export.access != .readOnly { try backend.flush() }
  }

  /// What the client's kernel shows. Limits of one request that need no data: what a file system does
  /// at once, and what it may have to write.
  func answer(device: UInt32, dataByteCountMaximum: UInt32) -> OpenAnswer {
    let geometry = export.geometry(isAttached: true)
    let block = max(512, geometry.blockSizes.minimum)
    let sectors = geometry.byteCount / UInt64(block) * UInt64(block) / RNBD.sectorByteCount
    var answer = OpenAnswer(device: device, sectorCount: sectors)
    answer.requestSectorCountMaximum = dataByteCountMaximum / UInt32(RNBD.sectorByteCount)
    answer.logicalBlockByteCount = UInt16(clamping: block)
    answer.physicalBlockByteCount = UInt16(
      clamping: min(max(geometry.blockSizes.preferred, block), 4096))
    answer.segmentCountMaximum = 128
    guard !geometry.isReadOnly, mode != .readOnly else { return answer }
    answer.cachePolicy = [.writeBack, .fua]
    answer.writeZeroesSectorCountMaximum = 64 << 11  // 64 MiB
    if geometry.capabilities.contains(.trim) {
      answer.discardSectorCountMaximum = 1 << 21  // 1 GiB
      answer.discardGranularity = max(4096, block)
    }
    return answer
  }
}

/// What opening a device needs to know of the session.
struct OpenContext: Sendable {
  var directory: DeviceDirectory
  var access: WriteAccess
  var attachments: Attachments
  var registry: BlockServer.SessionRegistry
  var session: ByteString
  var client: ByteString
  var dataByteCountMaximum: UInt32
  /// Whose layer of an overlay it is. The client keeps it over losses of all paths.
  var token: AttachmentToken
  /// Of the device in the session; the layers of two of them are not the same.
  var slot: UInt16
  /// The client was here before.
  var isResuming: Bool
  /// Ends the session.
  var stop: @Sendable () -> Void

  /// May wait for a disk.
  func open(_ request: OpenRequest) throws(DeviceRefusal) -> OpenDevice {
    let identity = ClientIdentity(address: ClientAddress(client), sessionName: session)
    let export = try directory.find(request.name.text, for: identity)
    // A client could not use blocks that are larger than a page of its own.
    guard export.geometry().blockSizes.minimum <= 4096 else { throw .notBlocks }
    var grant: WriteGrant?
    if request.accessMode != .readOnly {
      guard export.access != .readOnly else { throw .readOnly }
      if export.access.writesToMedium {
        let mayBeSecond = request.accessMode == .migration || export.access == .migration
        grant = access.take(export.media, mayBeSecond ? .migration : .exclusive)
        guard grant != nil else { throw .inUse }
      }
    }
    guard export.access == .overlay else {
      let backend: any BlockBackend
      do { backend = try export.open() } catch { throw .notBlocks }
      return try OpenDevice(
        export, backend: backend, request: request, attached: nil, grant: grant, context: self)
    }
    let connection: AttachmentConnection
    do {
      connection = try attachments.enter(
        export,
        AttachmentClaim(
          token: token, generation: MonotonicTime.now.nanoseconds, slot: slot,
          isResuming: isResuming),
        until: .milliseconds(5000),
        control: ConnectionControl(interrupt: stop, arrivedByteCount: { nil }))
    } catch { throw .refused(error) }
    return try OpenDevice(
      export, backend: export.open(connection), request: request, attached: connection,
      grant: nil, context: self)
  }
}

// Errors as the peer's numbers: the one place that knows both.
extension PeerErrno {
  /// Source: `blk_errors` in Linux 6.12 `block/blk-core.c`; whatever else its client gets becomes EIO.
  init(_ error: BackendError) {
    switch error {
    case .readOnly: self = .readOnly
    case .range: self = .invalid
    case .truncated: self = .io
    case .notFast: self = .notSupported
    case .system(let system):
      switch system.errno {
      case 12: self = .outOfMemory
      case 28, 122, 27: self = .noSpace  // ENOSPC, EDQUOT, EFBIG
      case 95: self = .notSupported
      case 110: self = .timedOut
      default: self = .io
      }
    }
  }

  init(_ refusal: BlockServer.RequestRefusal) {
    switch refusal {
    case .readOnly: self = .readOnly
    case .outOfRange: self = .io  // As Linux's server has it.
    case .misaligned, .tooLong: self = .invalid
    }
  }

  /// What a person at the client reads. Source: `rnbd_srv_check_open_perm` and `process_msg_open` in
  /// Linux 6.12 `rnbd-srv.c`.
  init(_ refusal: DeviceRefusal) {
    switch refusal {
    case .notFound, .noName: self = .notFound
    case .outside, .notBlocks: self = .invalid
    case .inUse: self = .notPermitted
    case .readOnly: self = .readOnly
    case .unusable(let error): self = PeerErrno(rawValue: UInt16(clamping: error.errno))
    case .refused: self = .noSuchDevice
    }
  }
}
